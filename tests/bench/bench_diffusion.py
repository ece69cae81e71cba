"""Time selective rollout and the diffusion filters against the decompositions alone: 12 layers, 197 tokens."""

from __future__ import annotations

import torch

from tests.bench.bench_capture import in_turn, row
from xai_utils.maths import diffusion, selective

LIMIT = 2.0  # of the decomposition
SYMMETRIC = ("enhancement",)  # its published form decomposes a symmetric matrix


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Compare every filter, guard included, with the decomposition that its textbook form would need."""
    pictures, repeats = (4, 1) if quick else (64, 3)
    noise = torch.Generator().manual_seed(0)
    maps = (3 * torch.randn(12, pictures, 197, 197, generator=noise)).softmax(-1)
    symmetric = (maps + maps.mT) / 2
    svd, eigh = "torch.linalg.svd", "torch.linalg.eigh"
    filters = [name for name in diffusion.FILTERS if name != "identity"]
    works = {name: lambda name=name: diffusion.diffuse(maps, name) for name in filters}  # type: ignore[misc]
    works["selective"] = lambda: selective.selective_rollout(maps, 0.1, "total_variation")
    works |= {svd: lambda: torch.linalg.svd(maps), eigh: lambda: torch.linalg.eigh(symmetric)}  # type: ignore[dict-item]
    times = in_turn(works, repeats)
    case = f"diffusion, {pictures} pictures, 12 layers, 197 tokens"
    return [row(case, name, eigh if name in SYMMETRIC else svd, times, LIMIT) for name in [*filters, "selective"]]
