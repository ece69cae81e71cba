"""Products of decays for all pairs of positions of a scan: what is behind :mod:`hidden_attention`, tokens second.

A pair of positions is split at one point m between them: exp(A (S_i - S_m)) on the query's side, exp(A (S_m - S_j)) on
the key's. Both are at most 1, so a whole block of pairs is one matrix product and nothing is ever divided. Halving the
sequence again and again splits every pair exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ELEMENTS = 1 << 20  # of the largest temporary: 4 MB in float32, which stays in the processor's cache
_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {"positive": torch.relu_, "absolute": torch.abs_}


@dataclass(frozen=True)
class Terms:
    """One scan with what multiplies its rows and columns.

    Attributes:
        delta: ``(batch, token, channel)``; Mamba-2: ``(batch, token, head)``.
        A: ``(channel, state)``; Mamba-2: ``(head,)``.
        B: ``(batch, token, state)``; Mamba-2: ``(batch, group, token, state)``.
        C: as ``B``.
        rows: factor of every row, as ``delta``; Mamba-2: ``(batch, token, head, width)``.
        columns: factor of every column, likewise.
        skip: added to the diagonal before rows and columns are multiplied, ``(channel,)`` or ``(head,)``.
    """

    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    skip: Tensor | None = None


def matrix(terms: Terms, channels: str) -> Tensor:
    """Go through the channels in slices, so that no temporary grows with their number (see :mod:`hidden_attention`)."""
    batch, length, count = terms.delta.shape
    total = terms.delta.cumsum(1, dtype=torch.float64)  # the difference of two float32 sums would be off by 1e-5
    summed = channels == "mean"
    shared = terms.A.ndim == 1
    products = (terms.C @ terms.B.mT).repeat_interleave(count // terms.B.shape[1], 1) if shared else None
    shape = (batch, count, length, length) if channels == "all" else (batch, length, length)
    out = terms.delta.new_zeros(shape)
    for some in slices(count, batch * length * (max(length, 16) if shared or not summed else terms.A.shape[1])):
        if products is not None:
            found = _by_head(terms, total, products, some)
        else:
            found = _by_level(terms, total, some, summed)
        if channels == "all":
            out[:, some] = found
        else:
            found = _REDUCE.get(channels, lambda same: same)(found)
            out += found.sum(1) if found.ndim == 4 else found
    return out if channels == "all" else out.div_(count)


def slices(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` channels so that ``size`` elements for each stay within the bound."""
    step = max(1, ELEMENTS // size)
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def decay(since: Tensor, A: Tensor) -> Tensor:
    """Return ``exp(A since)``, ``(..., channel, state)``; ``since`` is rounded once, after the difference was taken."""
    return (since.to(A.dtype)[..., None] * A).exp_()


def _by_level(terms: Terms, total: Tensor, some: slice, summed: bool) -> Tensor:
    """Return ``(batch, channel, query, key)``, or ``(batch, query, key)`` summed: one matrix product per level."""
    rows = None if terms.rows is None else terms.rows[:, :, some]
    values = terms.delta[:, :, some]
    values = values if terms.columns is None else values * terms.columns[:, :, some]
    batch, length, count = values.shape
    padded = 1 << max(length - 1, 1).bit_length()
    out = values.new_zeros((batch, padded, padded) if summed else (batch, count, padded, padded))
    half = 1
    while half < length:
        _level(out, (total[:, :, some], values, terms.B, terms.C, rows), terms.A[some], half, summed)
        half *= 2
    here = values * (terms.B * terms.C).sum(-1, keepdim=True)
    if terms.skip is not None:
        here = here + terms.skip[some] * (1 if terms.columns is None else terms.columns[:, :, some])
    here = here if rows is None else here * rows
    diagonal = out.diagonal(dim1=-2, dim2=-1)[..., :length]
    diagonal.copy_(here.sum(-1) if summed else here.transpose(1, 2))
    return out[..., :length, :length]


def _level(out: Tensor, given: tuple[Tensor | None, ...], A: Tensor, half: int, summed: bool) -> None:
    """Fill in the pairs split in the middle of blocks of ``2 half`` tokens: the later half reads the earlier half."""
    assert given[0] is not None
    length = given[0].shape[1]
    blocks = -(-(length - half) // (2 * half))  # those whose later half has a token
    total, values, B, C, rows = (None if one is None else _blocks(one, blocks * 2 * half, half) for one in given)
    assert total is not None and values is not None and B is not None and C is not None
    middle = total[:, :, 0, -1:]
    reads = decay(total[:, :, 1] - middle, A).mul_(C[:, :, 1, :, None])
    if rows is not None:
        reads *= rows[:, :, 1, ..., None]
    writes = decay(middle - total[:, :, 0], A).mul_(B[:, :, 0, :, None]).mul_(values[:, :, 0, ..., None])
    if summed:
        found = reads.flatten(-2) @ writes.flatten(-2).mT  # (batch, block, query, key)
    else:
        found = (reads.transpose(2, 3) @ writes.permute(0, 1, 3, 4, 2)).transpose(1, 2)
    grid = out.unflatten(-2, (-1, 2, half)).unflatten(-1, (-1, 2, half))
    target = grid[..., :, 1, :, :, 0, :].diagonal(dim1=-4, dim2=-2)[..., :blocks]  # (..., query, key, block)
    target.copy_(found.movedim(-3, -1))


def _blocks(values: Tensor, needed: int, half: int) -> Tensor:
    """Cut the tokens into ``(block, 2, half)``; behind the end stand copies of the last, whose pairs are cropped."""
    missing = needed - values.shape[1]
    if missing > 0:
        values = torch.cat([values, values[:, -1:].expand(-1, missing, *values.shape[2:])], 1)
    return values[:, :needed].unflatten(1, (-1, 2, half))


def _by_head(terms: Terms, total: Tensor, products: Tensor, some: slice) -> Tensor:
    """Return ``(batch, head, query, key)`` of Mamba-2: one decay a head, so products of B and C come first."""
    sums = total[:, :, some].transpose(1, 2)
    since = (sums[..., :, None] - sums[..., None, :]).clamp_(min=0).to(terms.A.dtype)
    found = since.mul_(terms.A[some, None, None]).exp_().tril_().mul_(products[:, some])
    found *= terms.delta[:, :, some].transpose(1, 2)[..., None, :]
    if terms.skip is not None:
        found.diagonal(dim1=-2, dim2=-1).add_(terms.skip[some, None])
    factors = [None if one is None else one[:, :, some] for one in (terms.rows, terms.columns)]
    width = math.prod(next((one.shape[3:] for one in factors if one is not None), (1,)))
    if factors[0] is not None and factors[1] is not None:
        found *= torch.einsum("bihp,bjhp->bhij", *factors) / width
    elif factors[0] is not None:
        found *= factors[0].mean(-1).transpose(1, 2)[..., :, None]
    elif factors[1] is not None:
        found *= factors[1].mean(-1).transpose(1, 2)[..., None, :]
    return found
