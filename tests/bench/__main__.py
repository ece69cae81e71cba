"""Time the methods: ``python -m tests.bench`` prints one table of ratios, all measured in one run.

A row is a hot path: our time, the time of the plain pass or plain loop that it is made of, the time of another program
that people use for the same, and ours divided by each. Below 1 we are faster. ``--quick`` makes everything smaller; its
ratios are only a rough guide. Every ``bench_NAME.py`` beside this file with ``rows(quick)`` is a part of the table; one
that fails is a row that says so. Other programs are optional: ``requirements-bench.txt`` lists them.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import torch

from tests.bench.measure import DEVICE, Against, Row
from xai_utils import runtime

COLUMNS = ("hot path", "ours (s)", "plain", "(s)", "ratio", "other program", "(s)", "ratio", "peak (MB)")
PARTS = tuple(path.stem.removeprefix("bench_") for path in sorted(Path(__file__).parent.glob("bench_*.py")))


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Write rows as a table in Markdown, each as it comes: numbers with three digits, missed limits marked."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' for _ in COLUMNS)} |"
    for row in rows:
        cells = [row.path, _number(row.ours), *_against(row.ours, row.plain), *_against(row.ours, row.peer)]
        yield f"| {' | '.join([*cells, _number(row.memory) + _limit(row.memory, row.most)])} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _against(ours: float | None, other: Against | None) -> tuple[str, str, str]:
    """Return the name, the seconds, and the ratio with its limit."""
    if other is None:
        return "", "", ""
    if ours is None or not other.seconds:
        return other.name, "", ""
    ratio = ours / other.seconds
    return other.name, _number(other.seconds), f"{ratio:.3g}{_limit(ratio, other.limit, other.why)}"


def _limit(value: float | None, most: float | None, why: str = "") -> str:
    """Write what a number may be at most, whether it is missed, and why."""
    if value is None or most is None:
        return ""
    missed = f", missed{': ' * bool(why)}{why}" if value > most else ""
    return f" (≤ {most:.3g}{missed})"


def measured(parts: Sequence[str], quick: bool) -> Iterator[Row]:
    """Measure part by part; one that fails is a row, and the others go on."""
    for part in parts:
        try:
            yield from import_module(f"tests.bench.bench_{part}").rows(quick)
        except Exception as error:
            said = " ".join(str(error).split())[:120]
            yield Row(f"{part}: failed, {type(error).__name__}: {said}".replace("|", "/"))


def machine() -> str:
    """Return one line on what the times were taken on."""
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{platform.machine()} processor"
    return f"{where}, {torch.get_num_threads()} thread, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, fewer repeats")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    arguments = parser.parse_args()
    runtime.quiet()
    torch.set_num_threads(1)
    print(machine(), end="\n\n", flush=True)
    if arguments.quick:
        print("Limits (≤) are for the whole sizes; these are smaller, and miss some that those keep.", end="\n\n")
    for line in lines(measured([arguments.only] if arguments.only else PARTS, arguments.quick)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
