"""Record the selective scans of Mamba, Mamba-2 and Vision Mamba while they run, and leave no trace.

transformers' mixers call ``in_proj``, ``x_proj`` and ``out_proj`` as modules, but use the weights of ``conv1d`` and
``dt_proj`` directly, so that hooks on those two never fire. What goes into ``x_proj`` is the input of the scan, and what
comes out is its low-rank step, B and C; what comes out of ``in_proj`` is the input of the convolution and the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.capture import start_gradients
from xai_utils.scan import Scan


@dataclass
class ScanTrace:
    """What the latest forward pass left behind.

    Attributes:
        scans: of every layer, in the order they ran; two a layer in Vision Mamba. Detached from the graph.
        stream: what enters every block and what leaves the last, ``(batch, token, width)``, attached to the graph.
        mask: ``(batch, token)`` bool, true where a token is real; ``None`` if the model was given no mask.
        kernels: per scan, the weight of the convolution before it, ``(channel, tap)``.
        slopes: per scan, the activation behind the convolution as a scale, ``(batch, channel, token)``: SiLU(c)/c.
    """

    scans: list[Scan] = field(default_factory=list)
    stream: list[Tensor] = field(default_factory=list)
    mask: Tensor | None = None
    kernels: list[Tensor] = field(default_factory=list)
    slopes: list[Tensor] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the pass before."""
        for kept in (self.scans, self.stream, self.kernels, self.slopes):
            kept.clear()
        self.mask = None

    def by_layer(self) -> list[list[int]]:
        """Return the places in :attr:`scans` of each layer's scans (one, or one each way); ``RuntimeError`` if none ran."""
        if not self.scans:
            raise RuntimeError("no scan was captured yet: run the model inside the with-block first.")
        layers = sorted({scan.layer for scan in self.scans})
        return [[i for i, scan in enumerate(self.scans) if scan.layer == layer] for layer in layers]

    def stream_grad(self) -> Tensor:
        """Return the gradient of what was back-propagated behind every block, ``(layer, batch, token, width)``.

        Raises:
            RuntimeError: nothing was back-propagated inside the with-block, or gradients were switched off.
        """
        if not self.stream:
            raise RuntimeError("no scan was captured yet: run the model inside the with-block first.")
        if any(one.grad is None for one in self.stream):
            raise RuntimeError("no gradient yet: run with gradients and call score.backward() inside the with-block.")
        return torch.stack([one.grad for one in self.stream[1:] if one.grad is not None])

    def memory(self) -> int:
        """Return the bytes held by the recorded tensors."""
        held = [t for scan in self.scans for t in (scan.u, scan.delta, scan.B, scan.C, scan.gate) if t is not None]
        return sum(t.nbytes for t in (*held, *self.stream, *self.slopes))


@contextmanager
def capture_scans(model: nn.Module) -> Iterator[ScanTrace]:
    """Record every selective scan of each forward pass inside the block; the logits stay as they are.

    Args:
        model: a Mamba or Mamba-2 of transformers, or a :class:`vim.Vim`, in evaluation mode, frozen or not.

    Yields:
        The :class:`ScanTrace`; it is emptied at the start of every forward pass.

    Raises:
        ValueError: training mode, or a pass that goes on from a cache, whose earlier tokens the map could not show.
        TypeError: the model has no selective scan.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first.")
    mixers = _mixers(model)
    trace = ScanTrace()
    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(_begin(trace), with_kwargs=True).remove)
        start_gradients(model, undo)
        for layer, (name, mixer) in enumerate(mixers):
            _KINDS[type(mixer).__name__](trace, mixer, layer, undo)
            block = model.get_submodule(name.rpartition(".")[0])
            undo.callback(block.register_forward_pre_hook(_enter(trace), with_kwargs=True).remove)
            if layer == len(mixers) - 1:
                undo.callback(block.register_forward_hook(lambda _m, _a, out: _keep(trace, out)).remove)
        yield trace


def _mixers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the mixers in the order they run, of one kind."""
    found = [(name, module) for name, module in model.named_modules() if type(module).__name__ in _KINDS]
    if not found:
        raise TypeError(
            f"{type(model).__name__} has no selective scan that can be seen: Mamba and Mamba-2 of transformers, and "
            "Vision Mamba (vim.Vim) are covered. For transformers capture their attention."
        )
    return found


