"""Layer-wise relevance propagation on models as they are: every torch function gets the backward of its rule.

A :class:`~torch.overrides.TorchFunctionMode` sees the functions a model calls (``linear``, ``softmax``, ``matmul`` …)
while the block is active, computes each with its own value, and replaces what goes backwards through it. No class is
patched, no layer is swapped and no module name is used, so one table serves every transformer that is written in these
functions. A function without a rule is refused and never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai_utils import check
from xai_utils.capture import lrp_tables
from xai_utils.capture.attention import Trace, capture_attention
from xai_utils.capture.lrp_tables import Backward, Rule

# What hands values on without mixing them (or mixes them by constants), so that its own gradient is the rule.
STRUCTURE = frozenset(
    "view reshape permute transpose unbind chunk split getitem contiguous cat stack expand flatten unflatten squeeze "
    "unsqueeze to type type_as float double dropout clone select swapaxes t requires_grad detach get "
    "repeat_interleave".split()
)
MODIFIED = ("cp", "attnlrp")  #: presets whose gradient, times the activation, is relevance
WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation", "GELUTanh")  #: the tanh form of GELU, by its formula
RELEVANCE = ("transformer_attribution", "proportional", "orig")  #: presets that send back relevance itself


class _Step(torch.autograd.Function):
    """Hand ``output`` on; backwards take the rule's way to ``inputs``."""

    @staticmethod
    def forward(ctx: Any, backward: Backward, output: Tensor, *inputs: Any) -> Tensor:
        ctx.way, ctx.count = backward, len(inputs)
        ctx.set_materialize_grads(False)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        nothing = (None,) * ctx.count
        if gradient is None:
            return None, None, *nothing
        return None, None, *(*ctx.way(gradient), *nothing)[: ctx.count]


class Rules(TorchFunctionMode):
    """Apply a table of rules to every torch function that takes part in the graph."""

    def __init__(self, table: dict[str, Rule]) -> None:
        """Take a table from torch's function names (without underscores) to rules."""
        super().__init__()
        self.table, self.reason = table, ""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.strip("_")
        rule = self.table.get(name)
        if rule is lrp_tables.plain or (rule is None and name in STRUCTURE):
            return function(*args, **(kwargs or {}))
        try:
            return self._by_rule(name, function, args, kwargs or {})
        except TypeError as error:
            self.reason = self.reason or str(error)  # torch turns the error of a right-hand operator into another
            raise

    def _by_rule(self, name: str, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in _tensors(args)):
            return function(*args, **kwargs)
        if name not in self.table:
            return _allowed(name, function(*args, **kwargs))
        with torch.no_grad():
            found = self.table[name](*args, **kwargs)
        if found is None:
            return function(*args, **kwargs)
        output, backward = found
        if backward is None:
            return output.detach()
        handed = _Step.apply(backward, output, *(one for one in args[:2] if isinstance(one, Tensor)))
        if name in lrp_tables.ACTIVATIONS:
            setattr(handed, lrp_tables.GATE, True)
        return handed


def _tensors(args: Any) -> Iterator[Tensor]:
    for one in args:
        if isinstance(one, (list, tuple)):
            yield from _tensors(one)
        elif isinstance(one, Tensor):
            yield one


def _allowed(name: str, output: Any) -> Any:
    if any(one.requires_grad for one in _tensors([output])):
        raise TypeError(
            f"there is no relevance rule for torch's {name!r}. Models written with linear, layer_norm, softmax, "
            "matmul, gelu, relu, silu, tanh, RMSNorm, gated layers, sums and means are covered (BERT, ViT and their "
            "kin; Llama, Qwen, Gemma, Mistral, GPT-2, GPT-NeoX); windows (Swin) and convolutional networks are not."
        )
    return output


