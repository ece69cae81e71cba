r"""A selective state-space layer read as attention: exact, stable, and never larger than asked for.

A selective scan (Mamba) keeps for every channel a state :math:`h_t = e^{\Delta_t A} h_{t-1} + \Delta_t B_t x_t` and
gives :math:`y_t = C_t \cdot h_t`. Written out, :math:`y = \alpha x` with the lower triangular *hidden attention*

.. math:: \alpha_{ij} = \sum_n C_{in}\, e^{A_n (S_i - S_j)}\, \Delta_j B_{jn}, \quad S_i = \sum_{k \le i} \Delta_k .

Source: Ali, Zimerman & Wolf (2024), arXiv:2403.01590, Eq. 11; with gate, skip and convolution: Zimerman, Ali & Wolf
(2024), arXiv:2405.16504. Mamba-2 (one decay per head): Dao & Gu (2024), arXiv:2405.21060.
Differs from: the authors' code, which multiplies decays step by step, keeps every channel and returns half precision;
ratios of cumulative products, which are 0/0 after a strong decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_utils import check
from xai_utils.maths import hidden_pairs
from xai_utils.maths.hidden_pairs import Terms
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
    for some in hidden_pairs.slices(delta.shape[1], 8 * len(delta) * end * A.shape[1]):  # 512 KB: fastest for one row
        read = (hidden_pairs.decay(since[:, :, some], A[some]) @ both)[..., 0]
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
        return hidden_pairs.matrix(terms, channels)
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
        one = hidden_pairs.matrix(Terms(terms.delta, terms.A, terms.B, terms.C, rows, columns, around.skip), channels)
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
