"""Break as many things as asked for, and say what came of it (``make faults``)."""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.faults import damage, errors, kills, programs
from xai_utils import runtime


def run(
    seed: int, killed: int, damaged: int, started: int, stopped: int, folder: Path
) -> tuple[Counter[str], list[str], list[str]]:
    """Return how many faults there were by kind, what was lost, and what was silent."""
    noise = np.random.default_rng(seed)
    count: Counter[str] = Counter()
    lost, silent = [], []
    for n in range(killed):
        name = list(kills.WRITERS)[n % len(kills.WRITERS)]
        lost += filter(None, [kills.kill(name, folder / f"kill{n}", float(noise.uniform(0, 0.03)))])
        lost += filter(None, [kills.fill(name, folder / f"full{n}", int(noise.integers(kills.SIZE // 2)))])
        count[f"killed while writing: {name}"] += 1
        count[f"no room left while writing: {name}"] += 1
    lost += filter(None, [kills.race(folder / "race", 40)])
    count["two processes, one file"] += 1
    for n in range(started):
        name = list(programs.PROGRAMS)[n % len(programs.PROGRAMS)]
        lost += filter(None, [programs.kill(name, folder / f"program{n}", noise)])
        count[f"program killed three times: {name}"] += 3
    for n in range(damaged):
        name = list(damage.KINDS)[n % len(damage.KINDS)]
        silent += filter(None, [damage.strike(name, folder / f"damage{n}", noise)])
        count[f"damaged: {name}"] += 1
    lost += errors.strike_all(errors.networks(), seed, stopped)
    count["error in the middle of a method"] += stopped
    return count, lost, silent


def main() -> int:
    """Break things, print what came of it, and return 1 if anything was lost or silent."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=80)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--programs", type=int, default=4)
    parser.add_argument("--errors", type=int, default=320)
    options = parser.parse_args()
    runtime.quiet()
    with tempfile.TemporaryDirectory() as folder:
        asked = (options.kills, options.damages, options.programs, options.errors)
        count, lost, silent = run(options.seed, *asked, Path(folder))
    for kind, number in count.items():
        print(f"{number:4d}  {kind}")
    for said in (*lost, *silent):
        print(f"  !   {said}")
    print(f"{count.total()} faults, {len(lost)} lost, {len(silent)} silent (seed {options.seed})")
    return 1 if lost or silent else 0


if __name__ == "__main__":
    sys.exit(main())
