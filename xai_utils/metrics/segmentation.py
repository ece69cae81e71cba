"""Read a map as a segmentation of the picture and compare it with the object's mask. Pure functions on patches."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_utils import check


def above_mean(scores: Tensor) -> Tensor:
    """Mark the patches ``(token,)`` whose score is above the map's own mean; a constant map marks nothing.

    Source: the threshold of Chefer et al. (2021a), arXiv:2012.09838, section 4. It makes a blob in the middle of the
    picture look good, so compare with the centre prior.
    """
    _fits(scores, scores)
    return scores > scores.double().mean()


def top_area(scores: Tensor, area: float, seed: int) -> Tensor:
    """Mark as many of the highest patches ``(token,)`` as cover an area, at least one; ties in seeded random order.

    Args:
        scores: ``(token,)``.
        area: share of the picture, in (0, 1].
        seed: of the order of ties.
    """
    check.share("area", area)
    _fits(scores, scores)
    noise = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    order = noise[scores[noise].argsort(descending=True, stable=True)]
    return torch.zeros(len(scores), dtype=torch.bool).index_fill(0, order[: max(1, round(area * len(scores)))], True)


def pixel_accuracy(marked: Tensor, inside: Tensor) -> float:
    """Return the share of the picture on which marks and mask agree.

    Args:
        marked: ``(token,)`` bool.
        inside: ``(token,)`` bool, or share of each patch that is inside.
    """
    _fits(marked, inside)
    one, other = marked.double(), inside.double()
    return float((one * other + (1 - one) * (1 - other)).mean())


def iou(marked: Tensor, inside: Tensor) -> float:
    """Return intersection over union of the object; patches count by their share inside."""
    _fits(marked, inside)
    one, other = marked.double(), inside.double()
    if not other.any():
        raise ValueError("the mask is empty: there is no object to overlap with.")
    shared = float((one * other).sum())
    return shared / (float(one.sum() + other.sum()) - shared)


def _fits(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(f"expected two (token,) vectors of one length, got {tuple(one.shape)}, {tuple(other.shape)}.")
    check.finite("scores", one)
