"""Many methods on many models and samples: resumable, on one machine or on a cluster, the same numbers anywhere.

``python -m xai_utils sweep PLAN.yml`` (``make sweep``) does what the plan lists (see :mod:`plan`), in shards.
Each is one parquet part with the key of everything that made it. What is finished is kept; a part whose weights,
inputs, parameters, code or versions have changed, or whose file is damaged, is done again. At the end all parts are
one tidy table. A cluster is described in :mod:`cluster`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from xai_utils import check, files, runtime
from xai_utils.samples import sets
from xai_utils.sweep import cluster, parts, work
from xai_utils.sweep import plan as sweep_plan
from xai_utils.sweep.cluster import Where
from xai_utils.sweep.plan import Plan
from xai_utils.sweep.work import Filled, Shard

FOLDER = runtime.ROOT / "runs" / "sweeps"
UNIQUE = ["model", "method", "set", "sample", "metric", "operator"]


@dataclass(frozen=True)
class Outcome:
    """What a sweep came to.

    Attributes:
        table: a row for each sample, metric and operator, columns :data:`work.COLUMNS`, in the order of the plan.
        kept: parts that were there.
        done: parts that were made.
        missing: shards that are not done, or failed in a way that may pass and have to be tried again.
        shards: all of them.
    """

    table: pd.DataFrame
    kept: int
    done: int
    missing: int
    shards: list[Shard]

    def failures(self) -> pd.DataFrame:
        """Return the rows that carry an error in place of a value."""
        return self.table[self.table.error != ""]


def run(
    plan: Plan,
    folder: Path | None = None,
    where: Where | None = None,
    again: bool = False,
    finished_only: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Do a plan, or what is left of it.

    Args:
        plan: what to do.
        folder: of the parts; ``runs/sweeps/NAME`` by default.
        where: this process, several, or a cluster.
        again: also try what failed before, with the same code and on the same data.
        finished_only: do nothing more; take what an interrupted sweep has finished.
        quiet: show no progress.

    Raises:
        ValueError: a mistake in the plan, or another process works on it.
        ConnectionError: the scheduler does not answer or is lost; finished parts are kept.
        RuntimeError: a worker without the package, or with other code.
    """
    folder = folder or FOLDER / plan.name
    todo = sweep_plan.expand(plan)
    found = [_kept(folder, shard, again) for shard in todo]
    left = [n for n, table in enumerate(found) if table is None]
    kept, missing = len(todo) - len(left), 0
    if finished_only:
        left, missing = [], len(left)
    fit = work.Fitness(plan.scoring, work.surroundings(plan.scoring))
    results = cluster.each(work.fill, [todo[n] for n in left], where, fit)
    bar = tqdm(results, desc=plan.name, total=len(todo), initial=kept, unit="part", disable=quiet)
    with files.alone({folder / ".lock": f"the sweep {plan.name}"}):
        for number, filled in bar:
            shard = todo[left[number]]
            if isinstance(filled, BaseException):  # its worker died, or is not fit
                names = sets.find(shard.samples).names[shard.start : shard.stop]
                filled = Filled([work.failure(shard, name, filled) for name in names], passing=True)
            missing += filled.passing
            found[left[number]] = _keep(folder, shard, filled)
    return Outcome(_together(found), kept, len(left), missing, todo)


def collect(outcome: Outcome, plan: Plan, file: Path) -> None:
    """Write the table of a sweep as one parquet file that says what made it."""
    made = outcome.shards
    labels = dict.fromkeys(shard.label for shard in made)
    about = {
        "plan": {"name": plan.name, "about": plan.about, "seed": plan.seed, "threads": plan.threads},
        "metrics": list(made[0].metrics),
        "weights": {shard.model: shard.weights for shard in made},
        "inputs": {name: parts.key({str(s.start): s.inputs for s in made if s.label == name}) for name in labels},
        **work.surroundings(plan.scoring),
        "failed": len(outcome.failures()),
        "missing": outcome.missing,
    }
    parts.write(outcome.table, file, about)


