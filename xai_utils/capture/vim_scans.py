"""Record the scans of our Vision Mamba, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.capture.attention import gradient_of, with_gradient
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
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first.")
    if model.cls_token.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the model is in {model.cls_token.dtype}; hidden attention needs float32: call model.float()."
        )
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


def _stream(trace: VimTrace, tokens: Tensor) -> None:
    trace.streams.append(with_gradient(tokens))


def _before_gate(gradient: Tensor, scan: Scan) -> Tensor:
    return gradient if scan.gate is None else gradient * F.silu(scan.gate.detach())
