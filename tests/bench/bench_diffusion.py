"""Time selective rollout and the diffusion filters against the decompositions alone: 12 layers, 197 tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.bench.measure import DEVICE, Against, Row, in_turn
from xai_utils.maths import diffusion, selective

LIMIT = 2.0  # of the decomposition
SYMMETRIC = ("enhancement",)  # its published form decomposes a symmetric matrix


def rows(quick: bool = False) -> Iterator[Row]:
    """Compare every filter, guard included, with the decomposition that its textbook form would need."""
    pictures, repeats = (2, 1) if quick else (64, 3)
    noise = torch.Generator().manual_seed(0)
    maps = (3 * torch.randn(12, pictures, 197, 197, generator=noise)).softmax(-1).to(DEVICE)
    symmetric = (maps + maps.mT) / 2
    svd, eigh = "torch.linalg.svd", "torch.linalg.eigh"
    filters = [name for name in diffusion.FILTERS if name != "identity"]
    works = {name: lambda name=name: diffusion.diffuse(maps, name) for name in filters}  # type: ignore[misc]
    works["selective rollout"] = lambda: selective.selective_rollout(maps, 0.1, "total_variation")
    works |= {svd: lambda: torch.linalg.svd(maps), eigh: lambda: torch.linalg.eigh(symmetric)}  # type: ignore[dict-item]
    times = in_turn(works, repeats)
    for name in [*filters, "selective rollout"]:
        textbook = eigh if name in SYMMETRIC else svd
        case = f"{name}, maps of {pictures} pictures, 12 layers, 197 tokens"
        yield Row(case, times[name], Against(textbook, times[textbook], LIMIT))
