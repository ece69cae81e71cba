"""Time hidden attention against loops over time: one row, and the channel mean of the whole matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tests.bench.measure import Against, Row, in_turn, peak
from xai_utils.maths import hidden_attention

CHANNELS, STATES, TOKENS, READER = 768, 16, 197, 98
ROW, MATRIX = 1 / 20, 1 / 8  # targets: of the loops' time


def published_row(delta: Tensor, A: Tensor, B: Tensor, C: Tensor, position: int) -> Tensor:
    """Multiply for every key the decays step by step, as the published program does (but without its missing step)."""
    decay = (delta[..., None] * A[:, None]).exp()
    drive = delta[..., None] * B.mT[:, None]
    out = torch.zeros_like(delta)
    for j in range(position + 1):
        left = torch.ones_like(decay[:, :, 0])
        for k in range(j + 1, position + 1):
            left = left * decay[:, :, k]
        out[:, :, j] = (C[:, None, :, position] * left * drive[:, :, j]).sum(-1)
    return out


def state_columns(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Carry, from query to query, what every channel's state holds of every earlier token: ``(batch, query, key)``."""
    batch, channels, tokens = delta.shape
    left = torch.zeros(batch, channels, A.shape[1], tokens)
    out = torch.zeros(batch, tokens, tokens)
    for i in range(tokens):
        step = delta[:, :, i, None]
        left[..., :i] *= (step * A).exp()[..., None]
        left[..., i] = step * B[:, None, :, i]
        out[:, i] = (C[:, None, :, i, None] * left).sum(2).mean(1)
    return out


def tuned_columns(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Do the same with the token first in memory and only as far as it has come: the best loop we know."""
    batch, channels, tokens = delta.shape
    left = torch.zeros(batch, tokens, channels, A.shape[1])
    out = torch.zeros(batch, tokens, tokens)
    for i in range(tokens):
        step = delta[:, :, i, None]
        left[:, :i] *= (step * A).exp()[:, None]
        left[:, i] = step * B[:, None, :, i]
        out[:, i, : i + 1] = torch.einsum("bjdn,bn->bj", left[:, : i + 1], C[:, :, i]) / channels
    return out


def rows(quick: bool = False) -> Iterator[Row]:
    """Compare both with loops."""
    tokens, repeats = (64, 1) if quick else (TOKENS, 3)
    noise = torch.Generator().manual_seed(0)
    delta = 0.1 * torch.rand(1, CHANNELS, tokens, generator=noise)
    A = -torch.arange(1.0, STATES + 1).expand(CHANNELS, -1).contiguous()
    B, C = (torch.randn(1, STATES, tokens, generator=noise) for _ in range(2))
    given, reader = (delta, A, B, C), tokens // 2
    case = f"hidden attention, {CHANNELS} channels, {STATES} states, {tokens} tokens"
    one = {
        "ours": lambda: hidden_attention.hidden_row(*given, reader),
        "loop": lambda: published_row(*given, reader),
    }
    times = in_turn(one, repeats)
    steps = Against("step by step for every key, as published", times["loop"], ROW)
    yield Row(f"{case}: one row", times["ours"], steps, None, peak(one["ours"]))
    whole = {
        "ours": lambda: hidden_attention.hidden_attention(*given),
        "columns": lambda: state_columns(*given),
        "tuned": lambda: tuned_columns(*given),
    }
    times = in_turn(whole, repeats)
    columns = Against("state columns, loop over time", times["columns"], MATRIX)
    yield Row(f"{case}: mean matrix", times["ours"], columns, None, peak(whole["ours"]))
    yield Row(f"{case}: mean matrix", times["ours"], Against("the same loop, tuned", times["tuned"]))
