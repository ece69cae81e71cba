r"""A selective state-space layer read as attention: exact, stable, and never larger than asked for.

A selective scan (Mamba) keeps for every channel a state :math:`h_t = e^{\Delta_t A} h_{t-1} + \Delta_t B_t x_t` and
gives :math:`y_t = C_t \cdot h_t`. Written out, :math:`y = \alpha x` with the lower triangular *hidden attention*

.. math:: \alpha_{ij} = \sum_n C_{in}\, e^{A_n (S_i - S_j)}\, \Delta_j B_{jn}, \quad S_i = \sum_{k \le i} \Delta_k .

Source: Ali, Zimerman & Wolf (2024), arXiv:2403.01590, Eq. 11; with gate, skip and convolution: Zimerman, Ali & Wolf
(2024), arXiv:2405.16504. Mamba-2 (one decay per head): Dao & Gu (2024), arXiv:2405.21060.
Differs from: the authors' code, which multiplies decays step by step, keeps every channel and returns half precision;
ratios of cumulative products, which are 0/0 after a strong decay.

Pairs of positions are split at one point m between them: exp(A (S_i - S_m)) on the query's side, exp(A (S_m - S_j)) on
the key's. Both are at most 1, so a whole block of pairs is one matrix product and nothing is ever divided. Halving the
sequence again and again splits every pair exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_utils import check
from xai_utils.maths.selective_scan import Scan

CHANNELS = ("mean", "positive", "absolute", "all")


@dataclass(frozen=True)
class Around:
    """What surrounds a scan inside its block, to be folded into the hidden attention.

    Attributes:
        skip: weight D of the scan's own input, ``(channel,)``; Mamba-2: ``(head,)``.
        gate: what the output is multiplied by, SiLU(z) and not z, ``(batch, channel, token)``.
        kernel: the causal convolution before the scan, ``(channel, tap)``; its last tap reads the present token. The
            map then reads the tokens before the convolution, whose bias is no token's and is left out.
        slope: the activation behind the convolution as a scale, SiLU(c)/c, ``(batch, channel, token)``.
    """

    skip: Tensor | None = None
    gate: Tensor | None = None
    kernel: Tensor | None = None
    slope: Tensor | None = None


@torch.no_grad()
def hidden_attention(
    delta: Tensor, A: Tensor, B: Tensor, C: Tensor, channels: str = "mean", around: Around | None = None,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the hidden attention of one scan, without graph.

    Args:
        delta: step sizes after softplus, ``(batch, channel, token)``; Mamba-2: ``(batch, head, token)``.
        A: negative decay rates ``(channel, state)``; Mamba-2: one per head, ``(head,)``.
        B: input weights ``(batch, state, token)``; Mamba-2: ``(batch, group, state, token)``.
        C: output weights, as ``B``.
        channels: ``"mean"`` over channels (heads); of their ``"positive"`` parts or ``"absolute"`` values; or
            ``"all"``, which alone needs memory for tokens² x channels.
        around: skip, gate and convolution to fold in; default the bare scan.
        mask: ``(batch, token)``, true where a token is real; padding neither reads nor is read.

    Returns:
        ``(batch, query, key)``, or ``(batch, channel, query, key)`` for ``"all"``: signed (but for ``"positive"`` and
        ``"absolute"``), zero above the diagonal, rows without fixed sum. Half precision is computed and returned in
        float32.

    Raises:
        ValueError: shapes that do not agree, negative steps (softplus forgotten), positive decay rates (the sign of
            -exp(A_log) forgotten), NaN, an unknown ``channels``.
    """
    check.one_of("channels", channels, CHANNELS)
    delta, A, B, C = _accepted(delta, A, B, C)
    around = around or Around()
    found = _folded(Terms(delta.mT, A, B.mT, C.mT, None, None, around.skip), channels, around)
    return found if mask is None else _masked(found, mask)


@torch.no_grad()
def hidden_row(delta: Tensor, A: Tensor, B: Tensor, C: Tensor, position: int) -> Tensor:
    """Return one row of every channel's hidden attention, ``(batch, channel, key)``: what ``position`` reads.

    Costs a token's share of the matrix. Arguments and errors as in :func:`hidden_attention`; of Mamba-2 take the
    matrix, which is cheap.
    """
    delta, A, B, C = _accepted(delta, A, B, C)
    if A.ndim != 2:
        raise ValueError("a single row is for Mamba-1; of Mamba-2 take hidden_attention, which is cheap.")
    check.index("position", position, delta.shape[2])
    end = position % delta.shape[2] + 1
    steps = delta[:, :, :end].mT.contiguous()
    total = steps.cumsum(1, dtype=torch.float64)
    since = total[:, -1:] - total  # Δ summed from behind each key to the query
    both = (B[:, :, :end] * C[:, :, end - 1 : end]).mT[..., None]
    row = torch.zeros_like(delta)
    for some in slices(delta.shape[1], 8 * len(delta) * end * A.shape[1]):  # 512 KB: fastest for one row
        read = (decay(since[:, :, some], A[some]) @ both)[..., 0]
        row[:, some, :end] = read.mul_(steps[:, :, some]).mT
    return row


