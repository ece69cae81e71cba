"""Run the sanity checks: what is left of a map when the model is destroyed, and when nothing at all has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xai_utils.evaluation import sanity, scoring
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample


def randomisation(
    model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int], way: str, seed: int
) -> dict[str, list[float]]:
    """Return the rank correlation of each sample's map with its map after parts of the model were shuffled.

    Args:
        model: the model, which has its own weights again afterwards.
        method: a method or null of the leaderboard.
        samples: sentences or pictures.
        targets: class explained of each, the same before and after.
        way: ``"cascading"`` or ``"independent"``, see :func:`sanity.steps`.
        seed: of the shuffling.

    Returns:
        Last part shuffled to one correlation a sample; 0 where no map is left, or a constant one.
    """
    before = scoring.attributions(model, method, samples, targets, seed)[0]
    found = {}
    for name, parts in sanity.steps(model, way):
        with sanity.randomised(model, parts, seed):
            after = _try(model, method, samples, targets, seed)
        found[name] = [_same(one, other) for one, other in zip(before, after, strict=True)]
    return found


def relabelling(
    model: Model,
    method: str,
    samples: Sequence[Sample],
    targets: Sequence[int],
    taught: Sequence[Sample],
    seed: int,
) -> tuple[list[float], float]:
    """Return the rank correlation of each map with its map once the classifier has learnt random labels.

    Args:
        model: the model, which has its own classifier again afterwards.
        method: a method or null of the leaderboard.
        samples: sentences or pictures that are explained.
        targets: class explained of each, the same before and after.
        taught: samples whose random labels the classifier learns (see :func:`sanity.relabelled`).
        seed: of the labels.

    Returns:
        One correlation a sample, 0 where no map is left or a constant one; and the share of labels learnt.
    """
    before = scoring.attributions(model, method, samples, targets, seed)[0]
    with sanity.relabelled(model, encode(model, taught).inputs, seed) as learnt:
        after = _try(model, method, samples, targets, seed)
    return [_same(one, other) for one, other in zip(before, after, strict=True)], learnt


def shift(
    model: Model, method: str, pictures: Sequence[Picture], targets: Sequence[int], by: float, seed: int
) -> list[float]:
    """Return each map's relative change when pictures get brighter by ``by`` and the model takes it away again.

    The model computes what it did before, so a method that explains the model changes nothing (0).
    """
    assert model.preprocessing is not None
    std = model.preprocessing.std
    if len(set(std)) > 1:
        raise ValueError(f"{model.name} scales its channels differently ({std}); one shift needs one scale.")
    before = scoring.attributions(model, method, pictures, targets, seed)[0]
    brighter = [replace(one, image=(one.image + by).astype(np.float32)) for one in pictures]
    with sanity.shifted(model, by / std[0]):
        after = scoring.attributions(model, method, brighter, targets, seed)[0]
    pairs = [(a.scores.double(), b.scores.double()) for a, b in zip(before, after, strict=True) if a and b]
    return [float((one - other).norm() / one.norm()) for one, other in pairs]


def _try(
    model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int], seed: int
) -> list[Attribution | None]:
    try:
        return scoring.attributions(model, method, samples, targets, seed)[0]
    except ValueError:
        return [None] * len(samples)


def _same(one: Attribution | None, other: Attribution | None) -> float:
    if one is None or other is None or len(set(other.scores.tolist())) < 2 or len(set(one.scores.tolist())) < 2:
        return 0.0
    return float(agreement.spearman(one.scores, other.scores))
