"""Whether a map ranks the right tokens first: ties, the highest tokens, average precision, the pointing game.

Pure functions on scores; the last axis is the tokens.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils import check


def ranking(scores: Tensor, seed: int | None) -> Tensor:
    """Return the tokens ``(..., token)`` with the highest score first.

    Args:
        scores: ``(..., token)``.
        seed: equal scores come in random order; ``None``: the earlier token first. A constant map would then remove a
            text from its beginning and a picture from its top, and be scored for that.

    Raises:
        ValueError: NaN, infinite, or no token.
    """
    check.finite("scores", scores)
    if not scores.ndim or not scores.shape[-1]:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected (..., token) with at least one token.")
    tokens = scores.shape[-1]
    drawn = torch.arange(tokens) if seed is None else torch.from_numpy(np.random.default_rng(seed).permutation(tokens))
    return drawn[scores[..., drawn].argsort(dim=-1, descending=True, stable=True)]


def top(scores: Tensor, count: int, seed: int | None = None) -> Tensor:
    """Mark the ``count`` highest tokens, ``(..., token)`` bool; ties as in :func:`ranking`."""
    if not 1 <= count <= scores.shape[-1]:
        raise ValueError(f"count is {count}, expected 1 to {scores.shape[-1]}, the number of tokens.")
    chosen = ranking(scores, seed)[..., :count]
    return torch.zeros(scores.shape, dtype=torch.bool).scatter(-1, chosen, torch.ones_like(chosen, dtype=torch.bool))


def top_share(scores: Tensor, share: float, seed: int) -> Tensor:
    """Mark the highest ``share`` of the tokens, at least one: ``(..., token)`` bool; ties in random order.

    Args:
        scores: ``(..., token)``.
        share: of the tokens, such as the mean length of the human rationales of a data set over that of its texts, or
            the object's share of the picture.
        seed: of the order of ties.

    Source: the hard rationales of DeYoung et al. (2020), arXiv:1911.03429, section 5.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected above 0 and at most 1.")
    return top(scores, max(1, round(share * scores.shape[-1])), seed)


def average_precision(scores: Tensor, inside: Tensor) -> float:
    """Return how well the ranking finds the tokens inside: 1 is perfect, a constant map gets what chance gives.

    Args and errors as in :func:`precision_of_rows`, for one row ``(token,)``.
    """
    same_tokens(scores, inside)
    return float(precision_of_rows(scores[None], inside)[0])


def precision_of_rows(scores: Tensor, inside: Tensor) -> Tensor:
    """Return the average precision of many rankings of the same tokens, ``(row,)`` float64.

    Args:
        scores: ``(row, token)``; of equal ones the order is random, and the mean over all such orders counts.
        inside: ``(token,)`` bool, or share of each token that is inside; above a half counts.

    Raises:
        ValueError: different lengths, NaN, or no token on one of both sides.

    Source: McSherry & Najork (2008), *Computing information retrieval performance measures efficiently in the presence
        of tied scores*, section 3.2. Differs from: scikit-learn, which takes equal scores as one rank, so that a
        constant map is worse than a random one (see :func:`average_precisions`).
    """
    same_tokens(scores[0], inside)
    check.finite("scores", scores)
    marked = inside > 0.5
    if not marked.any() or marked.all():
        raise ValueError("average precision needs tokens inside and tokens outside.")
    ordered, order = scores.sort(dim=1, descending=True)
    place = torch.arange(scores.shape[1]).expand_as(order)
    group = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0)).long().cumsum(1)  # of equal scores
    none = torch.zeros(scores.shape, dtype=torch.float64)
    sizes = none.scatter_add(1, group, torch.ones_like(none))
    right = none.scatter_add(1, group, marked[order].double())
    before, found = sizes.cumsum(1) - sizes, right.cumsum(1) - right  # of the higher scores
    size, own, first, earlier = (one.gather(1, group) for one in (sizes, right, before, found))
    alike = (place - first) * (own - 1) / (size - 1).clamp(min=1)  # of equal score that came first
    return (own / size * (earlier + alike + 1) / (place + 1)).sum(1) / marked.sum()


def average_precisions(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the average precision of each row's ranking, ``(row,)`` float64; equal scores are one rank.

    Args:
        scores: ``(row, entry)``.
        truth: ``(row, entry)`` bool; a row of only one kind has no ranking to judge and gives NaN.

    Same as: scikit-learn's ``average_precision_score``, for many rows at once; published segmentation tests use it.
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


def hit(scores: Tensor, inside: Tensor, least: float = 0.0) -> bool:
    """Return whether the greatest score falls on a token of which more than ``least`` is inside (pointing game)."""
    same_tokens(scores, inside)
    return bool(hits(scores, inside, least))


def hits(scores: Tensor, inside: Tensor, least: float = 0.0) -> Tensor:
    """Play :func:`hit` in every row of ``(..., token)``: ``(...)`` bool; of equal scores the first counts."""
    return inside.gather(-1, scores.argmax(-1, keepdim=True))[..., 0] > least


def same_tokens(scores: Tensor, inside: Tensor) -> None:
    """Accept finite scores and a truth of the same tokens, two vectors."""
    check.finite("scores", scores)
    one, other = tuple(scores.shape), tuple(inside.shape)
    if one != other or len(one) != 1 or one == (0,):
        raise ValueError(f"scores {one} and truth {other} should be two (token,) vectors of one length.")