def of_scan(
    scan: Scan, channels: str = "mean", folded: bool = False, kernel: Tensor | None = None,
    slope: Tensor | None = None, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the hidden attention of a captured scan; one from the last token to the first reads later tokens.

    Args:
        scan: from :mod:`scans` or :mod:`vim`.
        channels: see :func:`hidden_attention`.
        folded: whether skip and gate are folded in.
        kernel: convolution to fold in, see :class:`Around`.
        slope: of the activation behind it.
        mask: ``(batch, token)``, true where a token is real.
    """
    given = (scan.delta, scan.B, scan.C, scan.gate if folded else None, slope)
    delta, B, C, gate, slope = (one.flip(-1) if scan.backward and one is not None else one for one in given)
    around = Around(scan.D if folded else None, None if gate is None else F.silu(gate), kernel, slope)
    assert delta is not None and B is not None and C is not None
    mask = mask.flip(-1) if scan.backward and mask is not None else mask
    found = hidden_attention(delta, scan.A, B, C, channels, around, mask)
    return found.flip(-1, -2) if scan.backward else found


def half_life(delta: Tensor, A: Tensor) -> Tensor:
    """Return after how many tokens half of a state is left, ``(batch, channel, state)``; Mamba-2 ``(batch, head)``.

    From the mean step over the tokens: ``ln 2 / (-A mean Δ)``. A state that never decays gives infinity.
    """
    mean = delta.mean(-1)
    return math.log(2) / (mean[..., None] * A if A.ndim == 2 else mean * A).abs()


def _folded(terms: Terms, channels: str, around: Around) -> Tensor:
    """Put the surroundings around the scan: a convolution is one weighted map per tap, moved by the tap's lag."""
    rows = _spread(around.gate, terms)
    terms = Terms(terms.delta, terms.A, terms.B, terms.C, rows, None, around.skip)
    if around.kernel is None:
        return matrix(terms, channels)
    if channels in ("positive", "absolute"):
        raise ValueError(
            f"channels={channels!r} with a convolution needs the sum over its taps; reduce 'all' yourself."
        )
    batch, length, _ = terms.delta.shape
    slope = around.slope
    total: Tensor | None = None
    for lag, tap in enumerate(around.kernel.to(terms.delta.dtype).flip(1).unbind(1)[:length]):
        weight = tap[:, None].expand(batch, -1, length) if slope is None else tap[:, None] * slope
        columns = _spread(weight, terms)
        one = matrix(Terms(terms.delta, terms.A, terms.B, terms.C, rows, columns, around.skip), channels)
        total = torch.zeros_like(one) if total is None else total
        total[..., : length - lag] += one[..., lag:]
    assert total is not None
    return total


def _spread(values: Tensor | None, terms: Terms) -> Tensor | None:
    """Bring ``(batch, channel, token)`` to the axes of the terms; the channels of a head get an axis of their own."""
    if values is None:
        return None
    heads = terms.delta.shape[2]
    wanted = (terms.delta.shape[0], terms.delta.shape[1])
    if values.ndim != 3 or (values.shape[0], values.shape[2]) != wanted or values.shape[1] % heads:
        raise ValueError(
            f"a gate or slope has shape {tuple(values.shape)}; expected (batch, channel, token) for a scan of "
            f"{wanted[0]} samples, {heads} channels or heads and {wanted[1]} tokens."
        )
    values = values.mT.to(terms.delta.dtype)
    return values if terms.A.ndim == 2 else values.unflatten(2, (heads, -1))


def _masked(found: Tensor, mask: Tensor) -> Tensor:
    if mask.shape != (found.shape[0], found.shape[-1]):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected (batch, token) {(len(found), found.shape[-1])}."
        )
    real = mask.to(found.dtype)
    real = real if found.ndim == 3 else real[:, None]
    return found * real[..., :, None] * real[..., None, :]


def _accepted(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """Check one scan; return it in one precision, float32 or above."""
    given = {"delta": delta, "A": A, "B": B, "C": C}
    if delta.ndim != 3 or A.ndim not in (1, 2) or 0 in delta.shape:
        raise ValueError(
            f"delta has shape {tuple(delta.shape)} and A {tuple(A.shape)}; expected (batch, channel, token), nothing "
            "empty, and (channel, state), or (head,) for Mamba-2. A single sequence needs delta[None]."
        )
    batch, channels, tokens = delta.shape
    if A.ndim == 2:
        inner = (batch, A.shape[1], tokens)
    else:
        inner = (batch, *B.shape[1:3], tokens) if B.ndim == 4 and not channels % B.shape[1] else (batch, 1, -1, tokens)
    for name, shape in {"A": (channels, *A.shape[1:]), "B": inner, "C": inner}.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(given[name].shape)}; expected {shape} to go with delta {tuple(delta.shape)}."
            )
    for name, values in given.items():
        check.finite(name, values)
    if delta.min() < 0:
        raise ValueError(
            f"delta goes down to {float(delta.min()):.2g}; steps are positive: apply bias and softplus first."
        )
    if A.max() > 0:
        raise ValueError(f"A goes up to {float(A.max()):.2g}; decay rates are negative: pass -exp(A_log), not A_log.")
    precision = torch.float64 if any(one.dtype == torch.float64 for one in given.values()) else torch.float32
    return tuple(one.detach().to(precision) for one in given.values())


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
