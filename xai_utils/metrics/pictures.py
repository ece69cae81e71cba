"""Mark an attribution against a known truth. Pure functions on scores and masks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils import check
from xai_utils.metrics.rankings import average_precisions, hits, same_tokens
from xai_utils.stats import Interval, bootstrap_interval, cluster_sums

BLIND = ("uniform", "random", "centre", "contrast", "other scene")  #: maps that know nothing of the model
EXACT = "exact mask"  #: begins the names of maps made from the truth itself, see :func:`ceilings`
BEST = "best patch"  #: likewise


def cover(mask: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Average a ``(height, width)`` bool mask over the patches of a grid: ``(row * column,)`` in [0, 1], float64.

    Raises:
        ValueError: an empty mask, or one whose sides are no multiple of the grid's.
    """
    found = covers(torch.from_numpy(np.ascontiguousarray(mask))[None], grid)[0].flatten()
    if not found.any():
        raise ValueError("the mask is empty: there is no object to find.")
    return found


def covers(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average masks ``(map, height, width)``, bool or shares, over the cells of a grid: ``(map, row, column)`` float64.

    Unlike :func:`cover` an empty mask is let through: whoever counts needs it.

    Raises:
        ValueError: another shape, sides that are no multiple of the grid's, values outside [0, 1].
    """
    if masks.ndim != 3 or 0 in masks.shape or masks.shape[1] % grid[0] or masks.shape[2] % grid[1]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)}, expected (map, height, width) with sides that are multiples of "
            f"the grid {grid}. Put each mask through the resize and crop of its picture first (encoding.view_mask)."
        )
    if masks.dtype != torch.bool:
        check.finite("masks", masks)
        if masks.min() < 0 or masks.max() > 1:
            raise ValueError(f"masks run from {masks.min():.3g} to {masks.max():.3g}, expected bool, or shares.")
        return masks.double().unflatten(1, (grid[0], -1)).unflatten(3, (grid[1], -1)).mean((2, 4))
    tiles = masks.numpy().reshape(len(masks), grid[0], -1, grid[1], masks.shape[2] // grid[1])
    inside = np.add.reduce(tiles, axis=4, dtype=np.uint16).sum(2, dtype=np.float64)
    return torch.from_numpy(inside / (tiles.shape[2] * tiles.shape[4]))


@dataclass(frozen=True)
class Foreground:
    """What :func:`foreground_fraction` finds, one entry a map; what is not scored is counted and NaN, never dropped.

    Attributes:
        fraction: FAF, ``(map,)`` float64 in [0, 1]; NaN where ``scored`` is false.
        area: share of the picture that is foreground, ``(map,)``: the FAF of a uniform map.
        found: ``(map,)`` bool, there is a foreground at all (the detector found something).
        positive: ``(map,)`` bool, some score is positive.
    """

    fraction: Tensor
    area: Tensor
    found: Tensor
    positive: Tensor

    @property
    def scored(self) -> Tensor:
        """``(map,)`` bool: foreground and positive scores are there."""
        return self.found & self.positive

    @property
    def background(self) -> Tensor:
        """BAF, ``1 - FAF``."""
        return 1 - self.fraction

    @property
    def lift(self) -> Tensor:
        """FAF over area: 1 for a uniform map."""
        return self.fraction / self.area

    def __str__(self) -> str:
        return (
            f"{int(self.scored.sum())} of {len(self.area)} maps scored, {int((~self.found).sum())} without foreground, "
            f"{int((self.found & ~self.positive).sum())} without a positive score"
        )


def foreground_fraction(maps: Tensor, masks: Tensor) -> Foreground:
    """Return which share of each map's positive mass falls on the foreground (FAF), and on the background (BAF).

    Args:
        maps: ``(map, row, column)`` on the token grid; negative scores count as zero.
        masks: ``(map, height, width)``, bool or shares, averaged over the cells of the grid.

    Raises:
        ValueError: shapes that do not fit, NaN, or no map at all.

    Source: the report behind github.com/RiyaH2020/Explainability_in_Vision_transformers. Differs from: it in saying
        how masks are brought to the grid (area average), and in counting pictures where nothing was detected.
    """
    check.finite("maps", maps)
    if maps.ndim != 3 or len(maps) != len(masks):
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)}: expected (map, row, column) and as many "
            "(map, height, width)."
        )
    inside = covers(masks, (maps.shape[1], maps.shape[2]))
    mass = maps.double().clamp(min=0)
    total, area = mass.sum((1, 2)), inside.mean((1, 2))
    found, positive = area > 0, total > 0
    fraction = torch.where(found & positive, (mass * inside).sum((1, 2)) / total, torch.nan)
    return Foreground(fraction, area, found, positive)


def places(maps: Tensor) -> Tensor:
    """Return on how many patches the positive mass of each map lies, ``(map,)`` float64: one over the sum of squares.

    1 for a map with one positive patch, the number of patches for a uniform map, NaN where nothing is positive.

    Source: the inverse participation ratio (Simpson 1949, as a number of equally common species: Hill 1973).
    """
    mass = maps.flatten(1).double().clamp(min=0)
    return (mass / mass.sum(1, keepdim=True)).square().sum(1).reciprocal()


def as_sharp_as(maps: Tensor, like: Tensor) -> Tensor:
    """Raise each map to the power at which its mass lies on as many :func:`places` as that of the other map.

    FAF grows with the power though the ranking of the patches stays as it is, so maps are compared at one sharpness.

    Args:
        maps: ``(map, row, column)``; negative scores count as zero.
        like: as many maps, of any grid, each with a positive score.

    Returns:
        ``(map, row, column)`` float64, the greatest score 1. Powers from 1/64 to 64 are tried; a map that cannot become
        as sharp (two equal greatest scores, say) is as near as these bring it, and an empty map stays empty.

    Raises:
        ValueError: a map to be like without a positive score, or not as many.
    """
    wanted, top = places(like), maps.double().clamp(min=0).flatten(1).amax(1)
    if len(maps) != len(like) or wanted.isnan().any():
        raise ValueError(
            f"{len(maps)} maps are to be as sharp as {len(like)}, of which {int(wanted.isnan().sum())} have no "
            "positive score; expected one for each, with a positive score."
        )
    scaled = maps.double().clamp(min=0) / top.where(top > 0, 1.0)[:, None, None]
    low, high = torch.full_like(top, -6), torch.full_like(top, 6)
    for _ in range(40):
        middle = (low + high) / 2
        blunt = places(scaled**2 ** middle[:, None, None]) > wanted
        low, high = torch.where(blunt, middle, low), torch.where(blunt, high, middle)
    return scaled**2 ** ((low + high) / 2)[:, None, None]


def mass_inside(scores: Tensor, inside: Tensor) -> float:
    """Return the share of the positive scores that lies inside, in [0, 1].

    Args:
        scores: ``(token,)``; negative scores count as zero.
        inside: ``(token,)`` bool or share of each token that is inside.

    Raises:
        ValueError: different lengths, NaN, or no positive score at all.
    """
    same_tokens(scores, inside)
    positive = scores.double().clamp(min=0)
    if not positive.any():
        raise ValueError("no score is positive, so there is no mass to place.")
    return float((positive * inside.double()).sum() / positive.sum())


def lift(scores: Tensor, inside: Tensor) -> float:
    """Return :func:`mass_inside` divided by what a uniform map would get; 1 means no better than uniform.

    Raises:
        ValueError: as :func:`mass_inside`, or nothing is inside.
    """
    share = mass_inside(scores, inside)
    if not inside.any():
        raise ValueError("no token is inside, so a uniform map gets nothing to compare with.")
    return share / float(inside.double().mean())


def above_mean(scores: Tensor) -> Tensor:
    """Mark the patches ``(token,)`` whose score is above the map's own mean; a constant map marks nothing.

    Source: the threshold of Chefer et al. (2021a), arXiv:2012.09838, section 4. It makes a blob in the middle of the
    picture look good, so compare with the centre prior.
    """
    check.finite("scores", scores)
    return scores > scores.double().mean()


def pixel_accuracy(marked: Tensor, inside: Tensor) -> float:
    """Return the share of the picture on which marks and mask agree.

    Args:
        marked: ``(token,)`` bool.
        inside: ``(token,)`` bool, or share of each patch that is inside.
    """
    same_tokens(marked, inside)
    one, other = marked.double(), inside.double()
    return float((one * other + (1 - one) * (1 - other)).mean())


def iou(marked: Tensor, inside: Tensor) -> float:
    """Return :func:`overlap` of the ``(token,)`` marked and the object; ``ValueError`` without an object."""
    same_tokens(marked, inside)
    if not inside.any():
        raise ValueError("the mask is empty: there is no object to overlap with.")
    return float(overlap(marked, inside))


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return intersection over union along the last axis, float64; NaN where both are empty.

    Args:
        one: ``(..., entry)`` bool, or the share by which an entry counts.
        other: likewise.
    """
    one, other = one.double(), other.double()
    shared = (one * other).sum(-1)
    return shared / (one.sum(-1) + other.sum(-1) - shared)


CHUNK = 64  # maps whose pixels are sorted at once


@dataclass(frozen=True)
class Segmentation:
    """Maps taken as segmentations, one entry a map, float64; NaN where the mask is empty or covers everything.

    Attributes:
        pixel_accuracy: share of pixels on the right side of the threshold.
        iou: intersection over union of the part above the threshold and the mask.
        iou_background: the same of the two backgrounds.
        average_precision: of the pixels ranked by the map; the mask's area for a constant map.
    """

    pixel_accuracy: Tensor
    iou: Tensor
    iou_background: Tensor
    average_precision: Tensor


def segment(maps: Tensor, masks: Tensor) -> Segmentation:
    """Upsample each map to its mask (bilinear), split it at its own mean, and compare.

    Args:
        maps: ``(map, row, column)``, signed or not.
        masks: ``(map, height, width)`` bool.

    Raises:
        ValueError: shapes that do not fit, masks that are not bool, NaN.

    Source: the segmentation test of Chefer et al. (2021a), arXiv:2012.09838, section 4. A threshold at the mean and
        background that counts flatter any blob in the middle: read it beside the :data:`BLIND` maps.
    """
    parts = [_segment(large, truth) for large, truth in _enlarged(maps, masks)]
    return Segmentation(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _segment(large: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
    above = large > large.mean(1, keepdim=True)
    ranked = average_precisions(large, truth)
    right = (above == truth).double().mean(1)
    columns = (right, overlap(above, truth), overlap(~above, ~truth), ranked)
    return tuple(column.where(~ranked.isnan(), torch.nan) for column in columns)


def both_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the published "mAP", ``(map,)``: of map and inverted map ranked together against mask and inverted mask.

    It counts the background, and is 0.5 for a constant map. Args and errors as in :func:`segment`.
    """
    found = []
    for large, truth in _enlarged(maps, masks):
        low, high = large.aminmax(dim=1, keepdim=True)
        scaled = torch.where(high > low, (large - low) / (high - low), 0.5)
        both = average_precisions(torch.cat([1 - scaled, scaled], 1), torch.cat([~truth, truth], 1))
        found.append(both.where(truth.any(1) & ~truth.all(1), torch.nan))
    return torch.cat(found)


def _enlarged(maps: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield maps brought to the size of their masks, and these, ``(map, pixel)``: in chunks, to bound memory."""
    check.finite("maps", maps)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != torch.bool or not len(maps):
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} of {masks.dtype}: expected (map, row, column) "
            "and as many bool (map, height, width)."
        )
    size = (masks.shape[1], masks.shape[2])
    for some, truth in zip(maps.split(CHUNK), masks.split(CHUNK), strict=True):
        large = F.interpolate(some.double()[:, None], size, mode="bilinear", align_corners=False)
        yield large.flatten(1), truth.flatten(1)


def pointing(maps: Tensor, masks: Tensor, least: float = 0.0) -> Tensor:
    """Return the pointing game, ``(map,)`` bool: more than ``least`` of the strongest token's patch is foreground.

    Of tokens with equal scores the first counts, so a constant map points at the upper left corner.
    """
    check.finite("maps", maps)
    return hits(maps.flatten(1), covers(masks, (maps.shape[1], maps.shape[2])).flatten(1), least)


def centre_prior(grid: tuple[int, int], width: float = 0.25, between_centres: bool = False) -> Tensor:
    """Return a Gaussian in the middle of a grid, ``(row, column)`` float64, 1 at its top.

    Args:
        grid: rows and columns.
        width: standard deviation, as a share of the side.
        between_centres: take the side from the middle of the first patch to that of the last, as the bundled
            leaderboard does, and not from edge to edge.
    """
    if not width > 0:
        raise ValueError(f"width is {width}, expected more than 0.")
    steps = [torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in grid]
    row, column = (one / max(len(one) - between_centres, 1) for one in steps)
    return torch.exp(-(row[:, None] ** 2 + column**2) / (2 * width**2))


def ceilings(masks: Tensor, grid: tuple[int, int], coarser: Sequence[tuple[int, int]] = ()) -> dict[str, Tensor]:
    """Return maps made from the truth: what a perfect map would get, on a grid and through coarser ones.

    Args:
        masks: ``(map, height, width)`` bool, none of them empty.
        grid: rows and columns of the maps.
        coarser: grids to pass :func:`through`, as a map of a network's late stage does.

    Returns:
        By name ``(map, row, column)`` float64. :data:`EXACT`: the share of each patch that is covered: the mask as a
        map, the best ranking of patches there is. :data:`BEST`: all mass on the patch that is covered most: the
        largest FAF there is on this grid. Both again for each coarser grid, such as ``"exact mask, 4 × 4"``.

    Raises:
        ValueError: as :func:`covers`; an empty mask, of which there is no perfect map.
    """
    exact = covers(masks, grid)
    if not exact.flatten(1).any(1).all():
        raise ValueError("a mask is empty, so there is no perfect map of it; leave such pictures out.")
    best = torch.zeros_like(exact).flatten(1)
    best = best.scatter(1, exact.flatten(1).argmax(1, keepdim=True), 1.0).view_as(exact)
    found = {EXACT: exact, BEST: best}
    for one in coarser:
        found |= {f"{name}, {one[0]} × {one[1]}": through(found[name], one) for name in (EXACT, BEST)}
    return found


def through(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring maps ``(map, row, column)`` to a coarser grid and back, so that maps of different grids can be compared.

    Averaged over the cells of the coarser grid, then bilinear, as Grad-CAM's map of a late stage is enlarged. A grid
    that is not coarser changes nothing.
    """
    if grid[0] >= maps.shape[1] and grid[1] >= maps.shape[2]:
        return maps
    small = F.adaptive_avg_pool2d(maps[:, None], grid)
    return F.interpolate(small, (maps.shape[1], maps.shape[2]), mode="bilinear", align_corners=False)[:, 0]


def ratio_of_means(
    values: Sequence[float],
    to: Sequence[float],
    seed: int,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Return ``mean(values) / mean(to)`` of pairs with its percentile bootstrap interval, pairs drawn together.

    Args:
        values: one number a pair.
        to: the other.
        seed: of the bootstrap.
        level: confidence, in (0, 1).
        clusters: as in :func:`stats.mean_interval`; whole clusters are drawn.

    Raises:
        ValueError: fewer than two pairs or clusters, different lengths, NaN, or a mean of ``to`` that is not positive.
    """
    above, below = np.asarray(values, dtype=float), np.asarray(to, dtype=float)
    if above.shape != below.shape or above.ndim != 1 or len(above) < 2 or not np.isfinite([above, below]).all():
        raise ValueError(f"expected two lists of as many finite numbers, got shapes {above.shape} and {below.shape}.")
    if below.mean() <= 0:
        raise ValueError(f"the mean to divide by is {below.mean():.3g}, expected more than 0.")
    count = len(above)
    if clusters is not None:
        above, below = cluster_sums(above, clusters)[0], cluster_sums(below, clusters)[0]
    found = bootstrap_interval(
        (above, below), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), seed, paired=True, level=level
    )
    return Interval(found.mean, found.low, found.high, count)
