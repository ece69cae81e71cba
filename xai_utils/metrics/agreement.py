"""How far two attributions of the same tokens agree. Pure functions on scores, last axis the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, permutation_test, rankdata

from xai_utils.metrics.rankings import top
from xai_utils.stats import AgainstChance, Interval, bootstrap_interval, mean_interval


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
    x, y = (top(torch.from_numpy(np.asarray(scores, dtype=float)), count) for scores in (one, other))
    return ((x & y).sum(-1) / count).numpy()


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


def matched(
    one: Sequence[np.ndarray], other: Sequence[np.ndarray], seed: int, shuffles: int = 999, together: bool = False
) -> AgainstChance:
    """Compare two explanations sentence by sentence by rank correlation, signs kept.

    Args:
        one: per sentence the scores of its explained tokens, [MASK] and specials left out.
        other: the same of the other explanation.
        seed: of shuffles and resampling.
        shuffles: of the tokens within sentences.
        together: shuffle all sentences alike. Sentences of one template share all their words but one, so they agree
            or disagree together; shuffled one by one they would look like independent samples.

    Raises:
        ValueError: fewer than two sentences, or one with fewer than two tokens or equal scores only.
    """
    found = np.array([float(spearman(x, y)) for x, y in zip(one, other, strict=True)])
    noise = np.random.default_rng([seed, 1])
    chance = np.zeros((len(found), shuffles))
    keys = noise.random((shuffles, max(map(len, one))))
    for i, (x, y) in enumerate(zip(one, other, strict=True)):
        order = (keys if together else noise.random(keys.shape))[:, : len(y)].argsort(1)
        chance[i] = spearman(x, y[order])
    return AgainstChance.of(mean_interval(found.tolist(), seed), chance.mean(0))


def rank_interval(one: np.ndarray, other: np.ndarray, seed: int, resamples: int = 2000) -> Interval:
    """Return Spearman's correlation of two variables over items with its percentile bootstrap interval."""
    pair = (np.asarray(one, dtype=float), np.asarray(other, dtype=float))
    return bootstrap_interval(pair, lambda x, y, axis=-1: spearman(x, y), seed, paired=True, resamples=resamples)


def group_difference(one: np.ndarray, other: np.ndarray, seed: int) -> tuple[Interval, float]:
    """Return the difference of two groups' means with its bootstrap interval, and the p of shuffled membership.

    Args:
        one: ``(member,)``.
        other: ``(member,)`` of the other group, as many or not.
        seed: of both resamplings.
    """
    groups = (np.asarray(one, dtype=float), np.asarray(other, dtype=float))
    test = permutation_test(groups, _apart, n_resamples=4999, vectorized=True, rng=np.random.default_rng(seed))
    return bootstrap_interval(groups, _apart, seed), float(test.pvalue)


def _apart(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    return one.mean(axis) - other.mean(axis)
