"""Time perturbation scores against the model's own batched forward pass on as many inputs of the same shape."""

from __future__ import annotations

import time

import torch

from xai_utils import models, samples
from xai_utils.metrics.removal_curves import QUARTERS, keep_both
from xai_utils.models import removal
from xai_utils.models.encoding import encode

TARGET = 1 / 0.85  # at least 85 % of the model's own throughput
BATCH = 64


def masks(batch: object, seed: int) -> torch.Tensor:
    """Return the keep masks of both curves of a random map, ends included."""
    tokens = len(batch.labels[0])  # type: ignore[attr-defined]
    spans = batch.spans[0] if batch.spans else ((0, 1),) * tokens  # type: ignore[attr-defined]
    places = torch.tensor([i for i, (start, end) in enumerate(spans) if start < end])
    scores = torch.rand(len(places), generator=torch.Generator().manual_seed(seed))
    return keep_both(scores.double(), places, tokens, QUARTERS, seed).flatten(0, 1)


@torch.inference_mode()
def measure(name: str, some: list, operator: str, repeats: int) -> tuple[float, float]:
    """Return median processor seconds of masked scoring and of plain passes on the unmasked inputs, taken in turn."""
    model = models.load(name)
    batches = [encode(model, [one]) for one in some]
    keeps = [{operator: masks(batch, i)} for i, batch in enumerate(batches)]
    repeated = [
        {key: value.expand(len(keep[operator]), *value.shape[1:]).contiguous() for key, value in batch.inputs.items()}
        for batch, keep in zip(batches, keeps, strict=True)
    ]
    plain = [removal._together(model, repeated[i : i + BATCH // 10]) for i in range(0, len(repeated), BATCH // 10)]

    def forward() -> None:
        for inputs in plain:
            model.logits(inputs)

    def masked() -> None:
        removal.ask(model, batches, keeps, BATCH)

    times: dict[object, list[float]] = {forward: [], masked: []}
    for run in range(repeats + 1):
        for work in (forward, masked):
            begun = time.process_time()
            work()
            if run:
                times[work].append(time.process_time() - begun)
    ours, theirs = (sorted(times[work])[repeats // 2] for work in (masked, forward))
    return ours, theirs


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Compare masked with plain passes on reviews and scenes, by every operator."""
    count, repeats = (6, 1) if quick else (18, 5)
    cases = [("minilm-sst2", samples.reviews(count), ("mask", "delete", "unknown"))]
    cases.append(("vit-scenes", samples.scene_pictures(count, 2, 5000), ("mean", "blur", "black")))
    table = []
    for name, some, operators in cases:
        for operator in operators:
            ours, theirs = measure(name, list(some), operator, repeats)
            named = {"case": f"{name}, {operator}, {count} samples × 10 masks"}
            named |= {"ours": "masks and passes", "compared with": "passes alone"}
            table.append({**named, "seconds": ours, "theirs (s)": theirs, "ratio": ours / theirs, "target": TARGET})
    return table
