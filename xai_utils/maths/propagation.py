"""Rules of relevance propagation, one function a kind of layer: how what arrives at its output is handed to its inputs.

Pure tensor functions. Two families: those that return *relevance* (z+ rules, Chefer et al. 2021), and those that return
a *modified gradient*, of which relevance is the product with the activation (CP-LRP, AttnLRP, epsilon and gamma rules).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-9


def divide(relevance: Tensor, total: Tensor) -> Tensor:
    """Divide with a guard: totals are moved away from zero by :data:`TINY`; where one is zero, nothing is handed on.

    Differs from: the original's ``safe_divide``, which adds 1e-9 whatever the sign, so that -1e-9 is divided by 0.
    """
    away = torch.copysign(torch.tensor(TINY, dtype=total.dtype, device=total.device), total).add_(total)
    shared = torch.div(relevance, away, out=away)
    return shared if torch.count_nonzero(total) == total.numel() else shared.masked_fill_(total == 0, 0)


def cut_patches(pictures: Tensor, size: int) -> Tensor:
    """Cut ``(sample, channel, height, width)`` into squares: ``(sample, row, column, channel * size * size)``.

    A patch convolution is then a linear map with ``weight.flatten(1)``.
    """
    tiles = pictures.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3)


def join_patches(patches: Tensor, size: int) -> Tensor:
    """Undo :func:`cut_patches`."""
    tiles = patches.unflatten(3, (-1, size, size))
    return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


# Relevance


def positive_linear(relevance: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Share relevance among the positive contributions (z+ rule; the bias takes none).

    Relevance of an output without any positive contribution is lost, as in the original (absorbed).

    Source: Chefer et al. (2021a), arXiv:2012.09838, Eq. 3-4; alpha = 1 in the original code.
    """
    above, below = x.clamp(min=0), x.clamp(max=0)
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    share = divide(relevance, F.linear(above, positive).add_(F.linear(below, negative)))
    return (share @ positive).mul_(above).addcmul_(below, (share @ negative))


def positive_linear_apart(relevance: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Share relevance once among products of positives and once more among products of negatives.

    Kept to show what is wrong with it: each of the two parts hands on everything, so up to twice the relevance comes
    out. Source: the "orig" rules of the code of Chefer et al. (2021a), ``layers_lrp``.
    """
    above, below = x.clamp(min=0), x.clamp(max=0)
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    first = above * (divide(relevance, F.linear(above, positive)) @ positive)
    return first + below * (divide(relevance, F.linear(below, negative)) @ negative)


def bounded_pixels(relevance: Tensor, x: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share relevance among pixels that can take values from ``low`` to ``high`` (z^B rule; the bias takes none).

    Source: Montavon et al. (2017), arXiv:1512.02479, Eq. 15. Differs from: Chefer's code, which takes the smallest and
        greatest value of the normalised picture, over all channels, for the range that pixels can have.
    """
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    low, high = low.expand_as(x), high.expand_as(x)
    share = divide(relevance, F.linear(x, weight) - F.linear(low, positive) - F.linear(high, negative))
    return x * (share @ weight) - low * (share @ positive) - high * (share @ negative)


def product(relevance: Tensor, output: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share relevance of a matrix product among its terms, half for each factor; multiply as precisely as these are."""
    share, half = divide(relevance, output).to(left), right / 2
    return (share @ half.mT).mul_(left), (left.mT @ share).mul_(half)


def addition(relevance: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share relevance of a sum in proportion to the summands, element by element."""
    share = divide(relevance, left + right)
    return left * share, right * share


def rescaled_addition(relevance: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    r"""Share as :func:`addition`, then rescale both parts so that each sample's relevance stays what it was.

    Of the sums :math:`a, b` of the two parts each gets :math:`|a| / (|a| + |b|)` of the total. A part whose sum is
    negative changes its sign by this, as in the original.

    Source: Chefer et al. (2021a), arXiv:2012.09838, Eq. 9-10. Differs from: their code, whose sums run over the whole
        batch, so that samples change each other's maps; and whose division by a sum near zero is not guarded.
    """
    parts = addition(relevance, left, right)
    sums = [_sample_sum(part) for part in parts]
    total, size = _sample_sum(relevance), sums[0].abs() + sums[1].abs()
    scale = torch.where(size > TINY, total / size.clamp(min=TINY), 1.0)
    first, second = (part * torch.where(sum_ < 0, -scale, scale) for part, sum_ in zip(parts, sums, strict=True))
    return first, second


def _sample_sum(values: Tensor) -> Tensor:
    """Add up everything but the sample: ``(sample, 1, ...)``."""
    return values.sum(tuple(range(1, values.ndim)), keepdim=True)


def mean(relevance: Tensor, x: Tensor, dim: int) -> Tensor:
    """Share the relevance of a mean over ``dim`` in proportion to what was averaged; ``relevance`` keeps that axis."""
    return x * divide(relevance, x.sum(dim, keepdim=True))


# Modified gradients


def constant_scale(gradient: Tensor, weight: Tensor | None, scale: Tensor) -> Tensor:
    """Go back through a LayerNorm whose ``scale`` (one over the standard deviation) is taken as a constant.

    Source: Ali et al. (2022), arXiv:2202.07304, section 4.2; Achtibat et al. (2024), arXiv:2402.05602, Prop. 3.4.
    """
    at_centred = (gradient if weight is None else gradient * weight) * scale
    return at_centred - at_centred.mean(-1, keepdim=True)


def proportional(gradient: Tensor, output: Tensor, x: Tensor) -> Tensor:
    """Go back through an activation as through a scale ``f(x) / x``: relevance in is relevance out."""
    return torch.div(output, x + 1e-10).mul_(gradient)


def halved_product(gradient: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Go back through a matrix product, half for each factor (AttnLRP's uniform rule, Prop. 3.3)."""
    half = gradient / 2
    return half @ right.mT, left.mT @ half


def epsilon_linear(gradient: Tensor, output: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Go back through a linear map whose output is moved away from zero by ``epsilon``, which absorbs relevance."""
    share = gradient * output / (output + torch.where(output < 0, -epsilon, epsilon)) if epsilon else gradient
    return share @ weight


def gamma_linear(
    gradient: Tensor, output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: float
) -> Tensor:  # fmt: skip
    """Go back through a linear map that favours contributions of the sign of its output by a factor ``1 + gamma``.

    Source: the generalised gamma rule of zennit (Andéol et al. 2021), for inputs and outputs of either sign.
    """
    above, below = x.clamp(min=0), x.clamp(max=0)
    handed = torch.zeros_like(x)
    for sign in (1, -1):
        # Contributions of the output's own sign: x and w of equal sign for positive outputs, of unequal for negative.
        for_above = weight + gamma * (sign * weight).clamp(min=0) * sign
        for_below = weight + gamma * (-sign * weight).clamp(min=0) * -sign
        total = F.linear(above, for_above) + F.linear(below, for_below)
        if bias is not None:
            total = total + (bias + gamma * (sign * bias).clamp(min=0) * sign)
        chosen = torch.where(output * sign > 0, gradient * output, 0.0)
        share = chosen / (total + torch.where(total < 0, -1e-6, 1e-6))
        handed += torch.where(x > 0, (share @ for_above), 0) + torch.where(x < 0, (share @ for_below), 0)
    return handed
