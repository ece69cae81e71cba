"""The selective scan of Mamba with a backward pass of its own: linear in time, bounded in memory, stable.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t ,    y_t = sum over the states of C_t h_t

Time is cut into short chunks that stay in the processor's cache. The forward pass keeps one state a chunk; the backward
pass runs each chunk again and walks it in reverse. Every factor lies between 0 and 1: no product is ever divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_VALUES = 1 << 18  # values of one buffer, so that the buffers of a chunk fit into a cache of some megabytes
LONGEST_CHUNK = 64


@dataclass(frozen=True)
class Scan:
    """What one selective scan of a model was given: all that its hidden attention depends on.

    Tokens stand in the order of the input, also where the scan runs from the last token to the first. Mamba-2 has one
    decay a head: its ``A`` (head, 1) and ``delta`` (batch, head, token) come expanded over the channels of the head
    (views, without memory) to the shapes below, and ``B`` and ``C`` with one group for all heads.

    Attributes:
        u: input of the scan, after convolution and activation, ``(batch, channel, token)``.
        delta: step sizes after bias and softplus, same shape.
        A: decay rates below zero, ``(channel, state)``.
        B: input weights, ``(batch, state, token)``.
        C: output weights, ``(batch, state, token)``.
        D: weight of the skip of ``u`` to the output, ``(channel,)``.
        gate: what the gate holds before its SiLU, ``(batch, channel, token)``; ``None`` where there is none.
        layer: index of the block, from 0 at the input.
        backward: whether the scan runs from the last token to the first.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    gate: Tensor | None = None
    layer: int = 0
    backward: bool = False


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, backward: bool = False
) -> Tensor:
    """Run the scan over time; differentiable once in every argument.

    Args:
        u: input, ``(batch, channel, token)``, float32 or float64.
        delta: step sizes, at least 0, same shape and type.
        A: decay rates, at most 0, ``(channel, state)``.
        B: input weights, ``(batch, state, token)``.
        C: output weights, ``(batch, state, token)``.
        D: weight of the skip ``D u``, ``(channel,)``; no skip without.
        backward: run from the last token to the first.

    Returns:
        ``(batch, channel, token)``.

    Raises:
        TypeError: half precision, or several types.
        ValueError: shapes that do not belong together.

    Source: Gu & Dao (2023), arXiv:2312.00752, algorithm 2 (equations 1a, 1b and 4; B by Euler's rule, as in the code).
    Differs from: ``selective_scan_ref`` of mamba_ssm, whose loop indexes every step, so that each step's gradient is a
    tensor of full size: quadratic in time.
    """
    _check(u, delta, A, B, C, D)
    by_time = [tensor.permute(2, 0, 1) for tensor in (delta, delta * u, B, C)]  # no copies where time is slowest anyway
    by_time = [tensor.flip(0) if backward else tensor.contiguous() for tensor in by_time]
    output = _Scan.apply(by_time[0], by_time[1], A.T.contiguous(), *by_time[2:])
    output = (output.flip(0) if backward else output).permute(1, 2, 0)
    return output if D is None else output + D[:, None] * u


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> None:
    given = {"u": u, "delta": delta, "A": A, "B": B, "C": C} | ({} if D is None else {"D": D})
    types = {tensor.dtype for tensor in given.values()}
    if len(types) > 1 or not types <= {torch.float32, torch.float64}:
        kinds = ", ".join(f"{name} {str(tensor.dtype).removeprefix('torch.')}" for name, tensor in given.items())
        raise TypeError(f"a scan needs float32 or float64 throughout, got {kinds}. Products of decays die in half.")
    if u.ndim != 3 or A.ndim != 2 or 0 in u.shape:
        raise ValueError(
            f"u has shape {tuple(u.shape)} and A {tuple(A.shape)}; expected (batch, channel, token), nothing empty, "
            "and (channel, state). A single sequence needs u[None]."
        )
    (batch, channels, tokens), states = u.shape, A.shape[1]
    expected = {"delta": u.shape, "A": (channels, states), "B": (batch, states, tokens), "C": (batch, states, tokens)}
    for name, shape in {**expected, **({} if D is None else {"D": (channels,)})}.items():
        if tuple(given[name].shape) != tuple(shape):
            raise ValueError(
                f"{name} has shape {tuple(given[name].shape)}, expected {tuple(shape)} to go with u {tuple(u.shape)}, "
                f"(batch, channel, token), and A {tuple(A.shape)}, (channel, state)."
            )


