"""Time the foreground fraction of many maps against map by map."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.bench.measure import Against, Row, in_turn, peak
from xai_utils import metrics


def one_by_one(maps: torch.Tensor, masks: torch.Tensor) -> list[float]:
    """Score map by map."""
    return [
        metrics.mass_inside(scores.flatten(), metrics.cover(mask.numpy(), tuple(scores.shape)))  # type: ignore[arg-type]
        for scores, mask in zip(maps, masks, strict=True)
    ]


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure 1,000 maps."""
    count = 100 if quick else 1000
    noise = torch.Generator().manual_seed(0)
    maps = torch.rand(count, 14, 14, generator=noise)
    masks = torch.rand(count, 224, 224, generator=noise) > 0.7
    works = {"ours": lambda: metrics.foreground_fraction(maps, masks), "plain": lambda: one_by_one(maps, masks)}
    times = in_turn(works, 1 if quick else 3)
    case = f"foreground fraction, {count:,} maps of 14 × 14, masks of 224 × 224 pixels"
    yield Row(case, times["ours"], Against("map by map", times["plain"], 1.0), None, peak(works["ours"]))
