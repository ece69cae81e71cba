"""The plan of a sweep, a small YAML file, and the shards that it comes to.

::

    seed: 0                     # of everything random
    shard: 16                   # samples in one part
    threads: 1                  # of torch in one worker; take more workers rather than more threads
    device: cpu                 # or cuda: every worker of a machine then takes a GPU of its own
    metrics: all                # or a list
    cells:
      - models: [minilm-sst2]
        methods: all            # all that the model takes; or a list
        samples: {set: reviews, count: 100}
      - models: [deit_tiny]
        methods: [rollout, attnlrp]
        samples: {set: pictures, name: imagenet, path: $IMAGENET, labels: $IMAGENET/labels.csv}

``samples`` names a set of :data:`sets.SETS` with its options; ``name`` is what the table calls it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from xai_utils import check, settings
from xai_utils.samples import sets
from xai_utils.sweep import parts, work
from xai_utils.sweep.work import Shard

#: what a plan's file may name: scores of maps, or what is left of them; code may give a module of its own
SCORINGS = ("xai_utils.evaluation.scoring", "xai_utils.evaluation.sanity")
KNOWN = ConfigDict(extra="forbid")
Names = Literal["all"] | Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, config=KNOWN)
class Cell:
    """Some models, their methods, and a set of samples."""

    models: Annotated[list[str], Field(min_length=1)]
    methods: Names
    samples: dict[str, Any]


@dataclass(frozen=True, config=KNOWN)
class Plan:
    """A plan as it stands in the file; see the module for the fields."""

    name: str
    cells: Annotated[list[Cell], Field(min_length=1)]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    shard: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 16
    threads: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    device: str = "cpu"
    metrics: Names = "all"
    about: str = ""
    scoring: str = SCORINGS[0]


def read(file: str | Path) -> Plan:
    """Read a plan.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not plain YAML, a field that is unknown, missing or out of range; the message names file, line and
            field.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no plan {str(file)!r}; expected a .yml file, such as those in sweeps/.")
    plan = settings.read(path, Plan, name=path.stem)
    check.one_of(f"scoring of {path.name}", plan.scoring, SCORINGS)
    return plan


def expand(plan: Plan) -> list[Shard]:
    """Return the shards in the order of the plan: cell by cell, model by model, method by method.

    Every model is loaded once here and every sample read once, for their hashes.

    Raises:
        ValueError: unknown model, method, metric or set, or two cells with the same model, method and samples' name.
    """
    scoring = importlib.import_module(plan.scoring)
    metrics = _chosen("metric", plan.metrics, tuple(scoring.METRICS))
    code = parts.key(work.surroundings(plan.scoring))
    found: list[Shard] = []
    seen: set[tuple[str, str, str]] = set()
    models = dict.fromkeys(model for cell in plan.cells for model in cell.models)
    known = {model: (scoring.identity(model), tuple(scoring.methods_for(model))) for model in models}
    for cell in plan.cells:
        options = dict(cell.samples)
        label = options.pop("name", options.get("set"))
        pieces = [(start, stop, _digest(options, start, stop)) for start, stop in _pieces(options, plan.shard)]
        for model in cell.models:
            weights, methods = known[model]
            for method in _chosen(f"method for {model}", cell.methods, methods):
                if (model, method, label) in seen:
                    raise ValueError(
                        f"{method} on {model} with {label} is in two cells; give the set a name of its own."
                    )
                seen.add((model, method, label))
                found += [
                    Shard(
                        model, method, label, options, start, stop, metrics, plan.seed, plan.threads, plan.device,
                        plan.scoring, weights, inputs, code,
                    )
                    for start, stop, inputs in pieces
                ]  # fmt: skip
    return found


def _chosen(kind: str, wanted: str | Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    if wanted == "all":
        return known
    for one in wanted:
        check.one_of(kind, one, known)
    return tuple(wanted)


def _pieces(options: dict[str, Any], size: int) -> Iterator[tuple[int, int]]:
    count = len(sets.find(options))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _digest(options: dict[str, Any], start: int, stop: int) -> str:
    return sets.digest(sets.take(options, start, stop))
