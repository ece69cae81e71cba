"""Maps of one class from attention, its gradient and its relevance, and from the channels of a convolution.

Pure tensor functions. ``weighted`` stands for one not negative ``(query, key)`` map a layer: what a layer moves in
favour of the class. Nothing is divided by row sums here, so maps are amounts and not shares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def normalise_residual(relevance: Tensor) -> Tensor:
    """Divide the rows of ``relevance - I`` by their sums and add ``I`` again; a row of zeros stays the identity's row.

    Source: Chefer et al. (2021b), Eq. 8-9. Differs from: their code, where a row of zeros becomes NaN, and with it the
        whole update (LXMERT), or the whole update is dropped (DETR).
    """
    identity = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    moved = relevance - identity
    sums = moved.sum(-1, keepdim=True)
    return torch.where(sums == 0, 0.0, moved / sums.where(sums != 0, 1.0)) + identity


@dataclass(frozen=True)
class TwoStreams:
    """Relevance between two streams of tokens that attend to themselves and to each other.

    Attributes:
        own: ``(one, one)``, of the first stream in itself.
        other: ``(two, two)``, of the second stream in itself.
        across: ``(one, two)``, of the second stream in the first.
        back: ``(two, one)``, of the first stream in the second.
    """

    own: Tensor
    other: Tensor
    across: Tensor
    back: Tensor

    @staticmethod
    def begin(one: int, two: int, dtype: torch.dtype = torch.float32) -> TwoStreams:
        """Start with every token relevant to itself only."""
        nothing = torch.zeros(one, two, dtype=dtype)
        return TwoStreams(torch.eye(one, dtype=dtype), torch.eye(two, dtype=dtype), nothing, nothing.T.clone())

    def swap(self) -> TwoStreams:
        """Exchange the roles of the streams."""
        return TwoStreams(self.other, self.own, self.back, self.across)

    def attend_own(self, weighted: Tensor) -> TwoStreams:
        """Take one self-attention ``(one, one)`` of the first stream (Eq. 6-7)."""
        return replace(self, own=self.own + weighted @ self.own, across=self.across + weighted @ self.across)

    def attend_across(self, weighted: Tensor, normalise: bool = True) -> TwoStreams:
        """Let the first stream read the second by one cross attention ``(one, two)`` (Eq. 10-11).

        Where both read each other in one layer, compute both from the same old relevance (:meth:`attend_both`).
        """
        own, other = self.own, self.other
        if normalise:
            own, other = normalise_residual(own), normalise_residual(other)
        return replace(self, across=self.across + own.T @ weighted @ other, own=self.own + weighted @ self.back)

    def attend_both(self, weighted: Tensor, weighted_back: Tensor, normalise: bool = True) -> TwoStreams:
        """Take one layer in which both streams read each other, each from the relevance before the layer."""
        there = self.attend_across(weighted, normalise)
        back = self.swap().attend_across(weighted_back, normalise)
        return TwoStreams(there.own, back.own, there.across, back.across)


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
