"""Time the selective scan forward and backward against a loop over time that indexes each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from tests.bench.measure import DEVICE, Against, Row, in_turn, peak
from xai_utils.maths.selective_scan import selective_scan

CHANNELS, STATES, TOKENS = 384, 16, 197


def drawn(batch: int, channels: int, tokens: int) -> list[Tensor]:
    """Draw the arguments of a scan."""
    torch.manual_seed(0)
    u, delta = torch.randn(batch, channels, tokens), 0.1 * torch.rand(batch, channels, tokens)
    rates = -torch.arange(1.0, STATES + 1).expand(channels, -1).contiguous()
    drawn = [u, delta, rates, torch.randn(batch, STATES, tokens), torch.randn(batch, STATES, tokens)]
    return [tensor.to(DEVICE) for tensor in drawn]


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


def rows(quick: bool = False) -> Iterator[Row]:
    """Compare forward and backward together, and forward alone."""
    tokens = 64 if quick else TOKENS
    given, repeats = drawn(1, CHANNELS, tokens), 3 if quick else 5
    size, theirs = f"{CHANNELS} channels, {STATES} states, {tokens} tokens", "loop that indexes each step"
    works = {name: both_ways(scan, given) for name, scan in {"ours": selective_scan, "loop": loop}.items()}
    times = in_turn(works, repeats)
    against = Against(theirs, times["loop"], 0.2)
    yield Row(f"scan forward and backward, {size}", times["ours"], against, None, peak(works["ours"]))
    with torch.no_grad():
        times = in_turn({"ours": partial(selective_scan, *given), "loop": partial(loop, *given)}, repeats)
    yield Row(f"scan forward, {size}", times["ours"], Against(theirs, times["loop"]))
