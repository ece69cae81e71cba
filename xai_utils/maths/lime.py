r"""LIME for texts without a model: masks, regression, and what the regression tends to, exactly.

A mask says for each distinct word of a text whether it is kept; a word that is not kept is replaced by the unknown word
at all its places. For the attention classifier the score on a mask is a ratio of two affine functions of the mask (see
:mod:`mask_ratio`), so that nothing here needs a forward pass. Pure functions.

Letters: :math:`d` words; a mask drops :math:`s` of them, :math:`s` uniform on 1 … d, then which ones; its weight in the
regression is :math:`\psi(s/d)`; :math:`z_j` is 1 where word :math:`j` is kept; :math:`\nu` is the width of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths.mask_ratio import DOUBLE, Ratio, both, moments


def sample(words: int, count: int, seed: int) -> Tensor:
    """Draw masks ``(mask, word)`` of 0 and 1: how many words to drop is uniform on 1 … ``words``, then which ones.

    Differs from: the lime package, whose first mask keeps every word.
    """
    _enough(words)
    check.at_least_one("count", count)
    noise = np.random.default_rng(seed)
    ranks = noise.random((count, words), dtype=np.float32).argsort(1).argsort(1)
    return torch.from_numpy(ranks >= noise.integers(1, words + 1, count)[:, None])


def kernel(dropped: Tensor, width: float = 0.25) -> Tensor:
    r"""Weigh masks by the share of words they drop: :math:`\exp(-(1 - \sqrt{1 - r})^2 / (2 \nu^2))`.

    Args:
        dropped: share of dropped words, in [0, 1].
        width: ν of the cosine distance; ``inf`` weighs all alike. The package's width of 25 is for distances times 100.
    """
    if not width > 0:
        raise ValueError(f"the kernel's width is {width}, expected a number above 0, or inf for equal weights.")
    return torch.exp(-((1 - (1 - dropped).clamp(min=0).sqrt()) ** 2) / (2 * width**2))


def regress(masks: Tensor, values: Tensor, width: float = 0.25, ridge: float = 1.0) -> Tensor:
    """Fit the weighted ridge regression of LIME, ``(word, ...)`` slopes; the intercept is not penalised.

    Args:
        masks: ``(mask, word)``.
        values: ``(mask,)`` or ``(mask, head)`` scores.
        width: of the kernel.
        ridge: penalty; the package takes 1.

    Raises:
        ValueError: unequal lengths, a penalty below 0, or masks that cannot tell the words apart.
    """
    if len(masks) != len(values) or ridge < 0:
        raise ValueError(f"{len(masks)} masks, {len(values)} values and a ridge of {ridge}; expected as many, and ≥ 0.")
    check.finite("values", values)
    kept = masks.to(DOUBLE)
    weights = kernel(1 - kept.mean(1), width)
    scale = weights.sum()
    weights = weights / scale
    kept = kept - weights @ kept
    centred = values.to(DOUBLE) - weights @ values.to(DOUBLE)
    gram = (kept * weights[:, None]).T @ kept + ridge / scale * torch.eye(kept.shape[1], dtype=DOUBLE)
    if torch.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        raise ValueError(f"{len(masks)} masks cannot tell {len(gram)} words apart; draw more, or take a ridge above 0.")
    return torch.linalg.solve(gram, (kept * weights[:, None]).T @ centred)


def exact(parts: Ratio, width: float = 0.25) -> Tensor:
    """Return what the regression tends to with endless masks and no ridge, for every head: ``(head, word)``.

    LIME is linear in the score, so the model's explanation is the mean over heads.

    Args:
        parts: the ratio.
        width: of the kernel.

    Raises:
        ValueError: fewer than two words, between which no regression can tell.

    Source: Mardaoui & Garreau (2021), arXiv:2010.12487, for the regression; the moments of a ratio are our own, see
        :func:`mask_ratio.moments`.
    """
    return exact_each(parts, (width,))[0]


def exact_each(parts: Ratio, widths: Sequence[float]) -> Tensor:
    """Return :func:`exact` for several kernels, ``(kernel, head, word)``, for less than twice the work of one."""
    _enough(parts.words)
    share = torch.arange(parts.words + 1, dtype=DOUBLE) / parts.words
    weights = torch.stack([kernel(share, width) / parts.words for width in widths])
    weights[:, 0] = 0  # no mask keeps everything
    whole, single = moments(parts, weights)
    return torch.stack([solve(*kinds) for kinds in zip(whole, single, weights, strict=True)])


def solve(whole: Tensor, single: Tensor, weights: Tensor) -> Tensor:
    """Solve the normal equations of LIME's regression from its moments.

    Args:
        whole: ``(head,)`` expectation of weight times score.
        single: ``(head, word)`` the same times :math:`z_j`.
        weights: ``(size,)`` weight of all masks that drop 0, 1, … d words.

    Returns:
        ``(head, word)`` slopes.
    """
    words = single.shape[-1]
    none, one, two = mask_moments(weights)
    total = (single.sum(-1) - words * one * whole / none) / (one + (words - 1) * two - words * one**2 / none)
    intercept = (whole - one * total) / none
    return (single - (one * intercept + two * total)[..., None]) / (one - two)


def mask_moments(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the expectation of the weight, and of it times one and two different :math:`z`."""
    words = len(weights) - 1
    left = words - torch.arange(words + 1, dtype=DOUBLE)
    one = left / words
    return weights.sum(), (weights * one).sum(), (weights * one * (left - 1) / max(words - 1, 1)).sum()


