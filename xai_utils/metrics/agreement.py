"""How far two attributions of the same tokens agree. Pure functions on scores, last axis the tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, rankdata


def spearman(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Return Spearman's rank correlation, ties sharing their mean rank, in [-1, 1].

    Args:
        one: scores ``(..., token)``.
        other: scores ``(..., token)``, broadcast against ``one``.

    Raises:
        ValueError: fewer than two tokens, NaN, different numbers of tokens, or scores that are all equal, which rank
            nothing.

    Differs from: the published selective rollout (and attention_flow, from which it comes), which gives ties one dense
        rank and then uses the formula for distinct ranks: 0.97 in place of -0.08 on data with five levels.
    """
    x, y = _ranks(one), _ranks(other)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"one has {x.shape[-1]} tokens, the other {y.shape[-1]}.")
    return (x * y).mean(-1)


def dense_spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Return the published "Spearman" of two ``(token,)`` vectors: dense ranks in the formula for distinct ranks.

    Wrong wherever there are ties, and there only; kept to show by how much. Source: repository
    samiraabnar/attention_flow.
    """
    x, y = (rankdata(values, method="dense") for values in (one, other))
    n = len(x)
    return float(1 - 6 * ((x - y) ** 2).sum() / (n * (n**2 - 1)))


def kendall(one: ArrayLike, other: ArrayLike) -> float:
    """Return Kendall's τ-b of two ``(token,)`` vectors, in [-1, 1]; as SciPy does."""
    _ranks(one), _ranks(other)
    return float(kendalltau(one, other).statistic)


def top_overlap(one: ArrayLike, other: ArrayLike, count: int) -> np.ndarray:
    """Return the share of the ``count`` highest tokens that both have in common, in [0, 1]; chance is count / tokens.

    Args:
        one: scores ``(..., token)``; of equal scores the earlier token comes first.
        other: scores ``(..., token)``.
        count: how many, 1 to the number of tokens.
    """
    x, y = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if not 1 <= count <= min(x.shape[-1], y.shape[-1]):
        raise ValueError(f"count is {count}, expected 1 to {min(x.shape[-1], y.shape[-1])}, the number of tokens.")
    return (_highest(x, count) & _highest(y, count)).sum(-1) / count


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    places = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, places, True, axis=-1)
    return chosen


def _ranks(values: ArrayLike) -> np.ndarray:
    """Return ranks ``(..., token)``, shifted and scaled to mean 0 and variance 1."""
    scores = np.asarray(values, dtype=float)
    if scores.ndim < 1 or scores.shape[-1] < 2 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores of at least two tokens, got shape {scores.shape}.")
    ranks = rankdata(scores, axis=-1)
    ranks = ranks - ranks.mean(-1, keepdims=True)
    spread = ranks.std(-1, keepdims=True)
    if not spread.all():
        raise ValueError("all scores of a sample are equal: they rank nothing, so nothing can agree with them.")
    return ranks / spread
