"""Layer-wise relevance propagation on Mamba as it is: the gradient times the activation becomes relevance (MambaLRP).

Three things break the conservation of gradient times input in a Mamba: the activation SiLU, the products of the scan
with steps, B and C that themselves depend on the input, and the gate. Each gets a backward of its own; RMSNorm's scale
is a constant. Everything else is linear, where gradient times input is the basic rule of LRP already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils import check
from xai_utils.capture.lrp import Rules, inside
from xai_utils.capture.lrp_tables import GATE, Backward, Rule, plain
from xai_utils.capture.scans import VimTrace, capture_scans
from xai_utils.models.vim import ScanStep

RULES = ("silu", "scan", "gate", "norm")


@contextmanager
def mamba_lrp(model: nn.Module, rules: Collection[str] = RULES) -> Iterator[VimTrace]:
    """Make the gradient times the activation, anywhere on the stream, its relevance for what is back-propagated.

    Without biases the relevance of all tokens adds up to the logit, at every depth; biases keep their share.

    Args:
        model: a Mamba of transformers or a :class:`vim.Vim`, in evaluation mode; logits are the same inside the block.
        rules: some of ``"silu"`` (identity: SiLU(x) is x times a constant), ``"scan"`` (steps, B and C are constants,
            so that the output is linear in the input), ``"gate"`` (of the scan's output and what SiLU makes of the gate
            each takes half) and ``"norm"`` (the scale of RMSNorm is a constant). Each works without the others; without
            any, gradients are the plain ones.

    Yields:
        What :func:`scans.capture_scans` yields; its ``streams`` are the activations.

    Raises:
        ValueError: an unknown rule, training mode.
        TypeError: no scan, a Mamba-2 (whose B, C and input share one convolution; no rule is published), or a function
            without a rule.

    Source: Jafari et al. (2024), arXiv:2406.07592, propositions 4.1 to 4.3.
    Differs from: their code, which divides SiLU(x) by x + 1e-6 sign(x); SiLU(x)/x is sigmoid(x), which needs no
    division. Nothing is copied, patched or left behind.
    """
    for name in rules:
        check.one_of("rule", name, RULES)
    if any(type(module).__name__ == "Mamba2Mixer" for module in model.modules()):
        raise TypeError("MambaLRP has no rule for Mamba-2, where B, C and the input share one convolution; take Mamba.")
    table = Rules(_table(frozenset(rules)))
    with capture_scans(model) as trace, ExitStack() as undo:
        if "scan" in rules:
            for module in model.modules():
                _hold_scan(module, undo)
        with inside(model, table) if rules else ExitStack():
            yield trace


def _hold_scan(module: nn.Module, undo: ExitStack) -> None:
    """Make a scan's steps, B and C constants: behind ``x_proj`` in transformers, at the scan itself in Vision Mamba."""
    if type(module).__name__ == "MambaMixer":
        project: Any = module.x_proj
        undo.callback(project.register_forward_hook(lambda _m, _a, output: output.detach()).remove)
    elif isinstance(module, ScanStep):

        def held(_module: nn.Module, args: tuple[Any]) -> tuple[Any]:
            scan = args[0]
            return (replace(scan, delta=scan.delta.detach(), B=scan.B.detach(), C=scan.C.detach()),)

        undo.callback(module.register_forward_pre_hook(held).remove)


def _table(rules: frozenset[str]) -> dict[str, Rule]:
    """Say what each torch function of a Mamba sends back; ``None`` is its own gradient."""
    linear = (
        "linear conv1d conv2d matmul add sub mean sum div embedding pow exp softplus rsqrt sigmoid neg flip pad copy "
    )
    table: dict[str, Rule] = dict.fromkeys((linear + "rms_norm mul").split(), plain)
    table["silu"] = partial(_silu, "silu" in rules)
    if "gate" in rules:
        table["mul"] = _gated
    if "norm" in rules:
        table["rsqrt"] = lambda x: (torch.rsqrt(x), None)
        table["rms_norm"] = _rms_norm
    return {**table, **{f"r{name}": table[name] for name in ("add", "mul", "sub")}}


def _silu(constant: bool, x: Tensor, inplace: bool = False) -> tuple[Tensor, Backward]:
    """Go back as through x times a constant, or else by the derivative; what comes out is known as a gate."""
    share = x.detach().sigmoid()
    slope = share if constant else share * (1 + x.detach() * (1 - share))
    return F.silu(x), lambda gradient: (gradient * slope,)


def _gated(left: Any, right: Any) -> tuple[Tensor, Backward] | None:
    """Give each factor half where one of them is a gate; products inside scan and norm keep their own gradient."""
    if not all(isinstance(one, Tensor) and one.requires_grad for one in (left, right)):
        return None
    if not (getattr(left, GATE, False) or getattr(right, GATE, False)):
        return None
    a, b = left.detach(), right.detach()
    return left * right, lambda gradient: (gradient * b / 2, gradient * a / 2)


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> tuple[Tensor, Backward]:
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scale = torch.rsqrt(x.detach().pow(2).mean(axes, keepdim=True) + eps)
    scale = scale if weight is None else scale * weight.detach()
    return F.rms_norm(x, shape, weight, eps), lambda gradient: (gradient * scale,)
