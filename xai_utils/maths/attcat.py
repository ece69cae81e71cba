r"""AttCAT: attention times the gradient's share of every token's activation. Pure functions of captured tensors.

Axes: ``(layer, sample, token)``; hidden states are those that *enter* a block, attention is the one of that block, so
the layers are matched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xai_utils import check

READINGS = ("mask row", "column mean")


def cat(hidden: Tensor, gradient: Tensor) -> Tensor:
    r"""Return :math:`\sum_d h_{td}\, \partial y/\partial h_{td}`, the activation times its gradient, signed.

    Args:
        hidden: block inputs ``(layer, sample, token, width)``.
        gradient: of the target by ``hidden``, same shape.

    Source: Qiang et al. (2022), AttCAT, Eq. 4.
    """
    if hidden.shape != gradient.shape:
        raise ValueError(f"hidden states {tuple(hidden.shape)} and gradients {tuple(gradient.shape)} differ in shape.")
    check.finite("gradient", gradient)
    return (hidden * gradient).sum(-1)


def paid(attention: Tensor, position: Tensor) -> Tensor:
    """Return the attention that one position of every sample pays, mean over heads: ``(layer, sample, token)``.

    Args:
        attention: ``(layer, sample, head, query, key)``.
        position: ``(sample,)``, for example of [MASK].
    """
    row = torch.arange(attention.shape[1], device=attention.device)
    return attention[:, row, :, position].mean(2).transpose(0, 1)


def received(attention: Tensor, real: Tensor) -> Tensor:
    """Return the attention that every token receives, mean over heads and over the queries that are no padding.

    Args:
        attention: ``(layer, sample, head, query, key)``.
        real: ``(sample, token)`` bool, false for padding.
    """
    weight = real.to(attention) / real.sum(-1, keepdim=True)
    return torch.einsum("lshqk,sq->lsk", attention, weight) / attention.shape[2]


def attcat(weight: Tensor, activation: Tensor) -> Tensor:
    """Return attention times CAT by layer; the sum over the first axis is AttCAT of the whole model.

    With DensRay scores of the states that attention was paid to in the place of CAT this is AttDR, whose published code
    multiplies the attention of a block with the states that leave it.

    Args:
        weight: of :func:`paid` or :func:`received`.
        activation: of :func:`cat`, same shape.

    Source: repository qiangyao1988/AttCAT, ``generate_TransCAM``. Differs from: the paper's text, which writes CAT of
        the last layer for every layer; and from the masked-language-model code built on it, which explains the most
        likely word in place of a gender score, and masks [CLS] and [SEP] inside the model.
    """
    if weight.shape != activation.shape:
        raise ValueError(f"attention {tuple(weight.shape)} and CAT {tuple(activation.shape)} differ in shape.")
    return weight * activation


def impact(scores: Tensor, where: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of ``|scores|`` on the asked word's tokens, and whether its strongest beats all others.

    Args:
        scores: ``(sample, token)``, zero at padding and specials.
        where: ``(sample, token)`` bool, the pieces of the asked word; at least one each.
        mask: ``(sample, token)`` bool, [MASK], left out.

    Differs from: the published code, which reads a fixed place, so that words of several pieces are cut.
    """
    if not where.any(-1).all():
        raise ValueError("a sentence does not hold the word that is asked about.")
    size = scores.abs().masked_fill(mask, 0)
    total = size.sum(-1)
    return (size * where).sum(-1) / total, (size * where).amax(-1) >= size.masked_fill(where, 0).amax(-1)
