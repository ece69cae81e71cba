"""Mark an attribution against a known truth. Pure functions on scores and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from xai_utils import check


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
    """Return :func:`mass_inside` divided by what a uniform map would get; 1 means no better than uniform."""
    return mass_inside(scores, inside) / float(inside.double().mean())


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


def keep_masks(order: Tensor, tokens: int, steps: int = 10, insert: bool = False) -> Tensor:
    """Remove tokens from the whole input, or insert them into the emptied one, in equal steps.

    Args:
        order: ``(..., rank)`` indices of the tokens, most important first; a token left out of it is always kept.
        tokens: of the input.
        steps: after step k the first ``round(k * ranks / steps)`` tokens of the order are gone (or back).
        insert: begin with all of them gone and put them back.

    Returns:
        ``(..., step + 1, token)`` bool, true where the token is kept; the first is the untouched (or emptied) input.

    Raises:
        ValueError: an order that is empty, names a token twice, or one that there is not; no step at all.
    """
    check.at_least_one("steps", steps)
    ranks = order.shape[-1]
    times = torch.zeros((*order.shape[:-1], tokens), dtype=torch.long)
    if not ranks or order.min() < 0 or order.max() >= tokens:
        raise ValueError(f"the order should name some of the tokens 0 to {tokens - 1}, got {order.tolist()}.")
    if times.scatter_add(-1, order, torch.ones_like(order)).max() > 1:
        raise ValueError(f"the order names a token twice: {order.tolist()}.")
    place = torch.full_like(times, ranks).scatter(-1, order, torch.arange(ranks).expand_as(order))
    changed = torch.tensor([round(step * ranks / steps) for step in range(steps + 1)])[:, None]
    reached = place[..., None, :] < changed
    return reached | (place == ranks)[..., None, :] if insert else ~reached


def removal_curve(
    score: Callable[[Tensor], Tensor], order: Tensor, tokens: int, steps: int = 10, insert: bool = False
) -> Tensor:
    """Ask the model again after every step of :func:`keep_masks`: deletion, or insertion.

    Args:
        score: takes ``(mask, token)`` bool, returns ``(mask,)``; each different mask is asked for once.
        order: ``(..., rank)``, most important first; several maps of one input go in one call.
        tokens: of the input.
        steps: of equal size.
        insert: insertion in place of deletion.

    Returns:
        ``(..., step + 1)`` scores.

    Source: deletion and insertion of RISE, Petsiuk et al. (2018), arXiv:1806.07421, section 4.1.
    """
    masks = keep_masks(order, tokens, steps, insert)
    different, place = masks.flatten(0, -2).unique(dim=0, return_inverse=True)
    values = score(different)
    check.finite("scores", values)
    return values[place].view(masks.shape[:-1])


def area(curve: Tensor) -> Tensor:
    """Return the area under ``(..., step + 1)`` over fractions 0 to 1 by the trapezoid rule, ``(...)``.

    For a deletion lower is better, for an insertion higher.
    """
    if curve.shape[-1] < 2:
        raise ValueError(f"a curve of {curve.shape[-1]} point has no area; expected at least one step.")
    return torch.trapezoid(curve, dx=1 / (curve.shape[-1] - 1))


def _same_length(scores: Tensor, inside: Tensor) -> None:
    check.finite("scores", scores)
    if scores.shape != inside.shape or scores.ndim != 1:
        raise ValueError(
            f"scores {tuple(scores.shape)} and truth {tuple(inside.shape)} should be two (token,) vectors."
        )