def _begin(trace: ScanTrace) -> Callable[..., None]:
    def begin(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        trace.clear()
        if kwargs.get("cache_params") is not None:
            raise ValueError("this pass goes on from a cache, so earlier tokens cannot be seen; run the whole text.")
        mask = kwargs.get("attention_mask")
        trace.mask = None if mask is None else mask.bool()

    return begin


def _enter(trace: ScanTrace) -> Callable[..., None]:
    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _keep(trace, args[0] if args else kwargs["hidden_states"])

    return enter


def _keep(trace: ScanTrace, state: Any) -> None:
    state = state[0] if isinstance(state, tuple) else state
    if state.requires_grad:
        state.retain_grad()
    trace.stream.append(state)


def _open_mamba(trace: ScanTrace, mixer: Any, layer: int, undo: ExitStack) -> None:
    """Hook ``in_proj`` for convolution and gate, then ``x_proj`` for the rest, which runs after it."""
    gate: list[Tensor] = []

    def projected(_module: nn.Module, _args: Any, output: Tensor) -> None:
        x, z = output.detach().mT.chunk(2, 1)
        gate[:] = [z]
        _convolution(trace, mixer, _masked(trace, x))

    def split(_module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        states = mixer.ssm_state_size
        low, B, C = output.detach().mT.split([mixer.time_step_rank, states, states], 1)
        bias = mixer.dt_proj.bias
        step = mixer.dt_proj.weight.detach() @ low
        delta = F.softplus(step.float() if bias is None else step + bias.detach().float()[:, None])
        A = -mixer.A_log.detach().float().exp()
        u = args[0].detach().mT
        trace.scans.append(Scan(u, delta.to(u.dtype), _like(A, u), B, C, mixer.D.detach(), gate.pop(), layer))

    undo.callback(mixer.in_proj.register_forward_hook(projected).remove)
    undo.callback(mixer.x_proj.register_forward_hook(split).remove)


def _open_mamba2(trace: ScanTrace, mixer: Any, layer: int, undo: ExitStack) -> None:
    """Hook ``in_proj``, which gives everything but the convolution; that is computed again."""
    inner, states, groups = mixer.intermediate_size, mixer.ssm_state_size, mixer.n_groups

    def projected(_module: nn.Module, _args: Any, output: Tensor) -> None:
        gate, mixed, step = output.detach().mT.split([inner, mixer.conv_dim, mixer.num_heads], 1)
        convolved = _masked(trace, F.silu(_convolved(mixer, mixed)))
        u, B, C = convolved.split([inner, groups * states, groups * states], 1)
        B, C = (one.unflatten(1, (groups, states)) for one in (B, C))
        delta = F.softplus(step + mixer.dt_bias.detach()[:, None]).clamp(*mixer.time_step_limit)
        A = -mixer.A_log.detach().float().exp()
        _convolution(trace, mixer, mixed, inner)
        trace.scans.append(Scan(u, delta, _like(A, u), B, C, mixer.D.detach(), gate, layer))

    undo.callback(mixer.in_proj.register_forward_hook(projected).remove)


def _open_vim(trace: ScanTrace, mixer: Any, _layer: int, undo: ExitStack) -> None:
    """Hook the scans, modules of their own that are called with a :class:`Scan`, and the convolutions."""
    for mark in ("", "_b"):

        def kept(_module: nn.Module, args: tuple[Scan]) -> None:
            one = args[0]
            given = {name: value.detach() for name, value in vars(one).items() if isinstance(value, Tensor)}
            trace.scans.append(Scan(**{**vars(one), **given}))

        def activated(_module: nn.Module, args: tuple[Tensor], own: nn.Conv1d = getattr(mixer, f"conv1d{mark}")) -> None:
            trace.kernels.append(own.weight.detach()[:, 0])
            trace.slopes.append(args[0].detach().sigmoid())

        undo.callback(getattr(mixer, f"scan{mark}").register_forward_pre_hook(kept).remove)
        undo.callback(getattr(mixer, f"act{mark}").register_forward_pre_hook(activated).remove)


def _convolution(trace: ScanTrace, mixer: Any, x: Tensor, channels: int | None = None) -> None:
    """Keep the convolution's weight and the slope of the activation behind it, of the first ``channels``."""
    trace.kernels.append(mixer.conv1d.weight.detach()[:channels, 0])
    trace.slopes.append(_convolved(mixer, x)[:, :channels].sigmoid())


def _convolved(mixer: Any, x: Tensor) -> Tensor:
    own = mixer.conv1d
    bias = None if own.bias is None else own.bias.detach()
    padded = F.conv1d(x, own.weight.detach(), bias, padding=own.padding[0], groups=own.groups)
    return padded[..., : x.shape[-1]]


def _masked(trace: ScanTrace, x: Tensor) -> Tensor:
    return x if trace.mask is None else x * trace.mask[:, None]


def _like(A: Tensor, u: Tensor) -> Tensor:
    return A.to(u.dtype)


_KINDS: dict[str, Callable[[ScanTrace, Any, int, ExitStack], None]] = {
    "MambaMixer": _open_mamba,
    "Mamba2Mixer": _open_mamba2,
    "Mixer": _open_vim,
}
