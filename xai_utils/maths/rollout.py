"""Attention rollout: what is left of every input token after each layer of attention.

Pure tensor functions. Maps are attention probabilities, rows are queries; a stack is ``(layer, ..., query, key)``
with first layer first, and any batch axes between.

With a residual of 0.5 the mixed map has at least half its weight on the diagonal by construction, so the diagonal of a
rollout step says nothing about the model; how much a layer really mixes is measured at the end of this module.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from xai_utils import check

FUSIONS = ("mean", "max", "min")


def fuse(attention: Tensor, fusion: str = "mean", discard: float = 0.0, keep: int | None = None) -> Tensor:
    """Fuse the heads into one map.

    Args:
        attention: ``(layer, ..., head, query, key)`` probabilities.
        fusion: ``"mean"``, ``"max"`` or ``"min"`` over heads.
        discard: share of the entries of each fused map set to zero, smallest first, in [0, 1).
        keep: flat index of one entry that is never dropped (0 is [CLS] to [CLS], as vit-explain does).

    Returns:
        ``(layer, ..., query, key)``, not negative. Rows sum to 1 only for ``"mean"`` without discarding; for the
        rest call :func:`rollout` with ``rescale=True``.

    Differs from: vit-explain, which drops the entries of batch item 0 in every item.
    """
    check.one_of("fusion", fusion, FUSIONS)
    check.share("discard", discard, below=1)
    if attention.ndim < 4:
        raise ValueError(f"attention has shape {tuple(attention.shape)}, expected (layer, ..., head, query, key).")
    fused = _mean(attention) if fusion == "mean" else getattr(attention, "a" + fusion)(-3)
    if fusion != "mean" or not torch.isfinite(fused.detach().sum()):  # no mean hides NaN or infinity
        check.finite("attention", attention)
    return drop_smallest(fused, discard, keep)


def _mean(attention: Tensor) -> Tensor:
    """Average the heads by one product of matrices, which takes two thirds of the time of ``attention.mean(-3)``."""
    heads = attention.shape[-3]
    shares = torch.full((1, heads), 1 / heads, dtype=attention.dtype, device=attention.device)
    return (shares @ attention.flatten(-2)).view_as(attention.select(-3, 0))


def drop_smallest(maps: Tensor, share: float, keep: int | None = None) -> Tensor:
    """Set the ``int(share * size)`` smallest entries of each ``(query, key)`` map to zero, map by map."""
    if not share:
        return maps
    flat = maps.flatten(-2)
    lowest = flat.topk(int(share * flat.shape[-1]), dim=-1, largest=False).indices
    dropped = flat.scatter(-1, lowest, 0.0)
    if keep is not None:
        dropped[..., keep] = flat[..., keep]
    return dropped.view_as(maps)


def renormalise(maps: Tensor) -> Tensor:
    """Divide every row by its sum; an empty row becomes its own token (a one on the diagonal)."""
    sums = maps.sum(-1, keepdim=True)
    if not (sums == 0).any():
        return maps / sums
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    return torch.where(sums > 0, maps / sums.where(sums > 0, 1.0), identity)


def without_key(maps: Tensor, key: int) -> Tensor:
    """Let no position read one of them, and divide the rows anew; who read only that one becomes its own token.

    Args:
        maps: ``(layer, ..., query, key)``, not negative.
        key: position that is left out, such as an attention sink.

    Source: attention sinks, Xiao et al. (2023), arXiv:2309.17453.
    """
    check.index("key", key, maps.shape[-1])
    left = maps.clone()
    left[..., key] = 0
    return renormalise(left)


def rollout(maps: Tensor, residual: float = 0.5, rescale: bool = False) -> Tensor:
    r"""Follow attention from every depth back to the input tokens.

    Each layer is one step of a random walk that stays put with probability ``residual``:
    :math:`R_\ell = [(1-r) A_\ell + r I]\, R_{\ell-1}` with :math:`R_{-1} = I`.

    Args:
        maps: head-fused attention ``(layer, ..., query, key)``; rows sum to 1 (unless ``rescale``).
        residual: share ``r`` of the skip connection, in [0, 1]; dimensionless.
        rescale: accept any non-negative maps (max or min fusion, entries discarded, gradient weights) and divide
            the rows of each mixed map by their sums; the skip's share then depends on the weight of the row.

    Returns:
        ``(layer, ..., query, input)``. ``out[l, i, j]`` is the share of input token ``j`` in position ``i`` after
        layer ``l``; every row sums to 1.

    Source: Abnar & Zuidema (2020), arXiv:2005.00928, Eq. 1, where ``r`` is 0.5.
    Differs from: vit-explain, whose rescaling divides columns by row sums (no ``keepdim``).
    """
    return torch.stack(list(accumulate(mix(maps, residual, rescale), lambda below, step: step @ below)))


def rollout_row(maps: Tensor, query: int = 0, residual: float = 0.5, rescale: bool = False) -> Tensor:
    """Compute one row of the last layer of :func:`rollout`, ``(..., input)``, in O(layers x tokens²).

    Equal to ``rollout(maps, residual, rescale)[-1][..., query, :]``: the product is taken from the top, so that a
    vector and not a matrix is carried.
    """
    attending, staying = _weights(maps, residual, rescale)
    check.index("query", query, maps.shape[-1])
    row = torch.zeros_like(attending[0])
    row[..., query] = 1
    for layer in reversed(range(len(maps))):
        read = (row * attending[layer])[..., None, :] @ maps[layer]
        row = read.squeeze(-2) + row * staying[layer]
    check.finite("row", row)
    return row


def _weights(maps: Tensor, residual: float, rescale: bool) -> tuple[Tensor, Tensor]:
    """Return what attention and the skip count in each row of the mixed maps, ``(layer, ..., query)`` twice."""
    sums = _row_sums(maps, residual, rescale)
    if not rescale:
        return torch.full_like(sums, 1 - residual), torch.full_like(sums, residual)
    mixed = (1 - residual) * sums + residual
    divisor = mixed.where(mixed > 0, 1.0)
    return (1 - residual) / divisor, (residual / divisor).where(mixed > 0, 1.0)  # an empty row is its own token


def _row_sums(maps: Tensor, residual: float, rescale: bool) -> Tensor:
    """Check the arguments of :func:`rollout`; return the sums of the rows, which the check needs anyway."""
    check.square_stack("maps", maps)
    check.share("residual", residual)
    return (check.non_negative if rescale else check.row_stochastic)("maps", maps)


def mix(maps: Tensor, residual: float = 0.5, rescale: bool = False) -> Tensor:
    """Add the skip connection to a stack of maps; the arguments are those of :func:`rollout`."""
    _row_sums(maps, residual, rescale)
    mixed = (1 - residual) * maps
    mixed.diagonal(dim1=-2, dim2=-1).add_(residual)
    return renormalise(mixed) if rescale else mixed


def skip_share(maps: Tensor, residual: float = 0.5) -> Tensor:
    r"""Return what the skip connection counts in each row of the mixed maps once it is rescaled: the effective skip.

    A row that sums to :math:`s` has :math:`r / ((1 - r) s + r)`, so the share is ``residual`` only where rows sum to 1.
    Maps weighted by gradients sum to far less; there the skip is nearly all, whatever ``residual`` says. With
    ``residual`` 0.5 it is also the skip of :math:`I + \bar A`, which :func:`class_maps.compose` multiplies.

    Args:
        maps: ``(layer, ..., query, key)``, not negative.
        residual: share of the skip connection before rescaling, in [0, 1].

    Returns:
        ``(layer, ..., query)`` in [0, 1]; 1 for an empty row.
    """
    return _weights(maps, residual, rescale=True)[1]


def gradient_weighted(
    attention: Tensor, gradient: Tensor, discard: float = 0.0, keep: int | None = None, fusion: str = "mean"
) -> Tensor:
    """Weight each layer's attention by its own gradient: the product, fused over heads, positive part.

    Args:
        attention: ``(layer, ..., head, query, key)`` probabilities.
        gradient: derivative of one class score by ``attention``, same shape and same order of layers.
        discard: share of the smallest entries set to zero, in [0, 1).
        keep: flat index that is never dropped.
        fusion: of the heads' products, see :func:`fuse`; ``"mean"`` as published.

    Returns:
        ``(layer, ..., query, key)``, not negative, in units of the class score; for ``rollout(rescale=True)``.

    Raises:
        ValueError: the shapes differ, or nothing positive is left in some sample.

    Source: vit-explain's gradient rollout. Differs from it: there layer ``l`` meets the gradient of layer
        ``L - 1 - l`` (gradients arrive last layer first) and columns are rescaled in place of rows.
    """
    if attention.shape != gradient.shape:
        raise ValueError(f"attention is {tuple(attention.shape)} but its gradient {tuple(gradient.shape)}.")
    check.share("discard", discard, below=1)
    check.finite("attention", attention)
    check.finite("gradient", gradient)
    weighted = fuse(attention * gradient, fusion).clamp(min=0)
    if not weighted.amax((0, -1, -2)).all():
        raise ValueError("no attention entry has a positive gradient for this class: the map would be empty.")
    return drop_smallest(weighted, discard, keep)


def rank_collapse(rolled: Tensor) -> Tensor:
    """Return the ratio of the second to the first singular value of every map, ``(layer, ...)`` in [0, 1].

    0 means that all rows are equal: every position then tells the same story.
    """
    check.finite("rolled", rolled)
    values = torch.linalg.svdvals(rolled)
    return values[..., 1] / values[..., 0] if values.shape[-1] > 1 else torch.zeros_like(values[..., 0])


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

    Source: Kobayashi et al. (2021), arXiv:2109.07152, section 3. Differs from: there behind the layer normalisation,
        which is left out here.
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
