"""Mark many maps of one model against the exact masks of scenes: what lies on the object, and where each map points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from xai_utils import metrics, stats
from xai_utils.encode import patch_grid, view_mask
from xai_utils.methods import explain
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples import Picture

MEASURES = ("share", "lift", "pointing")
NULLS = ("uniform", "centre", "other scene")


def marks(
    model: Model,
    pictures: Sequence[Picture],
    asked: Mapping[str, tuple[str, dict[str, Any]]],
    target: Callable[[Picture], str | int] | None = None,
    nulls: bool = True,
) -> pd.DataFrame:
    """Explain every picture by every method, and mark each map by the mask of its object.

    Args:
        model: a vision model.
        pictures: each with the masks of its objects, at least two.
        asked: name in the table -> (name in :data:`methods.METHODS`, options).
        target: class to explain and to look for; ``None`` explains the predicted class and looks for all objects.
        nulls: also mark maps that know nothing of the model or of the picture: a uniform one, a Gaussian bump in the
            middle (a quarter of the side wide), and of each method the map of the scene before.

    Returns:
        A row for each map: ``model``, ``method``, ``picture``, and the measures: ``share`` of the positive scores on
        the object (foreground attribution fraction), ``lift``, that share over the object's share of the picture, and
        ``pointing``, whether the greatest score lies on a patch that holds any part of the object (the first such patch
        where scores tie, so of a uniform map say nothing).

    Raises:
        ValueError: fewer than two pictures, or one without a mask.
    """
    if len(pictures) < 2:
        raise ValueError(f"{len(pictures)} picture is given, expected at least two: one is the null of another.")
    insides = [_inside(model, one, target) for one in pictures]
    classes = None if target is None else [target(one) for one in pictures]
    rows: list[dict[str, object]] = []
    for label, (name, options) in tqdm(asked.items(), desc=f"maps of {model.name}", disable=None):
        found = _maps(name, model, pictures, classes, options)
        rows += _rows(model, label, pictures, [one.scores for one in found], insides)
        if nulls:
            shifted = [found[i - 1].scores for i in range(len(found))]
            rows += _rows(model, f"{label}, {NULLS[2]}", pictures, shifted, insides)
    if nulls:
        for label, scores in zip(NULLS, _blind(patch_grid(model)), strict=False):
            rows += _rows(model, label, pictures, [scores] * len(pictures), insides)
    return pd.DataFrame(rows)


def intervals(table: pd.DataFrame, measure: str, seed: int) -> dict[tuple[str, str], stats.Interval]:
    """Return the mean of one measure with its 95 % interval by ``(model, method)``, in the order of the table."""
    groups = table.groupby(["model", "method"], sort=False)[measure]
    return {(str(key[0]), str(key[1])): stats.mean_interval(values.to_numpy(), seed) for key, values in groups}


def paired(table: pd.DataFrame, one: str, other: str, measure: str, model: str, seed: int) -> stats.Interval:
    """Return the mean difference of two methods on the same pictures of one model with its 95 % interval."""
    wide = table[table["model"] == model].pivot(index="picture", columns="method", values=measure)
    return stats.mean_interval((wide[one] - wide[other]).to_numpy(), seed)


def _maps(
    name: str, model: Model, pictures: Sequence[Picture], classes: list[str | int] | None, options: dict[str, Any]
) -> list[Attribution]:
    return explain(name, model, list(pictures), classes, **options)


def _inside(model: Model, picture: Picture, target: Callable[[Picture], str | int] | None) -> Tensor:
    if not picture.masks:
        raise ValueError(f"{picture.name} has no mask of an object; take samples.scene_pictures.")
    assert model.preprocessing is not None
    masks = picture.masks.values() if target is None else [picture.masks[str(target(picture))]]
    whole = np.any([view_mask(mask, model.preprocessing) for mask in masks], axis=0)
    return metrics.cover(whole, patch_grid(model))


def _rows(
    model: Model, label: str, pictures: Sequence[Picture], scores: Sequence[Tensor], insides: Sequence[Tensor]
) -> list[dict[str, object]]:
    return [
        {
            "model": model.name, "method": label, "picture": picture.name, "share": metrics.mass_inside(one, inside),
            "lift": metrics.lift(one, inside), "pointing": float(metrics.hit(one, inside)),
        }
        for picture, one, inside in zip(pictures, scores, insides, strict=True)
    ]  # fmt: skip


def _blind(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a uniform map and a bump in the middle."""
    row, column = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in grid)
    bump = (-(row[:, None].square() + column.square()) / (2 * 0.5**2)).exp()
    return torch.ones(grid[0] * grid[1], dtype=torch.float64), bump.flatten()
