"""Time the report: this project's pages against nbconvert's own pages of the same notebooks, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from nbconvert.exporters import HTMLExporter

from tests.bench.measure import Against, Row, in_turn, named
from xai_utils import files
from xai_utils.workbook.report import build


def plain() -> None:
    """Convert every notebook by nbconvert as it is."""
    exporter = HTMLExporter()
    for path in sorted((files.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        exporter.from_filename(str(path))


def rows(quick: bool = False) -> Iterator[Row]:
    """Build the whole site, links checked, and convert the same notebooks plainly."""
    with TemporaryDirectory() as folder:
        counts = build.build(files.ROOT, Path(folder) / "warm")
        works = {"ours": lambda: build.build(files.ROOT, Path(folder) / "site"), "theirs": plain}
        times = in_turn(works, 1)  # type: ignore[arg-type]
    case = f"report, {counts['pages']} pages, {counts['figures']} figures"
    yield Row(case, times["ours"], None, Against(f"{named('nbconvert')}, notebooks only", times["theirs"]))