@contextmanager
def lrp_rules(
    model: nn.Module, preset: str, blocks: int | None = None, epsilon: float = 0.0, gamma: float = 0.0,
    gamma_patches: float = 0.0, spare: Collection[str] = (),
) -> Iterator[Trace]:  # fmt: skip
    """Make the gradient times the activation, at any hidden state, its relevance for what is back-propagated.

    LayerNorm's scale is a constant and an activation function is a scale ``f(x) / x``, in both presets.

    Args:
        model: a transformers or timm model in evaluation mode; logits are the same inside the block.
        preset: ``"cp"``: attention is a constant, relevance goes through the values only. ``"attnlrp"``: relevance also
            goes through queries and keys, each factor of a matrix product taking half.
        blocks: number of attention blocks that must be found.
        epsilon: absorbs relevance where a linear map's output is smaller than this (epsilon rule).
        gamma: favours contributions of the output's own sign in linear maps (gamma rule); helps against noise.
        gamma_patches: the same for the patch convolution.
        spare: names of modules whose linear maps keep the plain gradient, such as ``("qkv", "proj")``.

    Yields:
        A :class:`capture.Trace` with ``hidden`` states.

    Raises:
        ValueError: unknown preset, negative epsilon or gamma, training mode.
        TypeError: the model calls a function for which there is no rule.

    Source: "cp": Ali et al. (2022), arXiv:2202.07304. "attnlrp": Achtibat et al. (2024), arXiv:2402.05602.
    Differs from: LXT, which patches classes for good and knows no timm model.
    """
    check.one_of("preset", preset, MODIFIED)
    for name, value in (("epsilon", epsilon), ("gamma", gamma), ("gamma_patches", gamma_patches)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}, expected 0 or more.")
    named = model.named_parameters() if spare else ()
    spared = {id(weight) for name, weight in named if set(name.split(".")) & set(spare)}
    table = lrp_tables.modified(preset, epsilon, gamma, gamma_patches, spared)
    with capture_attention(model, blocks, layers=(), hidden=True) as trace, inside(model, Rules(table)):
        yield trace


@contextmanager
def relevance_rules(
    model: nn.Module, preset: str = "transformer_attribution", blocks: int | None = None,
    pixel_range: tuple[Tensor, Tensor] | None = None, dtype: torch.dtype = torch.float64,
) -> Iterator[Trace]:  # fmt: skip
    """Make what goes backwards relevance itself: at every tensor the "gradient" is its relevance.

    Args:
        model: a transformers or timm model in evaluation mode.
        preset: ``"transformer_attribution"``: z+ rule, sums rescaled sample by sample. ``"proportional"``: the same
            with sums shared in proportion and not rescaled (:func:`propagation.addition`). ``"orig"``: the rules that
            the published code keeps as its baseline, ``layers_lrp``, which do not conserve relevance.
        blocks: number of attention blocks that must be found.
        pixel_range: least and greatest value of a pixel after normalisation, each ``(3, 1, 1)``; needed to go down to
            the pixels.
        dtype: in which the rules of linear maps and matrix products multiply; what they divide by is as the model's.

    Yields:
        A :class:`capture.Trace` with ``hidden`` states.

    Source: Chefer et al. (2021a), arXiv:2012.09838.
    """
    check.one_of("preset", preset, RELEVANCE)
    rules = Rules(lrp_tables.relevance(preset, pixel_range, dtype))
    with capture_attention(model, blocks, hidden=True) as trace, inside(model, rules):
        yield trace


@contextmanager
def inside(model: nn.Module, rules: Rules) -> Iterator[None]:
    """Switch the rules on while the model runs and off when it returns or fails; leave no hook behind.

    Parameters are constants meanwhile: relevance belongs to activations.
    """

    def enter(*_: Any) -> None:
        rules.__enter__()

    def leave(*_: Any) -> None:
        rules.__exit__(None, None, None)

    with ExitStack() as undo:
        for parameter in model.parameters():
            if parameter.requires_grad:
                undo.callback(parameter.requires_grad_)
                parameter.requires_grad_(False)
        for module in model.modules():
            if type(module).__name__ in WRITTEN_OUT:  # GPT-2's GELU, written in products that have no rule
                module.forward = partial(F.gelu, approximate="tanh")
                undo.callback(delattr, module, "forward")
        undo.callback(model.register_forward_pre_hook(enter).remove)
        undo.callback(model.register_forward_hook(leave, always_call=True).remove)
        try:
            yield
        except TypeError as error:
            raise TypeError(rules.reason or str(error)) from error
