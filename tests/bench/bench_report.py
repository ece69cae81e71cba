"""Time the report: this project's pages against nbconvert's own pages of the same notebooks, nothing executed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from nbconvert.exporters import HTMLExporter

from xai_utils import files
from xai_utils.workbook.report import build

LIMIT = 60  # seconds that a report may take


def processor(run: Callable[[], object]) -> float:
    """Return the seconds of the processor that a call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def plain() -> None:
    """Convert every notebook by nbconvert as it is."""
    exporter = HTMLExporter()
    for path in sorted((files.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        exporter.from_filename(str(path))


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Build the whole site, links checked, and convert the same notebooks plainly; once, or the better of two."""
    with TemporaryDirectory() as folder:
        counts = build.build(files.ROOT, Path(folder) / "warm")
        times = range(1 if quick else 2)
        ours = min(processor(lambda: build.build(files.ROOT, Path(folder) / "site")) for _ in times)
        theirs = min(processor(plain) for _ in times)
    case = f"{counts['pages']} pages, {counts['figures']} figures, {'≤' if ours <= LIMIT else 'misses'} {LIMIT} s"
    return [
        {
            "case": case,
            "ours": "report",
            "compared with": "nbconvert, notebooks only",
            "seconds": ours,
            "theirs (s)": theirs,
            "ratio": ours / theirs,
        }
    ]
