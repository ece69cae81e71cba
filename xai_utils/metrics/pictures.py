"""Mark an attribution against a known truth. Pure functions on scores and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score
from torch import Tensor

from xai_utils import check
from xai_utils.metrics import pictures
from xai_utils.stats import Interval

TENTHS = tuple(step / 10 for step in range(11))


def cover(mask: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Average a ``(height, width)`` bool mask over the patches of a grid: ``(row * column,)`` in [0, 1], float64.

    Raises:
        ValueError: an empty mask, or one whose sides are no multiple of the grid's.
    """
    height, width = mask.shape
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"a mask of {mask.shape} pixels does not divide into a grid of {grid}.")
    if not mask.any():
        raise ValueError("the mask is empty: there is no object to find.")
    tiles = mask.reshape(grid[0], height // grid[0], grid[1], width // grid[1])
    return torch.from_numpy(tiles.mean((1, 3)).ravel())


def covers(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average masks ``(map, height, width)``, bool or shares, over the cells of a grid: ``(map, row, column)`` float64.

    Unlike :func:`cover` an empty mask is let through: whoever counts needs it.

    Raises:
        ValueError: another shape, sides that are no multiple of the grid's, values outside [0, 1].
    """
    if masks.ndim != 3 or 0 in masks.shape or masks.shape[1] % grid[0] or masks.shape[2] % grid[1]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)}, expected (map, height, width) with sides that are multiples of "
            f"the grid {grid}. Put each mask through the resize and crop of its picture first (encode.view_mask)."
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


def mass_inside(scores: Tensor, inside: Tensor) -> float:
    """Return the share of the positive scores that lies inside, in [0, 1].

    Args:
        scores: ``(token,)``; negative scores count as zero.
        inside: ``(token,)`` bool or share of each token that is inside.

    Raises:
        ValueError: different lengths, NaN, or no positive score at all.
    """
    _same_length(scores, inside)
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


def hit(scores: Tensor, inside: Tensor, least: float = 0.0) -> bool:
    """Return whether the greatest score falls on a token of which more than ``least`` is inside (pointing game)."""
    _same_length(scores, inside)
    return bool(inside[scores.argmax()] > least)


def average_precision(scores: Tensor, inside: Tensor) -> float:
    """Return how well the ranking finds the tokens inside: 1 is perfect, their share is chance."""
    _same_length(scores, inside)
    truth = inside.numpy() > 0.5
    if truth.all() or not truth.any():
        raise ValueError("average precision needs tokens inside and tokens outside.")
    return float(average_precision_score(truth, scores.double().numpy()))


def keep_masks(order: Tensor, tokens: int, fractions: Sequence[float] = TENTHS, insert: bool = False) -> Tensor:
    """Remove tokens from the whole input step by step, or insert them into the emptied one.

    Args:
        order: ``(..., rank)`` indices of the tokens, most important first; a token left out of it is always kept.
        tokens: of the input.
        fractions: of the order that are gone (or back) after each step, rising from 0 to 1; of the product with the
            number of ranks the nearest whole number counts.
        insert: begin with all of them gone and put them back.

    Returns:
        ``(..., step, token)`` bool, true where the token is kept; the first is the untouched (or emptied) input.

    Raises:
        ValueError: an order that is empty, names a token twice, or one that there is not; fractions that do not rise
            from 0 to 1.
    """
    _rising(fractions)
    ranks = order.shape[-1]
    if not ranks or order.min() < 0 or order.max() >= tokens:
        raise ValueError(f"the order should name some of the tokens 0 to {tokens - 1}, got {order.tolist()}.")
    times = torch.zeros((*order.shape[:-1], tokens), dtype=torch.long)
    if times.scatter_add(-1, order, torch.ones_like(order)).max() > 1:
        raise ValueError(f"the order names a token twice: {order.tolist()}.")
    place = torch.full_like(times, ranks).scatter(-1, order, torch.arange(ranks).expand_as(order))
    changed = torch.tensor([round(fraction * ranks) for fraction in fractions])[:, None]
    reached = place[..., None, :] < changed
    return reached | (place == ranks)[..., None, :] if insert else ~reached


def removal_curve(
    score: Callable[[Tensor], Tensor],
    order: Tensor,
    tokens: int,
    fractions: Sequence[float] = TENTHS,
    insert: bool = False,
) -> Tensor:
    """Ask the model again after every step of :func:`keep_masks`: deletion, or insertion.

    Args:
        score: takes ``(mask, token)`` bool, returns ``(mask,)``; each different mask is asked for once.
        order: ``(..., rank)``, most important first; several maps of one input go in one call.
        tokens: of the input.
        fractions: as in :func:`keep_masks`.
        insert: insertion in place of deletion.

    Returns:
        ``(..., step)`` scores.

    Source: deletion and insertion of RISE, Petsiuk et al. (2018), arXiv:1806.07421, section 4.1.
    """
    masks = keep_masks(order, tokens, fractions, insert)
    different, place = masks.flatten(0, -2).unique(dim=0, return_inverse=True)
    values = score(different)
    check.finite("scores", values)
    return values[place].view(masks.shape[:-1])


def area(curve: Tensor, fractions: Sequence[float] = TENTHS) -> Tensor:
    """Return the area under ``(..., step)`` over the fractions by the trapezoid rule, ``(...)``.

    For a deletion lower is better, for an insertion higher.
    """
    _rising(fractions)
    if curve.shape[-1] != len(fractions):
        raise ValueError(f"a curve of {curve.shape[-1]} points does not belong to {len(fractions)} fractions.")
    return torch.trapezoid(curve, torch.tensor(fractions, dtype=curve.dtype))


def _rising(fractions: Sequence[float]) -> None:
    rising = all(lower < upper for lower, upper in pairwise(fractions))  # false beside NaN
    if len(fractions) < 2 or not rising or (fractions[0], fractions[-1]) != (0, 1):
        raise ValueError(f"fractions should rise from 0 to 1, got {list(fractions)}.")


def _same_length(scores: Tensor, inside: Tensor) -> None:
    check.finite("scores", scores)
    if scores.shape != inside.shape or scores.ndim != 1:
        raise ValueError(
            f"scores {tuple(scores.shape)} and truth {tuple(inside.shape)} should be two (token,) vectors."
        )


def above_mean(scores: Tensor) -> Tensor:
    """Mark the patches ``(token,)`` whose score is above the map's own mean; a constant map marks nothing.

    Source: the threshold of Chefer et al. (2021a), arXiv:2012.09838, section 4. It makes a blob in the middle of the
    picture look good, so compare with the centre prior.
    """
    _fits(scores, scores)
    return scores > scores.double().mean()


def top_area(scores: Tensor, area: float, seed: int) -> Tensor:
    """Mark as many of the highest patches ``(token,)`` as cover an area, at least one; ties in seeded random order.

    Args:
        scores: ``(token,)``.
        area: share of the picture, in (0, 1].
        seed: of the order of ties.
    """
    check.share("area", area)
    _fits(scores, scores)
    noise = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    order = noise[scores[noise].argsort(descending=True, stable=True)]
    return torch.zeros(len(scores), dtype=torch.bool).index_fill(0, order[: max(1, round(area * len(scores)))], True)


def pixel_accuracy(marked: Tensor, inside: Tensor) -> float:
    """Return the share of the picture on which marks and mask agree.

    Args:
        marked: ``(token,)`` bool.
        inside: ``(token,)`` bool, or share of each patch that is inside.
    """
    _fits(marked, inside)
    one, other = marked.double(), inside.double()
    return float((one * other + (1 - one) * (1 - other)).mean())


def iou(marked: Tensor, inside: Tensor) -> float:
    """Return intersection over union of the object; patches count by their share inside."""
    _fits(marked, inside)
    one, other = marked.double(), inside.double()
    if not other.any():
        raise ValueError("the mask is empty: there is no object to overlap with.")
    shared = float((one * other).sum())
    return shared / (float(one.sum() + other.sum()) - shared)


def _fits(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(f"expected two (token,) vectors of one length, got {tuple(one.shape)}, {tuple(other.shape)}.")
    check.finite("scores", one)


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
    ranked = average_precisions(large, truth)
    low, high = large.aminmax(dim=1, keepdim=True)
    scaled = torch.where(high > low, (large - low) / (high - low), 0.5)
    both = average_precisions(torch.cat([1 - scaled, scaled], 1), torch.cat([~truth, truth], 1))
    right = (above == truth).double().mean(1)
    columns = (right, _iou(above, truth), _iou(~above, ~truth), ranked, both)
    return tuple(column.where(~ranked.isnan(), torch.nan) for column in columns)


def _iou(one: Tensor, two: Tensor) -> Tensor:
    return (one & two).sum(1).double() / (one | two).sum(1)


def average_precisions(scores: Tensor, truth: Tensor) -> Tensor:
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