class _Scan(torch.autograd.Function):
    """The recurrence on tensors with time first: delta and drive (t, b, d), A (n, d), B and C (t, b, n)."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        output, buffers = torch.empty_like(drive), _buffers(2, delta, A)
        starts = [delta.new_zeros(delta.shape[1], *A.shape)]
        for part in _chunks(len(delta), len(buffers[0])):
            _, states = _advance(starts[-1], delta[part], drive[part], A, B[part], *buffers)
            torch.matmul(C[part].unsqueeze(-2), states, out=output[part].unsqueeze(-2))
            starts.append(states[-1].clone())
        ctx.save_for_backward(delta, drive, A, B, C, torch.stack(starts[:-1]))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        delta, drive, A, B, C, starts = ctx.saved_tensors
        output = output.contiguous()
        grads = [torch.zeros_like(tensor) for tensor in (delta, drive, A, B, C)]
        decays, states, adjoints, products = _buffers(4, delta, A)
        carried = torch.zeros_like(starts[0])  # decay of the next chunk's first step times its adjoint
        needs = ctx.needs_input_grad
        for start, part in reversed(list(zip(starts, _chunks(len(delta), len(decays)), strict=True))):
            decay, state = _advance(start, delta[part], drive[part], A, B[part], decays, states)
            adjoint = _retreat(carried, decay, C[part], output[part], adjoints)
            torch.mul(decay[0], adjoint[0], out=carried)
            torch.matmul(B[part].unsqueeze(-2), adjoint, out=grads[1][part].unsqueeze(-2))
            if needs[4]:
                _over_channels(state, output[part], products, grads[4][part])
            if needs[3]:
                _over_channels(adjoint, drive[part], products, grads[3][part])
            if needs[0] or needs[2]:
                _grad_of_exponent(start, decay, state, adjoint)
                torch.sum(torch.mul(adjoint, A, out=state), -2, out=grads[0][part])
            if needs[2]:
                grads[2] += adjoint.mul_(delta[part].unsqueeze(-2)).sum((0, 1))
        return tuple(grads)


def _buffers(count: int, delta: Tensor, A: Tensor) -> list[Tensor]:
    """Return ``count`` empty buffers ``(chunk, batch, state, channel)``; the chunk is as long as the cache allows."""
    chunk = max(4, min(LONGEST_CHUNK, len(delta), CHUNK_VALUES // (delta.shape[1] * A.numel())))
    return [delta.new_empty(chunk, delta.shape[1], *A.shape) for _ in range(count)]


def _chunks(tokens: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def _advance(
    start: Tensor, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, decays: Tensor, states: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill the buffers with exp(delta A) and with the states of one chunk; return the parts filled."""
    decay, state = decays[: len(delta)], states[: len(delta)]
    torch.mul(delta.unsqueeze(-2), A, out=decay).exp_()
    torch.mul(drive.unsqueeze(-2), B.unsqueeze(-1), out=state)
    before = start
    for one_decay, one_state in zip(decay.unbind(), state.unbind(), strict=True):
        before = one_state.addcmul_(one_decay, before)
    return decay, state


def _retreat(carried: Tensor, decay: Tensor, C: Tensor, output: Tensor, adjoints: Tensor) -> Tensor:
    """Fill the buffer with the gradients at the states of one chunk, from the last step to the first."""
    adjoint = torch.mul(C.unsqueeze(-1), output.unsqueeze(-2), out=adjoints[: len(decay)])
    steps, factors = adjoint.unbind(), decay.unbind()
    steps[-1].add_(carried)
    for time in range(len(steps) - 2, -1, -1):
        steps[time].addcmul_(factors[time + 1], steps[time + 1])
    return adjoint


def _over_channels(values: Tensor, weights: Tensor, products: Tensor, out: Tensor) -> None:
    """Add up ``(t, b, n, d)`` times weights ``(t, b, d)`` over channels; a matrix product takes four times as long."""
    torch.sum(torch.mul(values, weights.unsqueeze(-2), out=products[: len(values)]), -1, out=out)


def _grad_of_exponent(start: Tensor, decay: Tensor, state: Tensor, adjoint: Tensor) -> None:
    """Turn the adjoints, in place, into gradients at the exponents delta A: adjoint times decay times state before."""
    adjoint.mul_(decay)
    adjoint[1:].mul_(state[:-1])
    adjoint[0].mul_(start)
