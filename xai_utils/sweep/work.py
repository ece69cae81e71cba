"""A shard: some samples under one method and one model, scored. This is what a worker does."""

from __future__ import annotations

import importlib
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from xai_utils import runtime
from xai_utils.models import memory
from xai_utils.samples import sets
from xai_utils.samples.kinds import Picture, Text
from xai_utils.sweep import cluster, parts, sources

SCORED = ("sample", "metric", "operator", "value", "seconds")
COLUMNS = ("model", "method", "set", *SCORED, "error", "traceback")
#: what no number depends on beyond the hash of the samples: who reads them, who shares out the work, who keeps it
BESIDE = tuple(
    f"xai_utils.{name}"
    for name in (
        "files",
        "tables",
        *(f"samples.{name}" for name in ("bundled", "folders", "kinds", "passages", "scenes", "sets")),
        *(f"sweep.{name}" for name in ("cluster", "parts", "sources")),
    )
)


class Unfit(RuntimeError):
    """A worker that has other weights, data, code or versions than the sweep was planned with."""


@dataclass(frozen=True)
class Shard:
    """One piece of a sweep.

    Attributes:
        model: name.
        method: name.
        label: of the set of samples, in the table.
        samples: the set, see :func:`sets.find`.
        start: first sample.
        stop: one behind the last.
        metrics: names.
        seed: of everything random.
        threads: of torch; sums differ in their last digits with the number of threads.
        device: ``"cpu"``, or ``"cuda"``: one GPU for each worker of a machine.
        scoring: module with ``score_shard(model, method, samples, metrics, seed)`` and ``identity(model)``.
        weights: what ``identity`` has to return.
        inputs: what :func:`sets.digest` has to return.
        code: hash of the code, see :func:`surroundings`.
    """

    model: str
    method: str
    label: str
    samples: Mapping[str, Any]
    start: int
    stop: int
    metrics: tuple[str, ...]
    seed: int
    threads: int
    device: str
    scoring: str
    weights: str
    inputs: str
    code: str

    def made_of(self) -> dict[str, Any]:
        """Return what decides the numbers of the shard: everything but where its files lie."""
        made = asdict(self) | {"versions": runtime.versions()}
        return {name: value for name, value in made.items() if name != "samples"}


@dataclass(frozen=True)
class Filled:
    """What became of a shard.

    Attributes:
        rows: one for each sample, metric and operator, with :data:`COLUMNS`; a failure has a row too.
        passing: whether a failure may pass when it is tried again (memory, files, workers).
    """

    rows: list[dict[str, Any]] = field(repr=False)
    passing: bool = False


def fill(shard: Shard) -> Filled:
    """Score a shard. A failing one is taken sample by sample, so that only the samples that fail lack numbers.

    Raises:
        Unfit: weights, data or code are not the ones that the sweep was planned with.
    """
    some = _ready(shard)
    try:
        return Filled(_scored(shard, some))
    except Exception as error:
        if len(some) == 1:
            return Filled([failure(shard, some[0].name, error)], _may_pass(error))
    rows, passing = [], False
    for one in some:
        try:
            rows += _scored(shard, [one])
        except Exception as error:
            rows.append(failure(shard, one.name, error))
            passing |= _may_pass(error)
    return Filled(rows, passing)


def failure(shard: Shard, sample: str, error: BaseException) -> dict[str, Any]:
    """Return the row of a failure: no value, what went wrong, and where."""
    nothing = {"metric": "", "operator": "", "value": math.nan, "seconds": math.nan}
    said = f"{type(error).__name__}: {error}".strip(": ")
    return _row(shard, {"sample": sample, **nothing}) | {"error": said, "traceback": _where(error)}


@cache
def surroundings(scoring: str) -> dict[str, dict[str, str]]:
    """Return versions, and hashes of the code that scoring leads to, of this very process."""
    spec = find_spec(scoring)
    if spec is None or spec.origin is None:
        raise Unfit(f"no module {scoring}.")
    code = {**sources.of_file(Path(__file__), BESIDE), **sources.of_file(Path(spec.origin), BESIDE)}
    return {"version": runtime.versions(), "code": code}


@dataclass(frozen=True)
class Fitness:
    """See whether a worker has the code and the versions of the sweep; called on every worker."""

    scoring: str
    expected: dict[str, dict[str, str]]

    def __call__(self) -> None:
        """Raise :class:`Unfit`, naming what differs."""
        for kind, found in surroundings(self.scoring).items():
            wanted = self.expected[kind]
            other = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
            if other:
                raise Unfit(f"a worker has another {kind} of {', '.join(other)} than the sweep was planned with.")


def _ready(shard: Shard) -> list[Text | Picture]:
    """Return the samples, once everything is what the plan says."""
    module = importlib.import_module(shard.scoring)
    if "xai_utils.models" in sys.modules:  # scoring has led there
        from xai_utils import models

        models.work_on(runtime.own_device(shard.device, cluster.place()))
    if parts.key(surroundings(shard.scoring)) != shard.code:
        raise Unfit("this worker has other code or versions than the sweep was planned with; start it again.")
    if module.identity(shard.model) != shard.weights:
        raise Unfit(f"{shard.model} has other weights here than where the sweep was planned.")
    some = sets.take(shard.samples, shard.start, shard.stop)
    if sets.digest(some) != shard.inputs:
        raise Unfit(f"{shard.label} holds other samples here than where the sweep was planned.")
    return some


def _scored(shard: Shard, some: Sequence[Text | Picture]) -> list[dict[str, Any]]:
    module = importlib.import_module(shard.scoring)
    threads = torch.get_num_threads()
    torch.set_num_threads(shard.threads)
    try:
        runtime.seed(shard.seed)
        rows = module.score_shard(shard.model, shard.method, list(some), shard.metrics, shard.seed)
    finally:
        torch.set_num_threads(threads)
    named = {one.name for one in some}
    for row in rows:
        if sorted(row) != sorted(SCORED) or row["sample"] not in named:
            raise ValueError(f"a score is {row}, expected {', '.join(SCORED)} of a sample of the shard.")
        if not math.isfinite(row["value"]):
            raise ValueError(f"{row['metric']} ({row['operator']}) of {row['sample']!r} is {row['value']}.")
    if missing := named - {row["sample"] for row in rows}:
        raise ValueError(f"{len(missing)} samples have no score, such as {min(missing)!r}.")
    return [_row(shard, row) for row in rows]


def _row(shard: Shard, scored: Mapping[str, Any]) -> dict[str, Any]:
    named = {"model": shard.model, "method": shard.method, "set": shard.label}
    return {**named, **{name: scored[name] for name in SCORED}, "error": "", "traceback": ""}


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OSError) or memory.ran_out(error)


def _where(error: BaseException) -> str:
    """Return the traceback, with files named from the package or the library on, not from this machine's root."""
    told = traceback.TracebackException.from_exception(error)
    waiting = [told]
    while waiting:
        one = waiting.pop()
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        for frame in one.stack:
            file = Path(frame.filename).parts
            known = [i for i, name in enumerate(file) if name in (sources.PACKAGE.name, "site-packages")]
            frame.filename = "/".join(file[known[-1] :] if known else file[-1:])
    return "".join(told.format())