def large_limit(parts: Ratio, width: float = inf, nodes: int = 200) -> Tensor:
    r"""Return what :func:`exact` tends to for many words, none of which dominates: ``(head, word)``.

    .. math:: \beta_j \to \int_0^1 6 x (1 - x)\, \delta_j(x)\, dx, \quad \delta_j(x) = \frac{(g_j u_j - h_j u'_j)
        - c(x)\,(g_j - h_j)}{D(x)}, \quad c = N(x) / D(x)

    with the share x of kept words, and :math:`D(x), N(x)` the ratio's parts at a mask that keeps x of every word. For a
    finite width :math:`6 x (1 - x)` becomes :math:`\psi(1 - x)\, x (1 - x)` over its integral; a shift common to all
    words, of the order 1 / d, is left out.

    Args:
        parts: the ratio.
        width: of the kernel.
        nodes: of the Gauss-Legendre rule.
    """
    check.at_least_one("nodes", nodes)
    places, gaps = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    share = (places + 1) / 2
    mass = gaps * kernel(1 - share, width) * share * (1 - share)
    above, below = (part.T for part in both(parts, share[:, None].expand(-1, parts.words)))
    difference = parts.kept_vote - parts.dropped_vote
    slopes = difference[:, None] - (above / below)[..., None] * (parts.kept - parts.dropped)[:, None]
    return ((mass / mass.sum() / below)[..., None] * slopes).sum(1)


def published(parts: Ratio) -> Tensor:
    r"""Return the published approximation, ``(head, word)``: :math:`\frac{3}{2} (\alpha_j u_j - \alpha'_j u'_j)`.

    :math:`\alpha` is the attention in the text, and :math:`\alpha'` that in the text of unknown words alone.

    Source: Lopardo, Precioso & Garreau (2024), Eq. 19, as in their code.
    Differs from: :func:`large_limit`; the factor holds only where unknown words draw next to no attention, and the
        score is not taken relative to what the rest of the text says.
    """
    whole, bare = parts.totals()
    return 1.5 * (parts.kept_vote / whole[:, None] - parts.dropped_vote / bare[:, None])


def _enough(words: int) -> None:
    if words < 2:
        raise ValueError(f"the text has {words} word to mask; LIME compares words, so it needs at least two.")
