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
from dataclasses import dataclass, replace

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
    total = delta[:, :, :end].cumsum(2, dtype=torch.float64)
    since = (total[:, :, -1:] - total).to(A.dtype)  # Δ summed from behind each key to the query
    row = torch.zeros_like(delta)
    read, decayed = row[:, :, :end], torch.empty_like(since)
    for state, both in zip(A.unbind(1), (B[:, :, :end] * C[:, :, end - 1 : end]).unbind(1), strict=True):
        read.addcmul_(torch.mul(since, state[:, None], out=decayed).exp_(), both[:, None])
    read *= delta[:, :, :end]
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
    """Put the surroundings around the scan."""
    terms = replace(terms, rows=_spread(around.gate, terms), skip=around.skip)
    if around.kernel is None:
        return matrix(terms, channels)
    taps = around.kernel.to(terms.delta.dtype)
    if terms.A.ndim == 2:
        return matrix(replace(terms, columns=_spread(around.slope, terms), taps=taps), channels)
    every = _heads_convolved(terms, taps, around.slope)
    return every if channels == "all" else _REDUCE[channels](every).mean(1)


def _heads_convolved(terms: Terms, taps: Tensor, slope: Tensor | None) -> Tensor:
    """Add up a map of every head for each tap: its channels share a decay, and each has a kernel of its own."""
    batch, length, _ = terms.delta.shape
    total: Tensor | None = None
    for lag, tap in enumerate(taps.flip(1).unbind(1)[:length]):
        weight = tap[:, None].expand(batch, -1, length) if slope is None else tap[:, None] * slope
        one = matrix(replace(terms, columns=_spread(weight, terms)), "all")
        total = torch.zeros_like(one) if total is None else total
        total[..., : length - lag] += one[..., lag:]
    assert total is not None
    return total


def _convolved(found: Tensor, taps: Tensor) -> Tensor:
    """Move the keys of ``(batch, channel, query, key)`` before the convolution, which hands each token on by taps."""
    weights = taps.flip(1)[:, :, None, None].unbind(1)[: found.shape[-1]]
    total = found * weights[0]
    for lag, weight in enumerate(weights[1:], 1):
        total[..., :-lag].addcmul_(found[..., lag:], weight)
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


