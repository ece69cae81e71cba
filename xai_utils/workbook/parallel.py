"""Run several notebooks at once, each in a process of its own, and say how far they are.

A kernel has one thread (see :mod:`execute`), so what it computes does not depend on how many run beside it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerProcess
from typing import Any, NoReturn, Protocol

import joblib
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from xai_utils.workbook.runs import Job

GIB = 2**30
MEMORY = 4 * GIB  #: that one notebook may need: the greatest that the bundled ones take is 3.2 GiB
PRELOADED = "xai_utils.workbook.execute"  #: imported once, for all processes: that takes a second or two
PATIENCE = 30.0  # seconds that a process has to shut its kernel down

Told = Callable[[int, int], None]  #: called with the number of a code cell that begins, and how many there are


class Work(Protocol):
    """What is done with a job in its own process; it must be importable, and returns a record."""

    def __call__(self, job: Job, told: Told) -> dict[str, Any]:
        """Do it."""


def at_once(asked: int | None, memory: int = MEMORY) -> tuple[int, str]:
    """Return how many notebooks may run at once, and why not as many as were asked for, if so.

    Args:
        asked: how many, at least 1; ``None`` takes as many as there are cores, if memory allows.
        memory: bytes that one needs.
    """
    free = psutil.virtual_memory().available
    fit = max(1, free // memory)
    wanted = asked or joblib.cpu_count()
    if wanted <= fit:
        return wanted, ""
    return (
        fit,
        f"{fit} at once, not {wanted}: {free / GIB:.1f} GiB of memory are free, and one may need {memory / GIB:.1f}",
    )


def run(work: Work, jobs: Sequence[Job], most: int, show: Show) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Do the jobs in their order, at most ``most`` at once.

    Args:
        work: what to do with each.
        jobs: to be done, the longest first.
        most: at once.
        show: is told of every beginning, cell and end.

    Yields:
        Each job as it ends, with its record; or with what ended its process, if nothing came of it.

    When the caller stops early, or is interrupted, all processes are ended, and their kernels with them.
    """
    waiting, running = list(jobs), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < most:
                running.append(_Running.begin(work, waiting.pop(0)))
                show.begun(running[-1].job)
            ready = connection.wait([one.pipe for one in running])
            for one in [one for one in running if one.pipe in ready]:
                found = one.receive()
                if isinstance(found, tuple):
                    show.cell(one.job, *found)
                    continue
                running.remove(one)
                show.ended(one.job)
                yield one.job, found
    finally:
        _end(running)


@dataclass(frozen=True)
class _Running:
    job: Job
    process: ForkServerProcess
    pipe: connection.Connection

    @classmethod
    def begin(cls, work: Work, job: Job) -> _Running:
        context = get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_do, args=(work, job, there, dict(os.environ)), name=job.notebook.stem)
        process.start()
        there.close()
        return cls(job, process, here)

    def receive(self) -> tuple[int, int] | dict[str, Any] | str:
        """Return a cell that began, the record, or what ended the process."""
        try:
            found: tuple[int, int] | dict[str, Any] = self.pipe.recv()
        except EOFError:
            self.process.join(PATIENCE)
            code = self.process.exitcode or 0
            return (
                f"its process was ended by {signal.Signals(-code).name}"
                if code < 0
                else f"its process gave up ({code})"
            )
        if isinstance(found, dict):
            self.process.join(PATIENCE)
        return found


def _end(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for one in running:
        one.process.join(max(0.0, deadline - time.monotonic()))
        if one.process.is_alive():
            one.process.kill()


def _do(work: Work, job: Job, pipe: connection.Connection, environment: dict[str, str]) -> None:
    """Run in the process of a job: the parent alone hears Ctrl-C, and ends this one as :func:`_end` does."""
    os.environ.update(environment)  # a process of a fork server has that of the server's beginning
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which kernels would inherit
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_follow, daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):
        pipe.send(work(job, lambda cell, count: pipe.send((cell, count))))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _follow() -> None:
    """End with a parent that was killed: nobody else would end the kernel."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Show:
    """How far the notebooks are: a row for each that runs on a terminal, plain lines in a log."""

    def __init__(self, count: int) -> None:
        """Expect ``count`` notebooks."""
        self.console = Console(stderr=True)
        self.count, self.over, self.since = count, 0, dict[str, float]()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.rows: dict[str, TaskID] = {}

    def __enter__(self) -> Show:
        """Begin to show."""
        self.progress.start()
        self.total = self.progress.add_task("notebooks", total=self.count)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to show."""
        self.progress.stop()

    def begun(self, job: Job) -> None:
        """Add a row."""
        name = job.notebook.stem
        self.since[name] = time.monotonic()
        self.rows[name] = self.progress.add_task(name, total=None)
        self._say(f"{name} begins")

    def cell(self, job: Job, cell: int, count: int) -> None:
        """Move a row on: code cell ``cell`` of ``count`` begins."""
        self.progress.update(self.rows[job.notebook.stem], completed=cell - 1, total=count)

    def ended(self, job: Job) -> None:
        """Take a row away."""
        name = job.notebook.stem
        self.over += 1
        self.progress.remove_task(self.rows.pop(name))
        self.progress.advance(self.total)
        self._say(f"{name} ended after {time.monotonic() - self.since.pop(name):.0f} s, {self.over} of {self.count}")

    def _say(self, line: str) -> None:
        if self.progress.disable:
            self.console.print(line, highlight=False)
