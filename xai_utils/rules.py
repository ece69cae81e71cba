"""Layer-wise relevance propagation on models as they are: every torch function gets the backward of its rule.

A :class:`~torch.overrides.TorchFunctionMode` sees the functions a model calls (``linear``, ``softmax``, ``matmul`` …)
while the block is active, computes each with its own value, and replaces what goes backwards through it. No class is
patched, no layer is swapped and no module name is used, so one table serves every transformer that is written in these
functions. A function without a rule is refused and never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai_utils import check, propagation
from xai_utils.capture import Trace, capture

# What hands values on without mixing them (or mixes them by constants), so that its own gradient is the rule.
STRUCTURE = frozenset(
    "view reshape permute transpose unbind chunk split getitem contiguous cat expand flatten unflatten squeeze unsqueeze "
    "to type float double dropout clone select swapaxes t requires_grad detach get stack".split()
)
MODIFIED = ("cp", "attnlrp")  #: presets whose gradient, times the activation, is relevance
RELEVANCE = ("transformer_attribution", "transformer_attribution_apart")  #: presets that send back relevance itself

Backward = Callable[[Tensor], tuple[Tensor | None, ...]]
# (*arguments of the function) -> its value and what goes back; nothing goes back through a constant, for which the second
# is None; None alone where the rule does not apply and the plain gradient is right.
Rule = Callable[..., tuple[Tensor, Backward | None] | None]


class _Step(torch.autograd.Function):
    """Hand ``output`` on; backwards take the rule's way to ``inputs``, or while ``rules.plain`` the output's own."""

    @staticmethod
    def forward(ctx: Any, rules: Rules, backward: Backward, output: Tensor, *inputs: Any) -> Tensor:
        ctx.rules, ctx.way, ctx.count = rules, backward, len(inputs)
        ctx.set_materialize_grads(False)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        nothing = (None,) * ctx.count
        if gradient is None or ctx.rules.plain:
            return None, None, gradient, *nothing
        return None, None, None, *(*ctx.way(gradient), *nothing)[: ctx.count]


class Rules(TorchFunctionMode):
    """Apply a table of rules to every torch function that takes part in the graph.

    Attributes:
        plain: while true, backward passes are the plain ones; needs ``keep_plain``.
    """

    def __init__(self, table: dict[str, Rule], keep_plain: bool = False) -> None:
        super().__init__()
        self.table, self.keep_plain, self.plain = table, keep_plain, False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.__name__.strip("_")
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in _tensors(args)):
            return function(*args, **kwargs)
        if name not in self.table:
            return _allowed(name, function(*args, **kwargs))
        with torch.set_grad_enabled(self.keep_plain):
            found = self.table[name](*args, **kwargs)
        if found is None:
            return function(*args, **kwargs)
        output, backward = found
        if backward is None:
            return output.detach()
        return _Step.apply(self, backward, output, *(one for one in args[:2] if isinstance(one, Tensor)))


def _tensors(args: Any) -> Iterator[Tensor]:
    for one in args:
        if isinstance(one, (list, tuple)):
            yield from _tensors(one)
        elif isinstance(one, Tensor):
            yield one


def _allowed(name: str, output: Any) -> Any:
    if name not in STRUCTURE and any(one.requires_grad for one in _tensors([output])):
        raise TypeError(
            f"there is no relevance rule for torch's {name!r}. Models written with linear, layer_norm, softmax, matmul, "
            "gelu, relu, tanh, sums and means are covered (BERT, RoBERTa, ELECTRA, DistilBERT, ViT, DeiT); windowed "
            "models (Swin), convolutional networks and GPT-2 are not."
        )
    return output


@contextmanager
def lrp_rules(
    model: nn.Module, preset: str, blocks: int | None = None, epsilon: float = 0.0, gamma: float = 0.0,
    gamma_patches: float = 0.0,
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
    table = _modified(preset, epsilon, gamma, gamma_patches)
    with capture(model, blocks, hidden=True) as trace, _inside(model, Rules(table)):
        yield trace


@contextmanager
def relevance_rules(
    model: nn.Module, preset: str = "transformer_attribution", blocks: int | None = None,
    pixel_range: tuple[Tensor, Tensor] | None = None,
) -> Iterator[tuple[Trace, Rules]]:  # fmt: skip
    """Make what goes backwards relevance itself: at every tensor the "gradient" is its relevance.

    Args:
        model: a transformers or timm model in evaluation mode.
        preset: ``"transformer_attribution"``: z+ rule, sums rescaled sample by sample. ``"transformer_attribution_apart"``:
            the published "orig" rules, which do not conserve relevance and are here to be looked at.
        blocks: number of attention blocks that must be found.
        pixel_range: least and greatest value of a pixel after normalisation, each ``(3, 1, 1)``; needed to go down to
            the pixels.

    Yields:
        The trace, and the rules, whose ``plain`` switches to plain gradients through the same forward pass.

    Source: Chefer et al. (2021a), arXiv:2012.09838.
    """
    check.one_of("preset", preset, RELEVANCE)
    apart = preset != "transformer_attribution"
    table = _relevance(apart, pixel_range)
    rules = Rules(table, keep_plain=True)
    with capture(model, blocks, hidden=True) as trace, _inside(model, rules):
        yield trace, rules


@contextmanager
def _inside(model: nn.Module, rules: Rules) -> Iterator[None]:
    """Switch the rules on while the model runs and off when it returns or fails; remove both hooks in the end."""

    def enter(*_: Any) -> None:
        rules.__enter__()

    def leave(*_: Any) -> None:
        rules.__exit__(None, None, None)

    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(enter).remove)
        undo.callback(model.register_forward_hook(leave, always_call=True).remove)
        yield


# Rules of modified gradients


def _modified(preset: str, epsilon: float, gamma: float, gamma_patches: float) -> dict[str, Rule]:
    attention: dict[str, Rule] = (
        {"softmax": _constant, "matmul": _plain} if preset == "cp" else {"softmax": _plain, "matmul": _halved_matmul}
    )
    return {
        **attention,
        "layer_norm": _layer_norm,
        "gelu": partial(_activation, F.gelu),
        "relu": _plain,
        "silu": partial(_activation, F.silu),
        "tanh": partial(_activation, torch.tanh),
        "linear": partial(_linear_by_gradient, epsilon, gamma),
        "conv2d": partial(_patches_by_gradient, gamma_patches),
        "add": _plain,
        "mean": _plain,
        "mul": partial(_by_constant, _plain),
        "div": partial(_by_constant, _plain),
    }


def _plain(*_args: Any, **_kwargs: Any) -> None:
    """Leave the plain gradient."""


def _constant(x: Tensor, dim: int, **_: Any) -> tuple[Tensor, None]:
    return torch.softmax(x, dim), None


def _by_constant(rule: Rule, left: Any, right: Any) -> tuple[Tensor, Backward | None] | None:
    """Apply a rule to a product or quotient with a constant; a product of two activations (a gate) has no rule here."""
    if all(isinstance(one, Tensor) and one.requires_grad for one in (left, right)):
        raise TypeError("there is no relevance rule for a product of two activations, as in gated layers.")
    return rule(left, right)


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Backward]:
    output, _, scale = torch.native_layer_norm(x, shape, weight, bias, eps)
    return output, lambda gradient: (propagation.constant_scale(gradient, weight, scale),)


def _activation(function: Callable[..., Tensor], x: Tensor, **options: Any) -> tuple[Tensor, Backward]:
    output, x = function(x, **options), x.detach()
    return output, lambda gradient: (propagation.proportional(gradient, output, x),)


def _halved_matmul(left: Tensor, right: Tensor) -> tuple[Tensor, Backward] | None:
    if not (left.requires_grad and right.requires_grad):
        return None
    values = left.detach(), right.detach()
    return left @ right, lambda gradient: propagation.halved_product(gradient, *values)


def _linear_by_gradient(
    epsilon: float, gamma: float, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Backward] | None:
    if not epsilon and not gamma:
        return None
    output, x = F.linear(x, weight, bias), x.detach()
    if gamma:
        ways = F.linear, _linear_back
        return output, lambda g: (propagation.gamma_linear(g, output, x, weight, bias, gamma, *ways),)
    return output, lambda g: (propagation.epsilon_linear(g, output, weight, epsilon, _linear_back),)


def _patches_by_gradient(
    gamma: float, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, *where: Any
) -> tuple[Tensor, Backward] | None:
    if not gamma:
        return None
    ways, x_value = _patch_ways(weight, stride, where), x.detach()
    output = F.conv2d(x, weight, bias, stride, *where)
    column = None if bias is None else bias[:, None, None]
    return output, lambda g: (propagation.gamma_linear(g, output, x_value, weight, column, gamma, *ways),)


def _linear_back(share: Tensor, weight: Tensor) -> Tensor:
    return share @ weight


def _patch_ways(weight: Tensor, stride: Any, where: Any) -> tuple[propagation.Map, propagation.Map]:
    """Return a patch convolution and its transpose; patches must tile the picture."""
    if tuple(stride) != tuple(weight.shape[-2:]) or any(one not in (0, 1, (0, 0), (1, 1)) for one in where):
        raise TypeError(f"patches of {tuple(weight.shape[-2:])} pixels at steps of {stride} overlap; no rule for that.")
    return partial(F.conv2d, stride=stride), partial(F.conv_transpose2d, stride=stride)


# Rules of relevance


def _relevance(apart: bool, pixel_range: tuple[Tensor, Tensor] | None) -> dict[str, Rule]:
    return {
        "linear": partial(_linear, propagation.positive_linear_apart if apart else propagation.positive_linear),
        "add": partial(_add, propagation.addition if apart else propagation.rescaled_addition),
        "matmul": _matmul,
        "layer_norm": partial(_identity, F.layer_norm),
        "softmax": partial(_identity, F.softmax),
        "gelu": partial(_identity, F.gelu),
        "relu": partial(_identity, F.relu),
        "silu": partial(_identity, F.silu),
        "tanh": partial(_identity, torch.tanh),
        "mul": partial(_by_constant, partial(_identity, torch.mul)),
        "div": partial(_by_constant, partial(_identity, torch.div)),
        "mean": _mean,
        "conv2d": partial(_pixels, pixel_range),
    }


def _identity(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> tuple[Tensor, Backward]:
    return function(*args, **kwargs), lambda relevance: (relevance, relevance)


def _linear(
    rule: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Backward]:
    output, x = F.linear(x, weight, bias), x.detach()
    return output, lambda relevance: (rule(relevance, x, weight, F.linear, _linear_back),)


def _matmul(left: Tensor, right: Tensor) -> tuple[Tensor, Backward]:
    output, values = left @ right, (left.detach(), right.detach())
    value = output.detach()
    return output, lambda relevance: propagation.product(relevance, value, *values)


def _add(rule: Callable[..., tuple[Tensor, Tensor]], left: Any, right: Any) -> tuple[Tensor, Backward]:
    output = left + right
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return output, lambda relevance: (relevance,)
    if output.ndim == 2:  # the two heads of a distilled model: the class score is their mean
        return output, lambda relevance: (relevance / 2, relevance / 2)
    values = left.detach().expand_as(output), right.detach().expand_as(output)
    return output, lambda relevance: rule(relevance, *values)


def _mean(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Backward]:
    output, x = x.mean(dim, keepdim), x.detach()
    return output, lambda r: (propagation.mean(r if keepdim else r.unsqueeze(dim), x, dim),)


def _pixels(
    pixel_range: tuple[Tensor, Tensor] | None, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    *where: Any,
) -> tuple[Tensor, Backward]:  # fmt: skip
    if pixel_range is None:
        raise ValueError("relevance of pixels needs pixel_range, the least and greatest value a pixel can have.")
    output, x_value = F.conv2d(x, weight, bias, stride, *where), x.detach()
    ways = _patch_ways(weight, stride, where)
    return output, lambda r: (propagation.bounded_pixels(r, x_value, weight, *pixel_range, *ways),)