def cost_table(
    seconds: float, efficiency: float, samples: int = 50_000, workers: Sequence[int] = (1, 8, 64)
) -> pd.DataFrame:
    """Say what a sweep costs on paper, from the seconds that one worker needs for a sample.

    Two ways of going from two workers to many, because nothing else is measured: every worker stays as efficient as the
    two were, as on machines of their own; or the share that two lost is serial, and Amdahl's law holds.

    Args:
        seconds: for one sample, of all methods together.
        efficiency: of two workers, the time of one over twice the time of two; in (0.5, 1] (above 1 counts as 1).
        samples: under each method.
        workers: how many.

    Returns:
        One row for each number of workers: ``workers``, ``hours`` (same efficiency), ``hours_amdahl``, and
        ``worker_hours`` paid for in the first case.
    """
    if not seconds > 0:
        raise ValueError(f"seconds are {seconds}, expected a number above 0.")
    if not efficiency > 0.5:
        raise ValueError(f"efficiency is {efficiency}; two workers at 0.5 or less are no faster than one.")
    for name, least in (("samples", samples), ("workers", min(workers))):
        check.at_least_one(name, least)
    count, efficiency = np.array(workers), min(efficiency, 1.0)
    serial, alone = 1 / efficiency - 1, seconds * samples / 3600
    hours = np.where(count == 1, alone, alone / count / efficiency)
    amdahl = alone * (serial + (1 - serial) / count)
    return pd.DataFrame({"workers": count, "hours": hours, "hours_amdahl": amdahl, "worker_hours": hours * count})


def _file(folder: Path, shard: Shard) -> Path:
    """Name a part so that a person knows it, and no two shards share it."""
    named = f"{shard.model} {shard.method} {shard.label} {shard.start:06d}"
    return folder / f"{re.sub('[^A-Za-z0-9]+', '-', named)}-{hashlib.sha256(named.encode()).hexdigest()[:8]}.parquet"


def _kept(folder: Path, shard: Shard, again: bool) -> pd.DataFrame | None:
    """Return a finished part."""
    file = _file(folder, shard)
    table = parts.read(file, parts.key(shard.made_of()))
    if table is None or (parts.provenance(file) or {}).get("passing"):
        return None
    return None if again and (table.error != "").any() else table


def _keep(folder: Path, shard: Shard, filled: Filled) -> pd.DataFrame:
    table = pd.DataFrame(filled.rows, columns=list(work.COLUMNS))
    made: dict[str, Any] = shard.made_of()
    parts.write(table, _file(folder, shard), {"key": parts.key(made), "passing": filled.passing, **made})
    return table


def _together(tables: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
    there = [one for one in tables if one is not None]
    if not there:
        raise ValueError("no part of this sweep is finished.")
    table = pd.concat(there, ignore_index=True)
    twice = table[table.error == ""].duplicated(UNIQUE)
    if twice.any():
        first = table[table.error == ""][twice].iloc[0][UNIQUE].to_dict()
        raise ValueError(f"{int(twice.sum())} scores are there twice, the first {first}.")
    return table


def report(outcome: Outcome, file: Path) -> int:
    """Print what a sweep came to; return the exit code: 0 if everything is scored, 1 if a part is, 2 if nothing is."""
    table, failed = outcome.table, outcome.failures()
    scores = len(table) - len(failed)
    print(f"{file.name}: {scores} scores; {outcome.kept} parts kept, {outcome.done} done.")
    for (model, method, error), rows in failed.groupby(["model", "method", "error"]):
        print(f"failed  {method} on {model}, {len(rows)} samples: {str(error).splitlines()[0]}")
    if outcome.missing:
        print(f"{outcome.missing} parts are not done, or failed in a way that may pass; make sweep does them.")
    return 2 if not scores else 1 if outcome.missing or len(failed) else 0
