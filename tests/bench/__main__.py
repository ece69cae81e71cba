"""Time the methods: ``python -m tests.bench`` prints one table of ratios, all measured in one run.

Times are seconds of the processor on one thread, medians of runs taken in turn after one warm-up, so that other work on
the machine hardly counts. ``--quick`` makes everything smaller; its ratios are only a rough guide. Every
``bench_NAME.py`` beside this file with ``rows(quick)`` is a part of the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import torch

from xai_utils import runtime

COLUMNS = ("case", "ours", "compared with", "seconds", "theirs (s)", "ratio", "target")
PARTS = tuple(path.stem.removeprefix("bench_") for path in sorted(Path(__file__).parent.glob("bench_*.py")))


def lines(rows: Iterable[dict[str, object]]) -> Iterator[str]:
    """Write rows as a table in Markdown, each as it comes: numbers with three digits, missed targets marked."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' for _ in COLUMNS)} |"
    for row in rows:
        shown = []
        for column in COLUMNS:
            value = row.get(column)
            shown.append("" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value))
        if row.get("target"):
            missed = float(row["ratio"]) > float(row["target"])  # type: ignore[arg-type]
            shown[-1] = f"≤ {row['target']:g}{' (missed)' if missed else ''}"
        yield f"| {' | '.join(shown)} |"


def measured(parts: Sequence[str], quick: bool) -> Iterator[dict[str, object]]:
    """Measure part by part."""
    for part in parts:
        yield from import_module(f"tests.bench.bench_{part}").rows(quick)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, fewer repeats")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    arguments = parser.parse_args()
    runtime.quiet()
    torch.set_num_threads(1)
    for line in lines(measured([arguments.only] if arguments.only else PARTS, arguments.quick)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
