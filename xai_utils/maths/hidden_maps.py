"""Maps of what one token reads through the hidden attention of all layers, one direction or two.

``layers`` holds for every layer its scans: one, or both directions of Vision Mamba. Three readings of the same weights
(raw, rollout, weighted by the gradient) as they should be, and as the published code computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import class_maps, hidden_attention, rollout
from xai_utils.maths.selective_scan import Scan

Layers = Sequence[Sequence[Scan]]
SIGNS = ("absolute", "clamped", "signed")


def layer_maps(layers: Layers, signs: str = "absolute") -> Tensor:
    """Return the hidden attention of all layers, ``(layer, batch, query, key)``; both directions are added.

    Args:
        layers: the scans of every layer.
        signs: ``"absolute"``, the mean over channels of absolute weights; ``"clamped"``, the positive part of the mean;
            ``"signed"``, the mean itself.

    Source: Ali et al. (2024), arXiv:2403.01590, Eq. 11 and section 3.3 (two directions).
    """
    check.one_of("signs", signs, SIGNS)
    return torch.stack([_layer_map(scans, signs) for scans in layers])


def direction_maps(layers: Layers) -> Tensor:
    """Return absolute hidden attention as shares, ``(layer, batch, direction, query, key)``.

    The directions play the part of heads: the rows of their mean sum to 1, and a row says how much of what a token
    reads comes from either side. What both say of the token itself is split in equal parts.
    """
    stacked = []
    for scans in layers:
        maps = torch.stack([hidden_attention.of_scan(scan, "absolute") for scan in scans], 1)
        if len(scans) > 1:
            maps.diagonal(dim1=-2, dim2=-1).copy_((_own_weight(scans).abs().mean(1) / len(scans))[:, None])
        sums = maps.sum((1, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)  # padding reads nothing
        stacked.append(len(scans) * maps / sums)
    return torch.stack(stacked)


def class_rows(layers: Layers, position: int) -> Tensor:
    """Return what ``position`` reads, all channels (Mamba-2: heads), signed: ``(layer, batch, channel, key)``."""
    return torch.stack([torch.stack([_row(scan, position) for scan in scans]).sum(0) for scans in layers])


def raw(maps: Tensor, position: int) -> Tensor:
    """Average the token's rows over layers, ``(batch, key)``.

    Source: Ali et al. (2024), section 4.1. Differs from: their code, see :func:`published_raw`.
    """
    return maps[:, :, position].mean(0)


def raw_row(rows: Tensor, signs: str = "absolute") -> Tensor:
    """Do :func:`raw` of :func:`layer_maps` from the reader's rows alone, not the whole maps: ``(batch, key)``.

    Args:
        rows: from :func:`class_rows`.
        signs: ``"absolute"``, ``"clamped"`` or ``"signed"``, as in :func:`layer_maps`.

    Raises:
        ValueError: unknown signs.

    Source: as of :func:`raw`.
    """
    check.one_of("signs", signs, SIGNS)
    means = (rows.abs() if signs == "absolute" else rows).mean(2)
    return (means.clamp(min=0) if signs == "clamped" else means).mean(0)


def rolled(maps: Tensor, position: int) -> Tensor:
    """Roll out whole maps and read the token's row, ``(batch, key)``: each layer is (map + I) with rows of sum 1.

    Args:
        maps: ``(layer, batch, query, key)``, not negative.
        position: of the token that reads.

    Source: Abnar & Zuidema (2020), arXiv:2005.00928; Ali et al. (2024), section 4.1, whose text asks for this.
    """
    return rollout.rollout_row(maps, position, rescale=True)


def weighted(layers: Layers, gradients: Sequence[Sequence[Tensor]], position: int, start: int = 0) -> Tensor:
    r"""Weigh each weight by its effect on the class score, and follow the positive part down: ``(batch, key)``.

    Since :math:`y = \alpha x`, the score changes with one weight by :math:`g_i x_j`. A layer's map is the positive part
    of the mean over channels of :math:`g_i \alpha_{ij} x_j`; layers are composed as in Chefer et al.

    Args:
        layers: the scans of every layer.
        gradients: of the class score at the bare output of every scan, before the gate, ``(batch, channel, token)``.
        position: of the token that reads.
        start: first layer that takes part.

    Source: Ali et al. (2024), section 4.2, and Chefer et al. (2021), arXiv:2012.09838, Eq. 14.
    Differs from: their code, which takes the gradient on the residual stream and one row for the matrix, see
        :func:`published_attribution`; their text, where gradient and weight are averaged over channels apart.
    """
    pairs = zip(layers, gradients, strict=True)
    maps = torch.stack([
        torch.stack([_weighted(*one) for one in zip(*pair, strict=True)]).sum(0).clamp(min=0) for pair in pairs
    ])  # fmt: skip
    reader = torch.zeros_like(maps[0, :, 0])
    reader[:, position] = 1
    return class_maps.compose_row(maps, reader, start)


def published_raw(rows: Tensor, start: int) -> Tensor:
    """Average rows over channels and layers after stretching each layer to [0, 1], so that zero is zero no more.

    Args:
        rows: from :func:`class_rows`.
        start: first layer that takes part.

    Source: ``generate_raw_attn`` of the code of Ali et al. (2024).
    """
    return _stretched(rows[start:]).mean((0, 2)).clamp(min=0)


def published_rollout(vectors: Tensor, position: int, start: int = 0) -> Tensor:
    r"""Compute what the published "rollout" of one row a layer amounts to, in closed form, ``(batch, key)``.

    There a row ``(1, key)`` meets the identity and is broadcast: every row of the matrix is the same, and the product
    is :math:`\sum_l v_l / p_l + e / p_L` with :math:`p_l = \prod_{k \le l} (1 + \sum_j v_{kj})`. No token is mixed with
    any other, and the lowest layer weighs most.

    Args:
        vectors: what the class token reads in each layer, ``(layer, batch, key)``, signed.
        position: of the class token.
        start: first layer that takes part.

    Raises:
        ValueError: a row that sums to -1, which the published code divides by.

    Source: ``compute_rollout_attention`` in the code of Ali et al. (2024).
    """
    check.index("start", start, len(vectors))
    check.index("position", position, vectors.shape[-1])
    check.finite("vectors", vectors)
    sums = 1 + vectors[start:].sum(-1)
    if (sums.abs() < 1e-9).any():
        raise ValueError("the weights of a row sum to -1; the published normalisation divides by zero here.")
    products = sums.cumprod(0)
    found = (vectors[start:] / products[..., None]).sum(0)
    found[:, position] += 1 / products[-1]
    return found


def published_attribution(rows: Tensor, stream_gradients: Tensor, position: int, start: int) -> Tensor:
    """Weigh stretched rows by the largest positive gradient of each token's stream; then the published rollout.

    Args:
        rows: from :func:`class_rows`.
        stream_gradients: of the class score behind every block, ``(layer, batch, token, width)``.
        position: of the class token.
        start: first layer that takes part.

    Source: ``generate_mamba_attr`` of the code of Ali et al. (2024).
    """
    strongest = _stretched(stream_gradients.clamp(min=0).amax(-1)[:, :, None])[:, :, 0]
    return published_rollout(_stretched(rows.clamp(min=0)).mean(2) * strongest, position, start)


def _layer_map(scans: Sequence[Scan], signs: str) -> Tensor:
    if signs != "absolute":
        total = torch.stack([hidden_attention.of_scan(scan) for scan in scans]).sum(0)
        return total.clamp(min=0) if signs == "clamped" else total
    total = torch.stack([hidden_attention.of_scan(scan, "absolute") for scan in scans]).sum(0)
    if len(scans) > 1:
        total.diagonal(dim1=-2, dim2=-1).copy_(_own_weight(scans).abs().mean(1))  # |both|, not the sum of two |one|
    return total


@torch.no_grad()
def _own_weight(scans: Sequence[Scan]) -> Tensor:
    """Return the diagonal of the sum of both directions, ``(batch, channel, token)``: there alone they overlap."""
    return torch.stack([scan.delta * (scan.B * scan.C).sum(1, keepdim=True) for scan in scans]).sum(0)


def _row(scan: Scan, position: int) -> Tensor:
    if scan.A.ndim == 1:  # Mamba-2, whose matrices are cheap
        return hidden_attention.of_scan(scan, "all")[:, :, position]
    if not scan.backward:
        return hidden_attention.hidden_row(scan.delta, scan.A, scan.B, scan.C, position)
    given = (scan.delta.flip(-1), scan.A, scan.B.flip(-1), scan.C.flip(-1))
    return hidden_attention.hidden_row(*given, scan.delta.shape[-1] - 1 - position).flip(-1)


@torch.no_grad()
def _weighted(scan: Scan, gradient: Tensor) -> Tensor:
    """Return the channel mean of gradient times hidden attention times input, ``(batch, query, key)``."""
    given = (scan.delta, scan.B, scan.C, gradient, scan.u)
    delta, B, C, rows, columns = (one.detach().flip(-1) if scan.backward else one.detach() for one in given)
    found = hidden_attention.matrix(
        hidden_attention.Terms(delta.mT, scan.A.detach(), B.mT, C.mT, rows.mT, columns.mT), "mean"
    )
    return found.flip(-1, -2) if scan.backward else found


def _stretched(values: Tensor) -> Tensor:
    """Bring the last two axes of every layer and sample to [0, 1]; ``ValueError`` if they are constant."""
    low, high = values.amin((-2, -1), keepdim=True), values.amax((-2, -1), keepdim=True)
    if (low == high).any():
        raise ValueError("a layer is constant: it cannot be stretched to [0, 1], as the published code does.")
    return (values - low) / (high - low)
