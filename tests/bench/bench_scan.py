"""Time the selective scan forward and backward against a loop over time that indexes each step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tests.bench.bench_capture import in_turn, row
from xai_utils.maths.selective_scan import selective_scan

CHANNELS, STATES, TOKENS = 384, 16, 197


def drawn(batch: int, channels: int, tokens: int) -> list[Tensor]:
    """Draw the arguments of a scan."""
    torch.manual_seed(0)
    u, delta = torch.randn(batch, channels, tokens), 0.1 * torch.rand(batch, channels, tokens)
    rates = -torch.arange(1.0, STATES + 1).expand(channels, -1).contiguous()
    return [u, delta, rates, torch.randn(batch, STATES, tokens), torch.randn(batch, STATES, tokens)]


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the recurrence as written, one index at a time; autograd does the rest."""
    decay = (delta[..., None] * A[None, :, None]).exp()
    drive = (delta * u)[..., None] * B.transpose(1, 2)[:, None]
    state, outputs = torch.zeros_like(decay[:, :, 0]), []
    for time in range(u.shape[2]):
        state = decay[:, :, time] * state + drive[:, :, time]
        outputs.append((state * C[:, None, :, time]).sum(-1))
    return torch.stack(outputs, 2)


def both_ways(scan: Callable[..., Tensor], given: list[Tensor]) -> Callable[[], Tensor]:
    """Return a run forward and backward."""
    leaves = [tensor.clone().requires_grad_() for tensor in given]

    def run() -> Tensor:
        return torch.autograd.grad(scan(*leaves).square().sum(), leaves)[0]

    return run


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Compare forward and backward together, and forward alone."""
    tokens = 64 if quick else TOKENS
    given, repeats = drawn(1, CHANNELS, tokens), 3 if quick else 5
    size, theirs = f"D={CHANNELS}, N={STATES}, L={tokens}", "loop that indexes each step"
    pair = {"selective_scan": selective_scan, theirs: loop}
    whole = in_turn({name: both_ways(scan, given) for name, scan in pair.items()}, repeats)
    with torch.no_grad():
        forward = in_turn({name: partial(scan, *given) for name, scan in pair.items()}, repeats)
    return [
        row(f"scan, {size}, forward + backward", "selective_scan", theirs, whole, target=0.2),
        row(f"scan, {size}, forward alone", "selective_scan", theirs, forward),
    ]
