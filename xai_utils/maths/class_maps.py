"""Maps of one class from attention, its gradient and its relevance, and from the channels of a convolution.

Pure tensor functions. ``weighted`` stands for one not negative ``(query, key)`` map a layer: what a layer moves in
favour of the class. Nothing is divided by row sums here, so maps are amounts and not shares.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils import check


def positive_mean(maps: Tensor, gradient: Tensor | None = None) -> Tensor:
    """Average the positive part of ``maps * gradient`` over heads.

    Args:
        maps: attention, or the relevance of attention, ``(..., head, query, key)``.
        gradient: of the class score by attention, same shape; ``None`` keeps the maps as they are.

    Returns:
        ``(..., query, key)``, not negative.

    Raises:
        ValueError: the shapes differ, or NaN.

    Source: Chefer et al. (2021a), arXiv:2012.09838, Eq. 13; (2021b), arXiv:2103.15679, Eq. 5.
    """
    if gradient is not None:
        if maps.shape != gradient.shape:
            raise ValueError(f"maps are {tuple(maps.shape)} but their gradient {tuple(gradient.shape)}.")
        weighted = (maps * gradient).relu_().mean(-3)
    else:
        weighted = maps.relu().mean(-3)
    check.finite("maps times gradient", weighted)
    return weighted


def compose(weighted: Tensor, start: int = 0) -> Tensor:
    r"""Follow weighted maps through the layers with their skips: :math:`C = (I + \bar A_L) \cdots (I + \bar A_s)`.

    Args:
        weighted: ``(layer, ..., query, key)``, not negative, from :func:`positive_mean`.
        start: first layer that takes part; the map's scale and contrast depend on it, so say which.

    Returns:
        ``(..., query, input)``. Rows are not normalised.

    Raises:
        ValueError: nothing is positive in any layer of some sample, so that only the skips would be left.

    Source: Chefer et al. (2021a), Eq. 14, with relevance of attention; (2021b), Eq. 6, with attention itself. Their
        "rollout" is this product of relevances without gradient, and not attention rollout.
    """
    layers = _layers(weighted, start)
    identity = torch.eye(weighted.shape[-1], dtype=weighted.dtype, device=weighted.device)
    return reduce(lambda below, layer: below + layer @ below, layers[1:], identity + layers[0])


def compose_row(weighted: Tensor, reader: Tensor, start: int = 0) -> Tensor:
    """Compute ``reader @ compose(weighted, start)``, ``(..., input)``, in O(layers x tokens²).

    ``reader``, ``(..., query)``, weighs the rows: one at the class token, or a half at each of two.
    """
    row = reader[..., None, :]
    for layer in _layers(weighted, start).flip(0):
        row = row + row @ layer
    return row.squeeze(-2)


def _layers(weighted: Tensor, start: int) -> Tensor:
    """Return the layers from ``start`` on after checking them."""
    check.square_stack("weighted", weighted)
    check.non_negative("weighted", weighted)
    check.index("start", start, len(weighted))
    if not weighted.amax((0, -1, -2)).all():
        raise ValueError("no layer moves anything in favour of this class: the map would be empty.")
    return weighted[start % len(weighted) :]


def attention_gradcam(rows: Tensor, gradient: Tensor) -> Tensor:
    """Weight each head's row by the mean of its gradient, average over heads, keep the positive part.

    Args:
        rows: ``(..., head, token)``: what the class token reads in the last layer, prefix left out.
        gradient: of the class score by ``rows``.

    Returns:
        ``(..., token)``; all zero where no head speaks for the class.

    Source: the Grad-CAM baseline of Chefer et al. (2021a), after Selvaraju et al. (2017), arXiv:1610.02391.
    Differs from: their code in keeping the amounts (there: min-max, which divides by 0 for a constant map).
    """
    if rows.shape != gradient.shape:
        raise ValueError(f"rows are {tuple(rows.shape)} but their gradient {tuple(gradient.shape)}.")
    return (gradient.mean(-1, keepdim=True) * rows).mean(-2).clamp(min=0)


def gradcam(activation: Tensor, gradient: Tensor, signed: bool = False) -> Tensor:
    """Weight each channel by the mean of its gradient and add up: ``(..., row, column)``.

    Args:
        activation: output of a convolutional stage, ``(..., channel, row, column)``.
        gradient: of the class score by ``activation``.
        signed: keep evidence against the class too.

    Source: Selvaraju et al. (2017), arXiv:1610.02391, Eq. 1-2.
    """
    if activation.shape != gradient.shape or activation.ndim < 3:
        raise ValueError(
            f"activation is {tuple(activation.shape)} and its gradient {tuple(gradient.shape)}; expected two times "
            "(..., channel, row, column)."
        )
    summed = (gradient.mean((-2, -1), keepdim=True) * activation).sum(-3)
    return summed if signed else summed.clamp(min=0)


def onto_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring ``(sample, row, column)`` onto a grid: averaged over cells where it is finer, bilinear where coarser."""
    if maps.shape[-2] >= grid[0] and maps.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(maps, grid)
    return F.interpolate(maps[:, None], grid, mode="bilinear", align_corners=False)[:, 0]
