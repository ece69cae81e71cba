"""What the parts of the benchmark share: times taken in turn, peak memory, versions of other programs, rows.

Times are seconds of the processor on one thread, medians of runs taken in turn after one warm-up, so that other work on
the machine hardly counts. On a GPU they are seconds of the clock, until the GPU is done.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Works = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Against:
    """What a hot path is held against: its name and seconds, and how many times as long ours may take."""

    name: str
    seconds: float | None = None  #: ``None``: not measured, and the name says why
    limit: float | None = None
    why: str = ""  #: of a limit that is missed, if it is


@dataclass(frozen=True)
class Row:
    """One hot path: our seconds, the plain pass (or plain loop) that it needs anyway, another program, memory."""

    path: str
    ours: float | None = None  #: ``None``: failed, and the path says how
    plain: Against | None = None
    peer: Against | None = None
    memory: float | None = None  #: MB that the peak lies above what was held before
    most: float | None = None  #: that the memory may be


def clock() -> float:
    """Return seconds of the processor; on a GPU, of the clock once all that was asked for is done."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(works: Works, repeats: int) -> dict[str, float]:
    """Run all in turn, once to warm up and then ``repeats`` times; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begun = clock()
            work()
            if turn:
                times[name].append(clock() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def peak(work: Callable[[], object]) -> float | None:
    """Return how many MB the peak lies above what the process holds; ``None`` where the system does not tell."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    gc.collect()  # what is freed in the midst of the work would hide it
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = _held(status, "VmRSS")
    work()
    return (_held(status, "VmHWM") - before) / 1024


def left(work: Callable[[], object]) -> float | None:
    """Return how many MB more the process holds behind some work; ``None`` where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    gc.collect()
    before = _held(status, "VmRSS")
    work()
    gc.collect()
    return (_held(status, "VmRSS") - before) / 1024


def _held(status: Path, name: str) -> int:
    """Return one line of the process's status, in KiB."""
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name + ":"))


def named(package: str) -> str:
    """Return a package's name and version, or just the name with "not installed, skipped"."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package}: not installed, skipped"


def there(package: str) -> bool:
    """Tell whether another program is installed."""
    return "skipped" not in named(package)


def program(package: str, works: Works, work: Callable[[], Callable[[], object]]) -> str:
    """Add another program's work to those that are timed in turn, if it is installed; return its name and version."""
    if there(package):
        works[named(package)] = work()
    return named(package)
