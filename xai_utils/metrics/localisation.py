"""Does a map lie on the object? Pointing game, segmentation and average precision of many maps, and empty baselines.

Pure functions on maps ``(map, row, column)`` and masks ``(map, height, width)``; the foreground fraction itself is
:func:`metrics.foreground_fraction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap
from torch import Tensor

from xai_utils import check
from xai_utils.metrics import pictures
from xai_utils.stats import Interval

CHUNK = 64  # maps whose pixels are sorted at once


@dataclass(frozen=True)
class Segmentation:
    """Maps taken as segmentations, one entry a map, float64; NaN where the mask is empty or covers everything.

    Attributes:
        pixel_accuracy: share of pixels on the right side of the threshold.
        iou: intersection over union of the part above the threshold and the mask.
        iou_background: the same of the two backgrounds.
        average_precision: of the pixels ranked by the map; the mask's area for a constant map.
        both_precision: of the pixels of map and inverted map ranked together against mask and inverted mask: the
            published "mAP", which counts background and is 0.5 for a constant map.
    """

    pixel_accuracy: Tensor
    iou: Tensor
    iou_background: Tensor
    average_precision: Tensor
    both_precision: Tensor

    def published(self) -> dict[str, float]:
        """Return means over the scored maps as published tables name them: pixel accuracy, mAP and mIoU, in percent.

        Differs from: the published mIoU in averaging over pictures; there, pixels of all pictures are added up first.
        """
        miou = (self.iou + self.iou_background) / 2
        named = {"pixel accuracy": self.pixel_accuracy, "mAP": self.both_precision, "mIoU": miou}
        return {name: 100 * float(values[~values.isnan()].mean()) for name, values in named.items()}


def segment(maps: Tensor, masks: Tensor) -> Segmentation:
    """Upsample each map to its mask (bilinear), split it at its own mean, and compare.

    Args:
        maps: ``(map, row, column)``, signed or not.
        masks: ``(map, height, width)`` bool.

    Raises:
        ValueError: shapes that do not fit, masks that are not bool, NaN.

    Source: the segmentation test of Chefer et al. (2021a), arXiv:2012.09838, section 4. A threshold at the mean and
        background that counts flatter any blob in the middle: read it beside :func:`baselines`.
    """
    check.finite("maps", maps)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != torch.bool or not len(maps):
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} of {masks.dtype}: expected (map, row, column) "
            "and as many bool (map, height, width)."
        )
    parts = [
        _segment(some, truth) for some, truth in zip(maps.split(CHUNK), masks.split(CHUNK), strict=True)
    ]  # a chunk at a time, so that memory does not grow with the number of maps
    return Segmentation(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _segment(maps: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
    size = (masks.shape[1], masks.shape[2])
    large = F.interpolate(maps.double()[:, None], size, mode="bilinear", align_corners=False).flatten(1)
    truth = masks.flatten(1)
    above = large > large.mean(1, keepdim=True)
    ranked = average_precision(large, truth)
    low, high = large.aminmax(dim=1, keepdim=True)
    scaled = torch.where(high > low, (large - low) / (high - low), 0.5)
    both = average_precision(torch.cat([1 - scaled, scaled], 1), torch.cat([~truth, truth], 1))
    right = (above == truth).double().mean(1)
    columns = (right, _iou(above, truth), _iou(~above, ~truth), ranked, both)
    return tuple(column.where(~ranked.isnan(), torch.nan) for column in columns)


def _iou(one: Tensor, two: Tensor) -> Tensor:
    return (one & two).sum(1).double() / (one | two).sum(1)


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the average precision of each row's ranking, ``(row,)``; equal scores are one rank.

    Args:
        scores: ``(row, entry)``.
        truth: ``(row, entry)`` bool; a row of only one kind has no ranking to judge and gives NaN.
    """
    ordered, order = scores.sort(dim=1, descending=True)
    hits = truth.gather(1, order).double()
    places = torch.arange(scores.shape[1])
    precision = hits.cumsum(1) / (places + 1)
    ends = F.pad(ordered[:, 1:] != ordered[:, :-1], (0, 1), value=True)
    last = torch.where(ends, places, len(places)).flip(1).cummin(1).values.flip(1)  # of the entries with equal scores
    count = hits.sum(1)
    found = (hits * precision.gather(1, last)).sum(1) / count
    return found.where((count > 0) & (count < len(places)), torch.nan)


def pointing(maps: Tensor, masks: Tensor, least: float = 0.0) -> Tensor:
    """Return the pointing game, ``(map,)`` bool: more than ``least`` of the strongest token's patch is foreground.

    Of tokens with equal scores the first counts, so a constant map points at the upper left corner.
    """
    check.finite("maps", maps)
    inside = pictures.covers(masks, (maps.shape[1], maps.shape[2])).flatten(1)
    return inside.gather(1, maps.flatten(1).argmax(1, keepdim=True))[:, 0] > least


def baselines(count: int, grid: tuple[int, int], seed: int, width: float = 0.25) -> dict[str, Tensor]:
    """Return maps that know neither model nor picture, each ``(map, row, column)`` float64.

    Args:
        count: number of maps.
        grid: rows and columns.
        seed: of the random maps.
        width: standard deviation of the centre prior, as a share of the side.

    Returns:
        ``"uniform"``: ones. ``"centre prior"``: a Gaussian in the middle. ``"random"``: independent uniform noise.
    """
    check.at_least_one("count", count)
    if not width > 0:
        raise ValueError(f"width is {width}, expected more than 0.")
    axes = [(torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5 for side in grid]
    bell = torch.exp(-(axes[0][:, None] ** 2 + axes[1] ** 2) / (2 * width**2))
    noise = torch.Generator().manual_seed(seed)
    return {
        "uniform": torch.ones(count, *grid, dtype=torch.float64),
        "centre prior": bell.expand(count, -1, -1),
        "random": torch.rand(count, *grid, generator=noise, dtype=torch.float64),
    }


def ratio_of_means(values: Sequence[float], to: Sequence[float], seed: int, level: float = 0.95) -> Interval:
    """Return ``mean(values) / mean(to)`` of pairs with its percentile bootstrap interval, pairs drawn together.

    Raises:
        ValueError: fewer than two pairs, different lengths, NaN, or a mean of ``to`` that is not positive.
    """
    above, below = np.asarray(values, dtype=float), np.asarray(to, dtype=float)
    if above.shape != below.shape or above.ndim != 1 or len(above) < 2 or not np.isfinite([above, below]).all():
        raise ValueError(f"expected two lists of as many finite numbers, got shapes {above.shape} and {below.shape}.")
    if below.mean() <= 0:
        raise ValueError(f"the mean to divide by is {below.mean():.3g}, expected more than 0.")
    found = bootstrap(
        (above, below), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True, vectorized=True,
        confidence_level=level, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(above.mean() / below.mean()), float(found.low), float(found.high), len(above))
