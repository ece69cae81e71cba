"""Which torch function goes backwards by which rule of :mod:`propagation`: the two tables behind :mod:`lrp`.

A rule gets the arguments of the function and returns its value and what goes back: one tensor for each of the first
arguments. It returns ``None`` for what goes back where the output is a constant, and ``None`` alone where the plain
gradient is right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils.maths import propagation

GATE = "relevance_gate"  #: marks what an activation function returned, so that a gated layer knows its gate
ACTIVATIONS = ("gelu", "relu", "silu", "tanh")
Backward = Callable[[Tensor], tuple[Tensor | None, ...]]
Rule = Callable[..., tuple[Tensor, Backward | None] | None]

# Rules of modified gradients


def modified(preset: str, epsilon: float, gamma: float, gamma_patches: float, spared: set[int]) -> dict[str, Rule]:
    """Return the rules of ``"cp"`` or ``"attnlrp"``: backwards goes a gradient, to be multiplied by the activation."""
    attention: dict[str, Rule] = (
        {"softmax": _constant, "matmul": plain} if preset == "cp" else {"softmax": plain, "matmul": _halved_matmul}
    )
    return {
        "linear": partial(_linear_by_gradient, epsilon, gamma, spared) if epsilon or gamma else plain,
        "conv2d": partial(_patches_by_gradient, gamma_patches) if gamma_patches else plain,
        **attention,
        "layer_norm": _layer_norm,
        "gelu": partial(_activation, F.gelu),
        "relu": plain,
        "silu": partial(_activation, F.silu),
        "tanh": partial(_activation, torch.tanh),
        "add": plain,
        "mean": plain,
        "mul": partial(_product, preset),
        "div": partial(_by_constant, plain),
        "addmm": partial(_conv1d, epsilon or gamma),
        "rsqrt": _fixed_scale,
        **dict.fromkeys(("pow", "neg", "sub", "where", "masked_fill"), plain),
    }


def plain(*_args: Any, **_kwargs: Any) -> None:
    """Leave the plain gradient."""


def _constant(x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return F.softmax(x, *args, **kwargs), None


def _fixed_scale(x: Tensor) -> tuple[Tensor, None]:
    """Keep the scale of RMSNorm constant, as that of LayerNorm."""
    return torch.rsqrt(x), None


def _product(preset: str, left: Any, right: Any) -> tuple[Tensor, Backward] | None:
    """Go back through a product; of a gated layer each factor takes half (AttnLRP), or the gate is fixed (CP-LRP)."""
    if not all(isinstance(one, Tensor) and one.requires_grad for one in (left, right)):
        return None
    gates = [getattr(one, GATE, False) for one in (left, right)]
    if sum(gates) != 1:
        raise TypeError("there is no relevance rule for a product of two activations that is no gated layer.")
    ones, others = left.detach(), right.detach()

    def backward(gradient: Tensor) -> tuple[Tensor | None, ...]:
        if preset == "cp":
            return (None, gradient * ones) if gates[0] else (gradient * others, None)
        half = gradient / 2
        return half * others, half * ones

    return ones * others, backward


def _conv1d(changed: float, bias: Tensor, x: Tensor, weight: Tensor) -> None:
    """Leave the plain gradient of GPT-2's linear maps, which is the rule without epsilon and gamma."""
    if changed:
        raise TypeError("epsilon and gamma have no rule for GPT-2's linear maps (addmm); take 0 for both.")


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
    epsilon: float, gamma: float, spared: set[int], x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Backward] | None:
    if id(weight) in spared:
        return None
    output, x = F.linear(x, weight, bias), x.detach()
    if gamma:
        return output, lambda g: (propagation.gamma_linear(g, output, x, weight, bias, gamma),)
    return output, lambda g: (propagation.epsilon_linear(g, output, weight, epsilon),)


def _patches_by_gradient(
    gamma: float, x: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any
) -> tuple[Tensor, Backward]:
    output, (patches, size) = F.conv2d(x, weight, bias, *how), _patches(x, weight, how)

    def backward(gradient: Tensor) -> tuple[Tensor]:
        given = gradient.movedim(1, -1), output.movedim(1, -1), patches, weight.flatten(1), bias, gamma
        return (propagation.join_patches(propagation.gamma_linear(*given), size),)

    return output, backward


def _patches(x: Tensor, weight: Tensor, how: Any) -> tuple[Tensor, int]:
    """Cut a picture as the patch convolution does; its patches must tile the picture."""
    size = weight.shape[-1]
    plainly = (size, size), (0, 0), (1, 1), 1
    if weight.shape[-2] != size or any(one not in (want, want[0]) if isinstance(want, tuple) else one != want
                                       for one, want in zip(how, plainly, strict=False)) or not how:  # fmt: skip
        raise TypeError(
            f"a convolution of {tuple(weight.shape[-2:])} pixels with {how} does not tile; no rule for that."
        )
    return propagation.cut_patches(x.detach(), size), size


# Rules of relevance


def relevance(
    preset: str, pixel_range: tuple[Tensor, Tensor] | None, dtype: torch.dtype = torch.float64
) -> dict[str, Rule]:
    """Return the rules by which relevance itself goes backwards, see :func:`lrp.relevance_rules`."""
    linear = propagation.positive_linear_apart if preset == "orig" else propagation.positive_linear
    add = propagation.rescaled_addition if preset == "transformer_attribution" else propagation.addition
    return {
        "linear": partial(_linear, linear, dtype),
        "add": partial(_add, add),
        "matmul": partial(_matmul, dtype),
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
    rule: Callable[..., Tensor], dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Backward]:
    output, x = F.linear(x, weight, bias), x.detach().to(dtype)
    return output, lambda relevance: (rule(relevance.to(dtype), x, weight.to(dtype)),)


def _matmul(dtype: torch.dtype, left: Tensor, right: Tensor) -> tuple[Tensor, Backward]:
    output, values = left @ right, (left.detach().to(dtype), right.detach().to(dtype))
    return output, lambda relevance: propagation.product(relevance, output, *values)


def _add(rule: Callable[..., tuple[Tensor, Tensor]], left: Any, right: Any) -> tuple[Tensor, Backward]:
    output = left + right
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return output, lambda relevance: (relevance,)
    if output.ndim == 2:  # the two heads of a distilled model: the class score is their mean
        return output, lambda relevance: (relevance / 2, relevance / 2)
    if output.ndim == 4 and not right.requires_grad:  # a mask on attention scores: nothing arrives where it hides a key
        return output, lambda relevance: (relevance,)
    values = left.detach().expand_as(output), right.detach().expand_as(output)
    return output, lambda relevance: rule(relevance, *values)


def _mean(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Backward]:
    output, x = x.mean(dim, keepdim), x.detach()
    return output, lambda r: (propagation.mean(r if keepdim else r.unsqueeze(dim), x, dim),)


def _pixels(
    pixel_range: tuple[Tensor, Tensor] | None, x: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any
) -> tuple[Tensor, Backward]:
    if pixel_range is None:
        raise ValueError("relevance of pixels needs pixel_range, the least and greatest value a pixel can have.")
    patches, size = _patches(x, weight, how)
    low, high = (propagation.cut_patches(bound.to(x).expand(x.shape), size) for bound in pixel_range)

    def backward(relevance: Tensor) -> tuple[Tensor]:
        given = relevance.movedim(1, -1), patches, weight.flatten(1), low, high
        return (propagation.join_patches(propagation.bounded_pixels(*given), size),)

    return F.conv2d(x, weight, bias, *how), backward
