r"""A score as a ratio of affine functions of a mask, and its moments over all masks, exactly. Pure functions.

Letters: a mask :math:`z` of :math:`d` words has :math:`z_j = 1` where word :math:`j` is kept; the score of a head is
:math:`N(z) / D(z)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from xai_utils import check

DOUBLE = torch.float64


@dataclass(frozen=True)
class Ratio:
    r"""Score of each head on a mask :math:`z`, as :math:`N(z) / D(z)`, both affine.

    Attributes:
        kept: ``(head, word)``, :math:`g_j`: attention before normalisation on the word's places while it is kept.
        kept_vote: ``(head, word)``, :math:`g_j u_j`: the same times what is said there.
        dropped: ``(head, word)``, :math:`h_j`: the same with the unknown word in its places.
        dropped_vote: ``(head, word)``, :math:`h_j u'_j`.
        fixed: ``(head,)``: part of :math:`D` that no mask touches (the class token, padding).
        fixed_vote: ``(head,)``: the same of :math:`N`.

    Every head may be scaled by a number of its own; the ratio stays.
    """

    kept: Tensor
    kept_vote: Tensor
    dropped: Tensor
    dropped_vote: Tensor
    fixed: Tensor
    fixed_vote: Tensor

    @property
    def words(self) -> int:
        """How many distinct words."""
        return self.kept.shape[1]

    @property
    def heads(self) -> int:
        """How many heads."""
        return len(self.kept)

    def totals(self) -> tuple[Tensor, Tensor]:
        """Return :math:`D` of the whole text and of the text without words, ``(head,)`` each."""
        return self.fixed + self.kept.sum(1), self.fixed + self.dropped.sum(1)


def ratio(scores: Tensor, votes: Tensor, hidden_scores: Tensor, hidden_votes: Tensor, word_of: Tensor) -> Ratio:
    """Add up what belongs to each word.

    Args:
        scores: ``(head, token)`` attention before its softmax.
        votes: ``(head, token)`` what each token says, in the unit of the score.
        hidden_scores: ``(head, token)`` the same with the unknown word at every place.
        hidden_votes: as before.
        word_of: ``(token,)`` number of the word that stands there, from 0; -1 for a token that is never masked.

    Raises:
        ValueError: shapes that do not belong together, NaN, or no word at all.
    """
    if len({part.shape for part in (scores, votes, hidden_scores, hidden_votes)}) != 1 or scores.ndim != 2:
        raise ValueError(f"scores {tuple(scores.shape)}, votes {tuple(votes.shape)}: expected four of (head, token).")
    if word_of.shape != scores.shape[1:] or not (word_of >= 0).any():
        raise ValueError(f"word_of is {tuple(word_of.shape)}, expected ({scores.shape[1]},) with one word at least.")
    for name, part in (("scores", scores), ("votes", votes), ("hidden_scores", hidden_scores)):
        check.finite(name, part)
    free = word_of < 0
    hidden_scores = hidden_scores.masked_fill(free, -inf)
    most = torch.maximum(scores, hidden_scores).amax(1, keepdim=True)
    kept, dropped = (scores - most).exp().to(DOUBLE), (hidden_scores - most).exp().to(DOUBLE)
    belongs = one_hot(word_of.clamp(min=0), int(word_of.max()) + 1).to(DOUBLE)
    belongs[free] = 0
    return Ratio(
        kept @ belongs, (kept * votes) @ belongs, dropped @ belongs, (dropped * hidden_votes) @ belongs,
        kept[:, free].sum(1), (kept * votes)[:, free].sum(1),
    )  # fmt: skip


def outputs(parts: Ratio, masks: Tensor) -> Tensor:
    """Return every head's score on every mask, ``(mask, head)``; no forward pass.

    Args:
        parts: the ratio.
        masks: ``(mask, word)``, 1 where a word is kept; a share where it is kept to that share.
    """
    above, below = both(parts, masks)
    return above / below


def both(parts: Ratio, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return :math:`N` and :math:`D` of every mask, ``(mask, head)`` each; arguments of :func:`outputs`."""
    kept = masks.to(DOUBLE)
    above = kept @ (parts.kept_vote - parts.dropped_vote).T + parts.fixed_vote + parts.dropped_vote.sum(1)
    return above, kept @ (parts.kept - parts.dropped).T + parts.fixed + parts.dropped.sum(1)


