r"""Selective rollout: compose only the layers whose attention differs enough from the layer composed before.

Pure tensor functions on stacks ``(layer, ..., query, key)``, as in :mod:`rollout`; every sample of a batch selects its
own layers.

Source: M. Khullar's thesis code (repository manuragkhullar/XAI_thesis), which uses the Frobenius distance, the last
used layer as reference, and a threshold of 1. That distance grows with the square root of the number of tokens; the
other distances do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import rollout

REFERENCES = ("last_used", "previous")


def frobenius(one: Tensor, other: Tensor) -> Tensor:
    """Return the Frobenius distance of two maps ``(..., query, key)``; at most √(2 queries), the published choice."""
    return (one - other).flatten(-2).norm(dim=-1)


def scaled_frobenius(one: Tensor, other: Tensor) -> Tensor:
    """Return :func:`frobenius` divided by its greatest value, √(2 queries); in [0, 1]."""
    return frobenius(one, other) / (2 * one.shape[-2]) ** 0.5


def total_variation(one: Tensor, other: Tensor) -> Tensor:
    """Return the share of attention that has to move, mean over rows: half the L1 distance; in [0, 1]."""
    return 0.5 * (one - other).abs().sum(-1).mean(-1)


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of the rows in bits, mean over rows; in [0, 1]."""
    middle = (one + other) / 2
    below = torch.xlogy(one, one) + torch.xlogy(other, other) - 2 * torch.xlogy(middle, middle)
    return (0.5 * below.sum(-1)).mean(-1).clamp(min=0) / torch.log(torch.tensor(2.0, dtype=one.dtype))


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "frobenius": frobenius,
    "scaled_frobenius": scaled_frobenius,
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
}


@dataclass(frozen=True, eq=False)
class Selection:
    """A rollout and the layers it went through.

    Attributes:
        rolled: ``(layer, ..., query, input)``; a layer that is left out repeats the map below it.
        used: ``(layer, ...)`` bool.
        distances: ``(layer, ...)`` of each layer from its reference; 0 for the first layer, which has none.
    """

    rolled: Tensor
    used: Tensor
    distances: Tensor


def selective_rollout(
    maps: Tensor,
    threshold: float,
    distance: str = "frobenius",
    reference: str = "last_used",
    residual: float = 0.5,
) -> Selection:
    """Roll out through the layers that differ by more than ``threshold`` from their reference.

    Args:
        maps: head-fused attention ``(layer, ..., query, key)``; rows sum to 1.
        threshold: in the unit of the distance; a layer is used if its distance is strictly greater. 0 leaves out only
            layers that change nothing, so it gives the plain rollout unless two layers are equal.
        distance: a name in :data:`DISTANCES`; distances are taken between maps with their skip connection mixed in, so
            the bounded ones lie in [0, 1 - residual].
        reference: ``"last_used"`` (published) or ``"previous"`` layer, used or not.
        residual: share of the skip connection, in [0, 1].

    Raises:
        ValueError: a threshold below 0, NaN, or above 1 for a bounded distance; unknown names; no attention maps.
    """
    used, distances = _choose(maps, threshold, distance, reference, residual)
    return Selection(rollout_through(maps, used, residual), used, distances)


def layers_used(
    maps: Tensor, threshold: float, distance: str = "frobenius", reference: str = "last_used", residual: float = 0.5
) -> Tensor:
    """Return which layers :func:`selective_rollout` goes through, ``(layer, ...)`` bool; always the first."""
    return _choose(maps, threshold, distance, reference, residual)[0]


def _choose(maps: Tensor, threshold: float, distance: str, reference: str, residual: float) -> tuple[Tensor, Tensor]:
    check.one_of("distance", distance, tuple(DISTANCES))
    check.one_of("reference", reference, REFERENCES)
    _in_range(threshold, distance)
    mixed = rollout.mix(maps, residual)
    against = mixed[0]
    used = [torch.ones(mixed.shape[1:-2], dtype=torch.bool, device=maps.device)]
    distances = [torch.zeros(mixed.shape[1:-2], dtype=maps.dtype, device=maps.device)]
    for step in mixed[1:]:
        distances.append(DISTANCES[distance](step, against))
        used.append(distances[-1] > threshold)
        against = step if reference == "previous" else torch.where(used[-1][..., None, None], step, against)
    return torch.stack(used), torch.stack(distances)


