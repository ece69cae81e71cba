"""Record the selective scans of Mamba, Mamba-2 and Vision Mamba while they run, and leave no trace.

transformers' mixers call ``in_proj``, ``x_proj`` and ``out_proj`` as modules, but use the weights of ``conv1d`` and
``dt_proj`` directly, so that hooks on those two never fire. What goes into ``x_proj`` is the input of the scan; what
comes out is its low-rank step, B and C. What comes out of ``in_proj`` is the input of the convolution and the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.capture.attention import gradient_of, start_gradients, with_gradient
from xai_utils.maths.selective_scan import Scan
from xai_utils.models.vim import ScanStep, Vim


@dataclass
class VimTrace:
    """What the latest forward pass left behind, attached to the graph; tokens in the order of the model.

    Attributes:
        scans: per layer both scans, forward before backward.
        outputs: per layer what both scan steps returned, gate included, ``(batch, channel, token)``.
        streams: tokens entering the first block and leaving every block, ``(batch, token, width)``.
        class_position: where the class token stands.
    """

    scans: list[tuple[Scan, ...]] = field(default_factory=list)
    outputs: list[tuple[Tensor, ...]] = field(default_factory=list)
    streams: list[Tensor] = field(default_factory=list)
    class_position: int = 0

    def scan_gradients(self) -> list[tuple[Tensor, ...]]:
        """Return the gradient at the bare output of every scan, before its gate, paired with :attr:`scans`.

        Raises:
            RuntimeError: nothing was back-propagated, or gradients were switched off.
        """
        return [
            tuple(_before_gate(gradient_of(output), scan) for output, scan in zip(*pair, strict=True))
            for pair in zip(self.outputs, self.scans, strict=True)
        ]

    def stream_gradient(self, place: int) -> Tensor:
        """Return the gradient at ``streams[place]``; same errors."""
        if not self.streams:
            raise RuntimeError("nothing was captured yet: run the model inside the with-block first.")
        return gradient_of(self.streams[place])


@dataclass
class ScanTrace(VimTrace):
    """What the latest forward pass left behind, attached to the graph; one scan a layer.

    Attributes:
        mask: ``(batch, token)`` bool, true where a token is real; ``None`` if the model was given no mask.
        kernels: per layer, the weight of the convolution before the scan, ``(channel, tap)``.
        slopes: per layer, the activation behind the convolution as a scale, SiLU(c)/c, ``(batch, channel, token)``.
        gated: whether :attr:`outputs` come behind the gate (Mamba; not Mamba-2, whose norm has the gate inside).
    """

    mask: Tensor | None = None
    kernels: list[Tensor] = field(default_factory=list)
    slopes: list[Tensor] = field(default_factory=list)
    gated: bool = True

    def scan_gradients(self) -> list[tuple[Tensor, ...]]:
        """Return the gradient at the bare output of every scan; see :class:`scans.VimTrace`."""
        if self.gated:
            return super().scan_gradients()
        bare = replace(self, scans=[tuple(replace(scan, gate=None) for scan in scans) for scans in self.scans])
        return VimTrace.scan_gradients(bare)

    def clear(self) -> None:
        """Forget the pass before."""
        for one in (self.scans, self.outputs, self.streams, self.kernels, self.slopes):
            one.clear()
        self.mask = None

    def memory(self) -> int:
        """Return the bytes held by the recorded tensors, gradients not counted."""
        scans = [t for (scan,) in self.scans for t in (scan.u, scan.delta, scan.B, scan.C, scan.gate) if t is not None]
        outputs = [t for pair in self.outputs for t in pair]
        return sum(t.nbytes for t in (*scans, *outputs, *self.streams, *self.slopes))


@contextmanager
def capture_scans(model: nn.Module) -> Iterator[VimTrace]:
    """Record every selective scan of each forward pass inside the block; the logits stay as they are.

    Args:
        model: a Mamba or Mamba-2 of transformers, or a :class:`vim.Vim`, in evaluation mode, frozen or not.

    Yields:
        A :class:`ScanTrace`, or of Vision Mamba a :class:`scans.VimTrace`.

    Raises:
        ValueError: training mode, half precision, or a pass that goes on from a cache, whose earlier tokens the map
            could not show.
        TypeError: the model has no selective scan.
    """
    if isinstance(model, Vim):
        with capture_vim(model) as trace:
            yield trace
        return
    mixers = _mixers(model)
    _ready(model)
    trace = ScanTrace(gated=type(mixers[0][1]).__name__ == "MambaMixer")
    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(_begin(trace), with_kwargs=True).remove)
        start_gradients(model, undo)
        for layer, (name, mixer) in enumerate(mixers):
            _KINDS[type(mixer).__name__](trace, mixer, layer, undo)
            block = model.get_submodule(name.rpartition(".")[0])
            undo.callback(block.register_forward_pre_hook(_enter(trace), with_kwargs=True).remove)
            if layer == len(mixers) - 1:
                undo.callback(block.register_forward_hook(lambda _m, _a, out: _stream(trace, out)).remove)
        yield trace


def scanning(model: nn.Module) -> bool:
    """Tell whether a model has selective scans that :func:`capture_scans` can see."""
    return isinstance(model, Vim) or any(type(module).__name__ in _KINDS for module in model.modules())


def _ready(model: nn.Module) -> None:
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first.")
    if (kind := next(model.parameters()).dtype) not in (torch.float32, torch.float64):
        raise ValueError(f"the model is in {kind}; hidden attention needs float32: call model.float().")


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
        _stream(trace, args[0] if args else kwargs["hidden_states"])

    return enter


def _stream(trace: VimTrace, state: Any) -> None:
    trace.streams.append(with_gradient(state[0] if isinstance(state, tuple) else state))


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
        given = delta.to(u.dtype), A.to(u.dtype), B, C, mixer.D.detach(), gate.pop()
        trace.scans.append((Scan(u, *given, layer),))

    undo.callback(mixer.in_proj.register_forward_hook(projected).remove)
    undo.callback(mixer.x_proj.register_forward_hook(split).remove)
    undo.callback(mixer.out_proj.register_forward_pre_hook(_result(trace)).remove)


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
        trace.scans.append((Scan(u, delta, A.to(u.dtype), B, C, mixer.D.detach(), gate, layer),))

    undo.callback(mixer.in_proj.register_forward_hook(projected).remove)
    undo.callback(mixer.norm.register_forward_pre_hook(_result(trace)).remove)


def _result(trace: ScanTrace) -> Callable[..., tuple[Tensor, ...]]:
    def read(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output = with_gradient(args[0].mT)  # (batch, channel, token), on the way to the result
        trace.outputs.append((output,))
        return (output.mT, *args[1:])

    return read


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


_KINDS: dict[str, Callable[[ScanTrace, Any, int, ExitStack], None]] = {
    "MambaMixer": _open_mamba,
    "Mamba2Mixer": _open_mamba2,
}


@contextmanager
def capture_vim(model: nn.Module) -> Iterator[VimTrace]:
    """Record every scan of each forward pass inside the block.

    Gradients are kept on the tensors themselves. Parameters may be frozen: gradients start at the tokens that enter the
    first block.

    Raises:
        TypeError: another kind of model.
        ValueError: training mode, or half precision.
    """
    if not isinstance(model, Vim):
        raise TypeError(f"{type(model).__name__} is no Vision Mamba; it has no scan in two directions to capture.")
    _ready(model)
    trace = VimTrace(class_position=model.class_position)
    with ExitStack() as undo:
        undo.callback(model.layers[0].register_forward_pre_hook(_opener(trace)).remove)
        for layer in model.layers:
            mixer: Any = layer.mixer
            for step in (mixer.scan, mixer.scan_b):
                undo.callback(step.register_forward_hook(_keeper(trace)).remove)
            undo.callback(layer.register_forward_hook(lambda *args: _stream(trace, args[2])).remove)
        yield trace


def _opener(trace: VimTrace) -> Any:
    def begin(_block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens = args[0]
        if torch.is_grad_enabled() and not tokens.requires_grad:
            tokens = tokens.detach().requires_grad_()
        for one in (trace.scans, trace.outputs, trace.streams):
            one.clear()
        _stream(trace, tokens)
        return (tokens, *args[1:])

    return begin


def _keeper(trace: VimTrace) -> Any:
    def keep(_step: ScanStep, args: tuple[Scan], output: Tensor) -> None:
        own = with_gradient(output)
        if args[0].backward:
            trace.scans[-1], trace.outputs[-1] = (*trace.scans[-1], args[0]), (*trace.outputs[-1], own)
        else:
            trace.scans.append((args[0],))
            trace.outputs.append((own,))

    return keep


def _before_gate(gradient: Tensor, scan: Scan) -> Tensor:
    return gradient if scan.gate is None else gradient * F.silu(scan.gate.detach())
