"""Time AttCAT of 64 sentences in a batch against one by one, and DensRay against its loop over pairs."""

from __future__ import annotations

import torch

from tests import oracles
from tests.bench.bench_capture import in_turn, row
from xai_utils import models
from xai_utils.gender import probes
from xai_utils.maths import densray
from xai_utils.samples import gender


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Compare on the bundled model, and on Gaussian vectors (the loop is timed on few, and scaled by pairs)."""
    model = models.load("minilm-mlm")
    asked = gender.probes("occupation")[: 16 if quick else 64]
    works = {
        "batched": lambda: probes.observe(model, asked).scores("AttCAT"),
        "one by one": lambda: [probes.observe(model, [one]).scores("AttCAT") for one in asked],
    }
    found = [row(f"AttCAT, {len(asked)} sentences", "batched", "one by one", in_turn(works, 1 if quick else 5), 0.25)]
    noise = torch.Generator().manual_seed(0)
    count, few = (200, 10) if quick else (1000, 20)
    x, y = torch.randn(2, count, 768, generator=noise, dtype=torch.float64)
    works = {
        "fast identity": lambda: densray.densray(x, y),
        "loop over pairs": lambda: oracles.densray_matrix(x[:few], y[:few], True),
    }
    times = in_turn(works, 1 if quick else 3)
    times["loop over pairs"] *= (count / few) ** 2
    found.append(row(f"DensRay, {count} + {count} x 768", "fast identity", "loop over pairs", times, 0.02))
    return found