def _in_range(threshold: float, distance: str) -> None:
    most = float("inf") if distance == "frobenius" else 1.0
    if not 0 <= threshold <= most:
        wanted = "at least 0" if distance == "frobenius" else "between 0 and 1"
        raise ValueError(f"threshold is {threshold}, expected {wanted} for the distance {distance}.")


def rollout_through(maps: Tensor, used: Tensor, residual: float = 0.5) -> Tensor:
    """Roll out through the marked layers only; the others leave every position as it is.

    Args:
        maps: ``(layer, ..., query, key)``; rows sum to 1.
        used: ``(layer, ...)`` bool.
        residual: share of the skip connection, in [0, 1].

    Returns:
        ``(layer, ..., query, input)``.
    """
    if used.dtype != torch.bool or used.shape != maps.shape[:-2]:
        raise ValueError(f"used is {used.dtype} {tuple(used.shape)}, expected bool {tuple(maps.shape[:-2])}.")
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    mixed = rollout.mix(maps, residual)
    rolled, below = [], identity.expand_as(mixed[0])
    for step, here in zip(mixed, used, strict=True):
        below = torch.where(here[..., None, None], step @ below, below)
        rolled.append(below)
    return torch.stack(rolled)


def row_through(maps: Tensor, used: Tensor, query: int = 0, residual: float = 0.5) -> Tensor:
    """Compute one row of the last map of :func:`rollout_through` for many choices of layers at once.

    Args:
        maps: of one sample, ``(layer, query, key)``; rows sum to 1.
        used: ``(layer, ...)`` bool, a choice of layers for each of the axes behind.
        query: the position that is read; -1 is the last.
        residual: share of the skip connection, in [0, 1].

    Returns:
        ``(..., input)``; a vector and not a matrix is carried, from the top.
    """
    if used.dtype != torch.bool or len(used) != len(maps):
        raise ValueError(f"used is {used.dtype} {tuple(used.shape)}, expected bool, {len(maps)} layers first.")
    mixed = rollout.mix(maps, residual)
    check.index("query", query, maps.shape[-1])
    row = torch.zeros(*used.shape[1:], maps.shape[-1], dtype=maps.dtype, device=maps.device)
    row[..., query] = 1
    for step, here in zip(mixed.flip(0), used.flip(0), strict=True):
        row = torch.where(here[..., None], row @ step, row)
    return row


def first_layers(used: Tensor) -> Tensor:
    """Return a control with as many layers, all at the bottom: ``(layer, ...)`` bool like ``used``."""
    place = torch.arange(len(used), device=used.device).view(-1, *[1] * (used.ndim - 1))
    return place < used.sum(0)


def random_layers(used: Tensor, seed: int | Sequence[int], draws: int = 20, keep_first: bool = True) -> Tensor:
    """Return controls with as many layers, drawn without repetition: ``(layer, ..., draw)`` bool for ``(layer, ...)``.

    Args:
        used: ``(layer, ...)`` bool.
        seed: of the draws.
        draws: how many controls.
        keep_first: every control uses the first layer, as the rule does; only the others are drawn then.
    """
    check.at_least_one("draws", draws)
    noise = torch.from_numpy(np.random.default_rng(seed).random((*used.shape, draws))).to(used.device)
    if keep_first:
        noise[0] = -1
    return noise.argsort(0).argsort(0) < used.sum(0)[..., None]


def calibrate(
    stacks: Sequence[Tensor], quantile: float, distance: str = "total_variation", residual: float = 0.5
) -> float:
    """Return the threshold that a share ``quantile`` of the steps between neighbouring layers does not exceed.

    Args:
        stacks: attention maps ``(layer, query, key)`` of calibration samples, of any lengths; two layers at least.
        quantile: in [0, 1]; 0.5 leaves out about half the layers of such samples.
        distance: a name in :data:`DISTANCES`.
        residual: share of the skip connection, in [0, 1].
    """
    check.share("quantile", quantile)
    check.one_of("distance", distance, tuple(DISTANCES))
    if not stacks or any(len(stack) < 2 for stack in stacks):
        raise ValueError("calibration needs at least one sample, each with at least two layers.")
    steps = [
        DISTANCES[distance](above, below) for stack in stacks for below, above in pairwise(rollout.mix(stack, residual))
    ]
    return float(torch.stack(steps).double().quantile(quantile))
