r"""How much a layer mixes: the skip connection's share, by exact definitions.

Pure tensor functions. With a residual of 0.5 the mixed map has at least half its weight on the diagonal by
construction, so the diagonal of a rollout step says nothing about the model; these two quantities do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xai_utils import check


def mixing_ratio(attention: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    r"""Compare what attention brings from other tokens with what a token keeps of itself.

    .. math:: r_i = \frac{\lVert c_i \rVert}{\lVert c_i \rVert + \lVert x_i + s_i \rVert}, \quad
        c_i = \sum_{j \ne i} \sum_h A^h_{ij} v^h_j, \quad s_i = \sum_h A^h_{ii} v^h_i

    Args:
        attention: ``(layer, ..., head, query, key)`` probabilities.
        values: ``(layer, ..., head, token, width)``: value times output projection (see :mod:`capture`).
        hidden: ``(layer, ..., token, width)``: what the skip connection carries into each block.

    Returns:
        ``(layer, ..., token)`` in [0, 1]; 0: the token keeps itself, 1: it is replaced by its context.

    Source: Kobayashi et al. (2020), arXiv:2004.10102, section 5; layer normalisation left out, as there.
    """
    square = attention.shape[:-1] + attention.shape[-2:-1]
    if (
        attention.shape != square
        or attention.shape[:-1] != values.shape[:-1]
        or hidden.shape != values.shape[:-3] + values.shape[-2:]
    ):
        raise ValueError(
            f"attention {tuple(attention.shape)}, values {tuple(values.shape)} and hidden {tuple(hidden.shape)} do not "
            "belong together: expected (layer, ..., head, query, key), (layer, ..., head, token, width) and "
            "(layer, ..., token, width)."
        )
    for name, tensor in (("attention", attention), ("values", values), ("hidden", hidden)):
        check.finite(name, tensor)
    own = (attention.diagonal(dim1=-2, dim2=-1)[..., None] * values).sum(-3)
    context = torch.einsum("...hqk,...hkw->...qw", attention, values) - own
    around, kept = context.norm(dim=-1), (hidden + own).norm(dim=-1)
    return around / (around + kept)


def untouched_share(rolled: Tensor, residual: float = 0.5) -> Tensor:
    r"""Return the part of a token's weight on itself that never passed through attention.

    :math:`r^{\ell + 1} / R_\ell[i, i]`: one path of the random walk takes the skip connection in every layer.

    Args:
        rolled: ``(layer, ..., query, input)`` as returned by :func:`rollout.rollout` with the same ``residual``.
        residual: share of the skip connection, in [0, 1].

    Returns:
        ``(layer, ..., token)`` in [0, 1]; 0 where nothing of a token is left, as without a skip connection.
    """
    check.square_stack("rolled", rolled)
    check.non_negative("rolled", rolled)
    check.share("residual", residual)
    depth = torch.arange(1, len(rolled) + 1, dtype=rolled.dtype, device=rolled.device)
    own = rolled.diagonal(dim1=-2, dim2=-1)
    untouched = (residual**depth).view(-1, *[1] * (own.ndim - 1)).expand_as(own)
    return torch.where(own > 0, untouched / own.where(own > 0, 1.0), 0.0)
