"""Time AttCAT of 64 sentences in a batch against one by one, and DensRay against its loop over pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests import oracles
from tests.bench.measure import DEVICE, Against, Row, in_turn, peak
from xai_utils import models
from xai_utils.gender import probes
from xai_utils.maths import densray
from xai_utils.samples import gender


def rows(quick: bool = False) -> Iterator[Row]:
    """Compare on the bundled model, and on Gaussian vectors (the loop is timed on few, and scaled by pairs)."""
    model = models.load("minilm-mlm", DEVICE)
    asked = gender.probes("occupation")[: 16 if quick else 64]
    works = {
        "ours": lambda: probes.observe(model, asked).scores("AttCAT"),
        "loop": lambda: [probes.observe(model, [one]).scores("AttCAT") for one in asked],
    }
    times = in_turn(works, 1 if quick else 5)
    loop = Against("one by one", times["loop"], 0.25)
    yield Row(f"AttCAT, {len(asked)} sentences", times["ours"], loop, None, peak(works["ours"]))
    noise = torch.Generator().manual_seed(0)
    count, few = (200, 10) if quick else (1000, 20)
    x, y = torch.randn(2, count, 768, generator=noise, dtype=torch.float64)
    works = {
        "ours": lambda: densray.densray(x, y),
        "loop": lambda: oracles.densray_matrix(x[:few], y[:few], True),
    }
    times = in_turn(works, 1 if quick else 3)
    pairs = Against("loop over pairs, by scale", times["loop"] * (count / few) ** 2, 0.02)
    yield Row(f"DensRay, {count} + {count} vectors of 768", times["ours"], pairs, None, peak(works["ours"]))
