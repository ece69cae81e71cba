"""Score methods on a shard of samples: one row for each sample, metric and operator.

What a sweep calls. A method that has no answer for one sample (an empty map) does not take the others with it: the
sample gets the metric ``fails`` of 1 and no other row.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xai_utils import check, methods, metrics, models
from xai_utils.capture.scans import scanning
from xai_utils.evaluation import jitter
from xai_utils.evaluation.probe import Probe, probe
from xai_utils.methods.observation import Observation
from xai_utils.methods.table import Method
from xai_utils.metrics import pictures, rankings, removal_curves
from xai_utils.metrics.words import auprc, iou_prf, spans, token_prf
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample

DRAWS = 2  # noisy inputs of max_sensitivity
BATCH = 16  # samples in one captured pass


@dataclass(frozen=True)
class Metric:
    """One line of the table of metrics.

    Attributes:
        higher_is_better: ``None`` for a number that describes, and does not judge.
        needs_truth: whether it needs a rationale or a mask; samples without one get no row.
        kinds: of models it is made for.
        per_operator: whether it has a row for each way to remove.
        family: what it asks for: ``"truth"``, ``"removal"`` or ``"map"``.
    """

    higher_is_better: bool | None
    needs_truth: bool = False
    kinds: tuple[str, ...] = ("text", "vision")
    per_operator: bool = False
    family: str = "map"


_TRUTH = {"needs_truth": True, "family": "truth"}
METRICS: dict[str, Metric] = {
    "deletion": Metric(False, per_operator=True, family="removal"),
    "insertion": Metric(True, per_operator=True, family="removal"),
    "delta_af": Metric(True, per_operator=True, family="removal"),
    "comprehensiveness": Metric(True, per_operator=True, family="removal"),
    "sufficiency": Metric(False, per_operator=True, family="removal"),
    "aopc": Metric(True, per_operator=True, family="removal"),
    "log_odds": Metric(False, per_operator=True, family="removal"),
    "infidelity": Metric(False, family="removal"),
    "average_precision": Metric(True, **_TRUTH),  # type: ignore[arg-type]
    "auprc": Metric(True, **_TRUTH),  # type: ignore[arg-type]
    "hit": Metric(True, **_TRUTH),  # type: ignore[arg-type]
    "mass": Metric(True, **_TRUTH),  # type: ignore[arg-type]
    "lift": Metric(True, **_TRUTH),  # type: ignore[arg-type]
    "token_f1": Metric(True, kinds=("text",), **_TRUTH),  # type: ignore[arg-type]
    "iou_f1": Metric(True, kinds=("text",), **_TRUTH),  # type: ignore[arg-type]
    "iou": Metric(True, kinds=("vision",), **_TRUTH),  # type: ignore[arg-type]
    "pixel_accuracy": Metric(True, kinds=("vision",), **_TRUTH),  # type: ignore[arg-type]
    "sparseness": Metric(None),
    "max_sensitivity": Metric(False),
    "fails": Metric(False),
}


def settings(model_name: str) -> dict[str, str]:
    """Return by method which options a sweep leaves as they are: every method is run as one gets it by its name."""
    return {name: _defaults(methods.METHODS[name]) for name in methods_for(model_name)}


def _defaults(method: Method) -> str:
    run = method.score or method.passes or method.maps
    assert run is not None
    options = {name: one.default for name, one in inspect.signature(run).parameters.items()}
    technical = ("chunk", "word", "question", "seed")
    told = {name: value for name, value in options.items() if value is not inspect.Parameter.empty}
    return ", ".join(f"{name} {_said(value)}" for name, value in told.items() if name not in technical)


def _said(value: object) -> str:
    return getattr(value, "__name__", str(value))


def methods_for(model_name: str) -> list[str]:
    """Return the methods of the leaderboard for a model, then the nulls: all that suit it and are not slow on its kind.

    A model that reads by scans has the methods of hidden attention under their own names, not those of attention too.
    """
    model = models.shared(model_name)
    suiting = [name for name in methods.methods_for(model) if model.kind not in methods.METHODS[name].slow_on]
    if scanning(model.module):
        suiting = [name for name in suiting if methods.METHODS[name].family != "attention"]
    return suiting


def identity(model_name: str) -> str:
    """Return the hash of what decides a model's answers."""
    return models.identity(model_name)


