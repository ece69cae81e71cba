"""Mark an attribution against a known truth. Pure functions on scores and masks."""

from __future__ import annotations

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


def _same_length(scores: Tensor, inside: Tensor) -> None:
    check.finite("scores", scores)
    if scores.shape != inside.shape or scores.ndim != 1:
        raise ValueError(
            f"scores {tuple(scores.shape)} and truth {tuple(inside.shape)} should be two (token,) vectors."
        )
