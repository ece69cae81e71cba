"""Mark an attribution against a known truth. Pure functions on scores and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from xai_utils import check

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