def moments(parts: Ratio, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`E[\psi N/D]` and :math:`E[\psi z_j N/D]` over all masks, exactly though there are :math:`2^d`.

    .. math:: \frac{1}{D} = \int_0^\infty e^{-\tau D}\,d\tau

    turns the ratio into a product over words. Its mean over the masks that drop s words is a table of d² entries, all
    positive, built word by word; the same table with the :math:`N` of each word carried along gives the first moment,
    and its derivative by the word's exponent the second.

    Args:
        parts: the ratio.
        weights: ``(kernel, size)`` weight of all masks that drop 0, 1, … d words, for each kernel.

    Returns:
        ``(kernel, head)`` and ``(kernel, head, word)``.
    """
    several = max(1, 20_000 // parts.words**2)  # heads at once: bounds the memory of the tables
    found = [_moments(_scaled(parts, heads), weights) for heads in torch.arange(parts.heads).split(several)]
    whole, single = (torch.cat(one, 1) for one in zip(*found, strict=True))
    return whole, single


def _scaled(parts: Ratio, heads: Tensor) -> Ratio:
    """Return some heads, each scaled so that its largest denominator is 1; the ratio stays."""
    some = [getattr(parts, name)[heads] for name in Ratio.__dataclass_fields__]
    most = (some[4] + torch.maximum(some[0], some[2]).sum(1)).clamp(min=torch.finfo(DOUBLE).tiny)
    return Ratio(*(part / (most if part.ndim == 1 else most[:, None]) for part in some))


def _moments(parts: Ratio, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the moments of heads whose largest denominator is 1.

    Tables are ``(head, node, size)``: ``plain[k]`` holds, over the masks of the first k words that drop so many, the
    mean of the product, and ``said[k]`` the mean of the product times the numerator; ``after_plain`` and ``after_said``
    are the derivatives of the results by them, ``(kernel, head, node, size)``, taken from the last word back.
    """
    nodes, gaps = _nodes(float((parts.fixed + torch.minimum(parts.kept, parts.dropped).sum(1)).min()))
    stay = torch.exp(-nodes[:, None] * parts.kept[:, None])[..., None]
    go = torch.exp(-nodes[:, None] * parts.dropped[:, None])[..., None]
    says, says_not = parts.kept_vote[:, None, :, None], parts.dropped_vote[:, None, :, None]
    plain, said = [torch.ones_like(stay[:, :, 0])], [torch.zeros_like(stay[:, :, 0])]
    for word in range(parts.words):
        keep, drop = _chances(word)
        here = plain[-1], said[-1]
        kept, gone = keep * stay[:, :, word], drop * go[:, :, word]
        stayed, went = kept * here[0], gone * here[0]
        plain.append(_joined(stayed, went))
        stayed_said = says[:, :, word] * stayed + kept * here[1]
        said.append(_joined(stayed_said, says_not[:, :, word] * went + gone * here[1]))
    ends = (gaps * torch.exp(-nodes * parts.fixed[:, None]))[..., None] * weights[:, None, None]
    after_plain, after_said = ends * parts.fixed_vote[:, None, None], ends
    whole = (after_plain * plain[-1] + after_said * said[-1]).sum((-1, -2))
    single = []
    for word in range(parts.words - 1, -1, -1):
        keep, drop = _chances(word)
        kept, gone = keep * stay[:, :, word], drop * go[:, :, word]
        kept_said, gone_said = kept * after_said[..., :-1], gone * after_said[..., 1:]
        kept_plain = kept * after_plain[..., :-1] + says[:, :, word] * kept_said
        single.append((kept_plain * plain[word] + kept_said * said[word]).sum((-1, -2)))
        after_plain = kept_plain + gone * after_plain[..., 1:] + says_not[:, :, word] * gone_said
        after_said = kept_said + gone_said
    return whole, torch.stack(single[::-1], -1)


def _joined(stayed: Tensor, went: Tensor) -> Tensor:
    """Add tables of masks that keep a word and of those that drop it, which have one size more."""
    both = pad(stayed, (0, 1))
    both[..., 1:] += went
    return both


def _chances(before: int) -> tuple[Tensor, Tensor]:
    """Return, for masks of one word more than ``before``, the chance that the last is kept and that it is dropped.

    The first by how many of the words before are dropped (0 … ``before``), so with so many dropped in all; the second
    with one more.
    """
    sizes = torch.arange(before + 1, dtype=DOUBLE)
    return (before + 1 - sizes) / (before + 1), (sizes + 1) / (before + 1)


def _nodes(least: float, step: float = 0.27) -> tuple[Tensor, Tensor]:
    """Return nodes and weights with ``sum(weight * exp(-node * D)) = 1 / D`` to 1e-14 for D from ``least`` to 1.

    The trapezoid rule in the logarithm of the node converges geometrically; the nodes below 1e-5, where the exponential
    is nearly a straight line, are gathered into one.
    """
    nodes = np.exp(np.arange(np.log(1e-5), np.log(38 / least) + step, step))
    shrink = np.exp(-step)
    mass = step * nodes[0] * shrink / (1 - shrink)
    centre = nodes[0] * shrink / (1 + shrink)
    return torch.from_numpy(np.r_[centre, nodes]), torch.from_numpy(np.r_[mass, step * nodes])