def score_shard(
    model_name: str, method: str, samples: Sequence[Sample], metrics: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Score one method on some samples.

    Args:
        model_name: a name for :func:`models.load`.
        method: in :func:`methods_for`.
        samples: sentences or pictures.
        metrics: names in :data:`METRICS`; those made for another kind of model have no row.
        seed: of random maps, ties, noise and random removals.

    Returns:
        Rows with the keys ``sample``, ``metric``, ``operator`` (``""`` where there is none), ``value`` and ``seconds``
        (of processor time for the attribution of this sample, its share of the batch).

    Raises:
        ValueError: no sample, an unknown method or metric, or a method that fails on every sample.
    """
    if not samples:
        raise ValueError("the shard has no sample.")
    model = models.shared(model_name)
    check.one_of(f"method for {model_name}", method, tuple(methods_for(model_name)))
    for metric in metrics:
        check.one_of("metric", metric, tuple(METRICS))
    wanted = {name for name in metrics if model.kind in METRICS[name].kinds}
    asked = probe(model, tuple(samples), seed)
    maps, seconds = attributions(model, method, samples, asked.targets, seed)
    measured = measure(model, asked, maps, wanted, seed)
    if "max_sensitivity" in wanted:
        _add_sensitivity(measured, model, method, samples, asked.targets, maps, seed)
    return [
        {"sample": one.name, "metric": metric, "operator": operator, "value": float(value), "seconds": seconds}
        for one, values in zip(samples, measured, strict=True)
        for (metric, operator), value in values.items()
        if metric in wanted
    ]


def attributions(
    model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int], seed: int
) -> tuple[list[Attribution | None], float]:
    """Return a map of each sample, ``None`` where the method has none, and the processor seconds a sample.

    Raises:
        ValueError: as the method, if it fails on every sample.
    """
    begun = time.process_time()
    try:
        found: list[Attribution | None] = list(_explain(model, method, samples, targets, seed))
    except ValueError as error:
        found = [_alone(model, method, one, target, seed) for one, target in zip(samples, targets, strict=True)]
        if not any(found):
            raise error
    return found, (time.process_time() - begun) / len(samples)


def maps_of(
    model: Model, names: Sequence[str], samples: Sequence[Sample], targets: Sequence[int], seed: int
) -> dict[str, list[Attribution | None]]:
    """Do :func:`attributions` for many methods; those that look at one captured pass share it.

    Args:
        model: the model.
        names: of methods and nulls.
        samples: sentences or pictures.
        targets: class of each.
        seed: of random maps.
    """
    used = [methods.METHODS[name] for name in names]
    shared = [name for name, one in zip(names, used, strict=True) if one.score is not None]
    gradient, maps = any(one.asks for one in used), any(one.reads_maps for one in used)
    found: dict[str, list[Attribution | None]] = {name: [] for name in names}
    for start in range(0, len(samples) if shared else 0, BATCH):
        some, asked = samples[start : start + BATCH], list(targets[start : start + BATCH])
        seen = methods.observe(model, some, asked, gradient, maps=maps)
        for name in shared:
            found[name] += [_seen(name, seen, i) for i in range(len(some))]
    for name in names:
        if name not in shared:
            found[name] = attributions(model, name, samples, targets, seed)[0]
    return found


def _seen(method: str, seen: Observation, sample: int) -> Attribution | None:
    try:
        return methods.attribute(method, seen, sample)
    except ValueError:
        return None


def _explain(
    model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int], seed: int
) -> list[Attribution]:
    options = {"seed": seed} if methods.METHODS[method].family == "null" else {}
    return methods.explain(method, model, list(samples), list(targets), **options)


def _alone(model: Model, method: str, sample: Sample, target: int, seed: int) -> Attribution | None:
    try:
        return _explain(model, method, [sample], [target], seed)[0]
    except ValueError:
        return None


def measure(
    model: Model, asked: Probe, maps: Sequence[Attribution | None], wanted: set[str], seed: int
) -> list[dict[tuple[str, str], float]]:
    """Return for each sample ``(metric, operator)`` to value."""
    scores = [None if one is None else one.scores[asked.places[i]].double() for i, one in enumerate(maps)]
    found: list[dict[tuple[str, str], float]] = [{("fails", ""): float(one is None)} for one in scores]
    if any(METRICS[name].per_operator for name in wanted):
        for values, removal in zip(found, asked.removal(model, scores, seed), strict=True):
            values.update(removal)
    for i, one in enumerate(scores):
        if one is not None:
            found[i] |= {(name, ""): value for name, value in marks(asked, i, one, model.kind, seed).items()}
    return found


def by_every_metric(
    model: Model, samples: Sequence[Sample], maps: Mapping[str, Sequence[Attribution]], seed: int, shard: int = 16
) -> pd.DataFrame:
    """Mark many maps by all that is known of their samples and by every removal metric.

    Args:
        model: whose tokens the maps score.
        samples: sentences, prompts or pictures.
        maps: label to a map for each sample.
        seed: of ties and random removals.
        shard: samples that are asked about together.

    Returns:
        A row for each sample, columns ``(map, measure)``; a removal metric is named with its operator, such as
        ``"deletion (word)"``; NaN where a metric says nothing of a sample.

    Raises:
        ValueError: maps that are not as many as samples.
    """
    for label, own in maps.items():
        if len(own) != len(samples):
            raise ValueError(f"{len(own)} maps of {label!r} are given for {len(samples)} samples; expected one each.")
    rows: list[dict[tuple[str, str], float]] = [{} for _ in samples]
    for start in range(0, len(samples), shard):
        asked = probe(model, tuple(samples[start : start + shard]), seed)
        for label, own in maps.items():
            found = measure(model, asked, own[start : start + shard], set(METRICS), seed)
            for row, values in zip(rows[start : start + shard], found, strict=True):
                row |= {(label, f"{name} ({way})" if way else name): value for (name, way), value in values.items()}
    table = pd.DataFrame(rows, index=pd.Index([one.name for one in samples], name="sample"))
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["map", "measure"])
    return table


def _add_sensitivity(
    measured: list[dict[tuple[str, str], float]],
    model: Model,
    method: str,
    samples: Sequence[Sample],
    targets: Sequence[int],
    maps: Sequence[Attribution | None],
    seed: int,
) -> None:
    """Explain the samples again with a little noise on them."""
    again = []
    for draw in range(DRAWS):
        with jitter.jittered(model, samples, seed + draw) as noisy:
            again.append(attributions(model, method, noisy, targets, seed)[0])
    for i, one in enumerate(maps):
        others = [draw[i] for draw in again]
        if one is not None and all(other is not None for other in others):
            perturbed = torch.stack([other.scores for other in others if other is not None])
            measured[i]["max_sensitivity", ""] = removal_curves.max_sensitivity(one.scores, perturbed)


RATIONALE_SHARE = 0.2  #: of a text's words that count as marked by a map; a round number, fitted to no data


def marks(asked: Probe, sample: int, scores: Tensor, kind: str, seed: int) -> dict[str, float]:
    """Return metric to value; what is not defined for this sample (no truth, no positive score) is left out.

    Args:
        asked: about the samples.
        sample: which one.
        scores: ``(rank,)`` float64, of the tokens that may go.
        kind: ``"text"`` or ``"vision"``.
        seed: of ties.
    """
    found = {"sparseness": removal_curves.sparseness(scores)} if scores.any() else {}
    if asked.drops[sample].any():
        found["infidelity"] = removal_curves.infidelity(scores, asked.gone[sample], asked.drops[sample])
    truth, words = asked.truth[sample], asked.words[sample]
    if truth is None:
        return found
    scores, truth = scores[words], truth[words]
    found["average_precision"] = metrics.average_precision(scores, truth)
    found["auprc"] = auprc(scores, truth > 0.5)
    found["hit"] = float((truth[scores == scores.max()] > 0).double().mean())  # the mean over equal greatest scores
    if (scores > 0).any():
        found["mass"], found["lift"] = metrics.mass_inside(scores, truth), metrics.lift(scores, truth)
    return found | (_text(scores, truth, seed) if kind == "text" else _vision(scores, truth, seed))


def _text(scores: Tensor, truth: Tensor, seed: int) -> dict[str, float]:
    marked, inside = rankings.top_share(scores, RATIONALE_SHARE, seed), truth.numpy() > 0.5
    overlap = iou_prf(spans(marked), spans(inside))
    return {"token_f1": token_prf(marked, inside)[2], "iou_f1": overlap[2]}


def _vision(scores: Tensor, truth: Tensor, seed: int) -> dict[str, float]:
    marked = rankings.top_share(scores, float(truth.mean()), seed)
    return {
        "iou": pictures.iou(marked, truth),
        "pixel_accuracy": pictures.pixel_accuracy(pictures.above_mean(scores), truth),
    }
