"""Kill whole programs at random moments, start them again, and compare with one that nobody disturbed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from tests.workbook.made_up import write
from xai_utils import files
from xai_utils.sweep import parts
from xai_utils.workbook import runs

DRAW = """\
import json, os, time
from pathlib import Path
from xai_utils import files
time.sleep(0.3)
number = os.environ["XAI_NOTEBOOK"][:2]
about = json.dumps({"device": "cpu"}).encode()
dot = {f"{number}_dot.png": bytes(200_000) + number.encode(), f"{number}_dot.json": about}
files.write_together(Path(os.environ["XAI_FIGURES"]), dot)"""

FIGURES = """\
import sys; from pathlib import Path
from xai_utils.__main__ import main; from xai_utils.workbook import runs
if __name__ == "__main__":
    runs.places = lambda: runs.Places(*map(Path, sys.argv[1:]))
    sys.exit(main(["figures", "--jobs", "2"]))
"""
SWEEP = """\
import sys; from pathlib import Path
sys.path.insert(0, "tests")
from xai_utils.__main__ import main; from xai_utils.sweep import plan, runner
if __name__ == "__main__":
    plan.SCORINGS, runner.FOLDER = ("sweep_cells",), Path(sys.argv[2])
    sys.exit(main(["sweep", sys.argv[1]]))
"""


def figures(folder: Path) -> tuple[list[str], Callable[[], str]]:
    """Return the command of a run of three notebooks, and what finds something lost in what it made."""
    places = runs.Places(folder, folder / "notebooks", folder / "runs", folder / "figures")
    places.notebooks.mkdir(parents=True)
    for number in ("01", "02", "03"):
        write(places, f"{number}_dots", DRAW)

    def lost() -> str:
        missing = [job.notebook.stem for job in runs.plan(places) if not runs.finished(job)]
        left = sorted(path.name for path in (*places.runs.rglob("*partial*"), *places.figures.glob(".*")))
        return f"not finished: {missing}" if missing else f"left behind: {left}" if left and not _hidden(left) else ""

    return [FIGURES, *map(str, (places.root, places.notebooks, places.runs, places.figures))], lost


def _hidden(names: list[str]) -> bool:
    """What a killed process leaves has a hidden name, or that of its process: in nobody's way."""
    return all(name.startswith(".") or ".partial.ipynb" in name for name in names)


def sweep(folder: Path) -> tuple[list[str], Callable[[], str]]:
    """Return the command of a sweep, and what finds something lost in its table."""
    folder.mkdir(parents=True)
    cell = {"models": ["plain"], "methods": ["counts"], "samples": {"set": "reviews", "count": 24}}
    files.write(folder / "films.yml", yaml.safe_dump({"shard": 1, "scoring": "sweep_cells", "cells": [cell]}))

    def lost() -> str:
        table = parts.read(folder / "films.parquet")
        if table is None:
            return "no table"
        twice = int(table.duplicated(["sample", "metric", "operator"]).sum())
        return (
            ""
            if table["sample"].nunique() == 24 and not twice
            else f"{table['sample'].nunique()} samples, {twice} twice"
        )

    return [SWEEP, str(folder / "films.yml"), str(folder)], lost


PROGRAMS = {"figures": figures, "sweep": sweep}


def kill(name: str, folder: Path, noise: np.random.Generator, times: int = 3) -> str:
    """Kill a program some times, each time later, then let it end; return what was lost, or nothing."""
    command, lost = PROGRAMS[name](folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(files.ROOT), *sys.path])}
    script = folder / "program.py"
    script.write_text(command[0])
    for attempt in range(times + 1):
        process = subprocess.Popen(
            [sys.executable, str(script), *command[1:]], cwd=files.ROOT, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        if attempt == times:
            code = process.wait(300)
            return f"it ended with {code}" if code else lost()
        time.sleep(float(noise.uniform(2, 8)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(2)  # its kernels notice
    return ""
