"""Build the report: ``make report`` turns the executed notebooks into pages under ``site/``.

Nothing is executed: pages show what the committed notebooks and ``figures/`` hold. The site opens from disk and asks
no other machine for anything. It is built in a folder beside its place, checked (:mod:`links`), and then
renamed; whatever fails leaves the old site as it was.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm.auto import tqdm

from xai_utils.workbook.report import findings, links
from xai_utils.workbook.report.cells import TEMPLATES
from xai_utils.workbook.report.pages import STATIC, Material, pages
from xai_utils.workbook.report.sources import Figure, Notebook, read_figures, read_models, read_notebook
from xai_utils.workbook.report.tables import Table, leaderboard, read_tables

LEADERBOARD = "data/sweeps/leaderboard.csv"
MADE_BY = '<meta name="generator" content="xai_utils report">'
REPORTED = 12  # problems named in an error


def read(root: Path) -> Material:
    """Read everything that the report shows from a project's folder.

    Raises:
        ValueError: something is missing or malformed, by name; see :mod:`sources` and :mod:`tables`.
    """
    files = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise ValueError("no notebook called NN_words.ipynb in notebooks/; nothing to report.")
    figures = read_figures(root / "figures")
    return Material(
        notebooks=[_with_values(read_notebook(path), root / "figures") for path in files],
        figures=figures,
        models=read_models(root, figures),
        rows=leaderboard(root / LEADERBOARD),
        tables=read_tables(root / "figures"),
        folder=root / "notebooks",
    )


def _with_values(notebook: Notebook, figures: Path) -> Notebook:
    tests = findings.read_tests(figures, notebook.number)
    return replace(notebook, claims=findings.measured(notebook.claims, tests))


def build(root: Path, site: Path) -> dict[str, int]:
    """Write the site of the project ``root`` and return how many pages, figures, claims and lines it has.

    Raises:
        ValueError: from :func:`read`; a formula that cannot be converted; a link that leads nowhere; a folder ``site``
            that holds something else. The old site stays.
    """
    _require_ours(site)
    material, standings = read(root), root / LEADERBOARD
    site.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=site.parent, prefix=f".{site.name}-") as beside:
        fresh = Path(beside) / "site"
        written = _write(material, fresh)
        if standings.exists():
            shutil.copyfile(standings, fresh / "static" / standings.name)
        if found := links.problems(fresh):
            more = f"\nand {len(found) - REPORTED} more" if len(found) > REPORTED else ""
            raise ValueError("the site does not hold together:\n" + "\n".join(found[:REPORTED]) + more)
        _publish(fresh, site, Path(beside) / "old")
    lines = len(material.rows or ())
    return {"pages": written, "figures": len(material.figures), "claims": len(material.claims), "leaderboard": lines}


def _require_ours(site: Path) -> None:
    index = site / "index.html"
    if site.exists() and not (site.is_dir() and (not any(site.iterdir()) or _is_ours(index))):
        raise ValueError(f"{site.name} exists and is no report; it would be replaced. Choose another folder.")


def _is_ours(index: Path) -> bool:
    return index.is_file() and MADE_BY in index.read_text(encoding="utf-8", errors="replace")


def _write(material: Material, fresh: Path) -> int:
    (fresh / "static").mkdir(parents=True)
    for name in STATIC:
        shutil.copyfile(TEMPLATES / name, fresh / "static" / name)
    everything: list[Figure | Table] = [*material.figures, *material.tables]
    for shown in everything:
        (fresh / shown.folder).mkdir(parents=True, exist_ok=True)
        for file in shown.files:
            shutil.copyfile(file, fresh / shown.folder / file.name)
    expected, written = len(material.notebooks) + 6, 0
    for name, content in tqdm(pages(material), total=expected, desc="pages", unit="page", leave=False):
        (fresh / name).write_text(content, encoding="utf-8")
        written += name.endswith(".html")
    return written


def _publish(fresh: Path, site: Path, old: Path) -> None:
    """Put the new site in the place of the old one; if that fails the old one comes back."""
    existed = site.exists()
    if existed:
        os.rename(site, old)
    try:
        os.rename(fresh, site)
    except OSError:
        if existed:
            os.rename(old, site)
        raise