Place = tuple[int, int, int, int]  # where pairs of blocks begin, how many they are, how long both halves are
ELEMENTS = 1 << 20  # of the largest temporary: 4 MB in float32, which stays in the processor's cache
_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda same: same,
    "positive": torch.relu_,
    "absolute": torch.abs_,
}


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
        taps: convolution behind the columns, ``(channel, tap)``; not of Mamba-2.
    """

    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    skip: Tensor | None = None
    taps: Tensor | None = None


def matrix(terms: Terms, channels: str) -> Tensor:
    """Go through the channels in slices, so that no temporary grows with their number (see :mod:`hidden_attention`)."""
    batch, length, count = terms.delta.shape
    total = terms.delta.cumsum(1, dtype=torch.float64)  # the difference of two float32 sums would be off by 1e-5
    per_head = terms.A.ndim == 1
    products = (terms.C @ terms.B.mT).repeat_interleave(count // terms.B.shape[1], 1) if per_head else None
    each = "all" if terms.taps is not None else channels  # the convolution of a channel needs its own map
    shape = (batch, count, length, length) if channels == "all" else (batch, length, length)
    out = terms.delta.new_zeros(shape)
    wide = {"mean": terms.B.shape[-1], "all": length}.get(each, length // 4)  # what is made of each channel and token
    for some in slices(count, batch * length * (length if per_head else max(wide, terms.B.shape[-1]))):
        if products is not None:
            found = _by_head(terms, total, products, some)
        else:
            found = _by_level(terms, total, some, each)
        found = found if terms.taps is None else _convolved(found, terms.taps[some])
        if channels == "all":
            out[:, some] = found
        else:
            out += _REDUCE[channels](found).sum(1)
    return out if channels == "all" else out.div_(count)


def slices(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` channels so that ``size`` elements for each stay within the bound."""
    step = max(1, ELEMENTS // size)
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def decay(since: Tensor, A: Tensor) -> Tensor:
    """Return ``exp(A since)``, ``(..., channel, state)``; ``since`` is rounded once, after the difference was taken."""
    return (since.to(A.dtype)[..., None] * A).exp_()


def _by_level(terms: Terms, total: Tensor, some: slice, channels: str) -> Tensor:
    """Return ``(batch, channel, query, key)`` of all channels, else ``(batch, 1, query, key)``, summed over them.

    Blocks of tokens are joined in pairs, level by level. A query is read from the beginning of its block, a key is
    written to its end; when blocks are joined, both decay by what the other half takes.
    """
    rows, columns = (None if one is None else one[:, :, some] for one in (terms.rows, terms.columns))
    ends, A = F.pad(total[:, :, some], (0, 0, 1, 0)), terms.A[some]  # sums before every token, and of all
    values = terms.delta[:, :, some] if columns is None else terms.delta[:, :, some] * columns
    reads, writes = decay(ends.diff(dim=1), A), values[..., None] * terms.B[:, :, None]
    here = _diagonal(terms, values, some, rows, columns).mT
    reads *= terms.C[:, :, None] if rows is None else terms.C[:, :, None] * rows[..., None]
    summed = channels == "mean"
    reads, writes = _wide(reads, summed), _wide(writes, summed)
    out = (here if channels == "all" else _REDUCE[channels](here).sum(1, keepdim=True)).diag_embed()
    half = 1
    while half < values.shape[1]:
        for place in _pairs(values.shape[1], half):
            _join(out, (reads, writes), place, channels)
            if sum(place[2:]) < values.shape[1]:  # else there is nothing left to join
                _carry((reads, writes), ends, A, place, summed)
        half *= 2
    return out


def _diagonal(
    terms: Terms, values: Tensor, some: slice, rows: Tensor | None, columns: Tensor | None
) -> Tensor:  # fmt: skip
    """Return what every token reads of itself, ``(batch, token, channel)``."""
    here = values * (terms.B * terms.C).sum(-1, keepdim=True)
    if terms.skip is not None:
        here += terms.skip[some] * (1 if columns is None else columns)
    return here if rows is None else here * rows


def _wide(values: Tensor, summed: bool) -> Tensor:
    """Turn ``(batch, block, channel, state)`` to ``(batch, 1, block, ...)``, or ``(batch, channel, block, state)``."""
    return values.flatten(2)[:, None] if summed else values.transpose(1, 2).contiguous()


def _pairs(length: int, half: int) -> Iterator[Place]:
    """Yield where pairs of blocks begin, how many they are, and how long both halves are: whole ones, then the rest."""
    whole = length // (2 * half)
    late = length - (2 * whole + 1) * half
    if whole:
        yield 0, whole, half, half
    if late > 0:
        yield 2 * half * whole, 1, half, late


def _halves(values: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """Return the earlier and the later halves of pairs, views ``(batch, channel, pair, token, state)``."""
    start, pairs, half, late = place
    both = values[:, :, start : start + pairs * (half + late)].unflatten(2, (pairs, half + late))
    return both[:, :, :, :half], both[:, :, :, half:]


def _join(out: Tensor, both: tuple[Tensor, Tensor], place: Place, channels: str) -> None:
    """Let the later half of every pair read what the earlier half wrote."""
    start, pairs, half, late = place
    (_, later), (earlier, _) = (_halves(one, place) for one in both)
    found = later @ earlier.mT
    if channels not in ("mean", "all"):
        found = _REDUCE[channels](found).sum(1, keepdim=True)
    own, cut = slice(start, start + pairs * (half + late)), (pairs, half + late)
    grid = out[..., own, own].unflatten(-2, cut).unflatten(-1, cut)[..., half:, :, :half]
    grid.diagonal(dim1=-4, dim2=-2).copy_(found.movedim(2, -1))  # (..., query, key, pair)


def _carry(both: tuple[Tensor, Tensor], ends: Tensor, A: Tensor, place: Place, summed: bool) -> None:
    """Let the later reads decay to the beginning of their pair, and the earlier writes to its end."""
    start, pairs, half, late = place
    (_, later), (earlier, _) = (_halves(one, place) for one in both)
    begin = torch.arange(start, start + pairs * (half + late), half + late, device=ends.device)
    before, middle, behind = (ends[:, begin + step] for step in (0, half, half + late))
    later *= _wide(decay(middle - before, A), summed)[:, :, :, None]
    earlier *= _wide(decay(behind - middle, A), summed)[:, :, :, None]


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
