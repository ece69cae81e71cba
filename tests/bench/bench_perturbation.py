"""Time what asks the model again and again: removal curves and leave-one-out, against passes, captum and Quantus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from tests.bench.measure import DEVICE, Against, Row, in_turn, peak, program
from xai_utils import models, samples
from xai_utils.methods import explain
from xai_utils.metrics.removal_curves import QUARTERS, keep_both, keep_masks
from xai_utils.models import Model, removal
from xai_utils.models.encoding import Batch, encode

TARGET = 1 / 0.85  # at least 85 % of the model's own throughput
BATCH = 64
EIGHTHS = tuple(n / 8 for n in range(9))


def masks(batch: Batch, seed: int) -> Tensor:
    """Return the keep masks of both curves of a random map, ends included."""
    tokens, places = len(batch.labels[0]), removal.places(batch)
    scores = torch.rand(len(places), generator=torch.Generator().manual_seed(seed))
    return keep_both(scores.double(), places, tokens, QUARTERS, seed).flatten(0, 1)


def curves(name: str, some: list, operator: str, repeats: int) -> Row:
    """Time masked scoring against plain passes on as many unmasked inputs of the same shapes."""
    model = models.load(name, DEVICE)
    batches = [encode(model, [one]) for one in some]
    keeps = [{operator: masks(batch, i)} for i, batch in enumerate(batches)]
    repeated = [
        {key: value.expand(len(keep[operator]), *value.shape[1:]).contiguous() for key, value in batch.inputs.items()}
        for batch, keep in zip(batches, keeps, strict=True)
    ]
    plain = [removal._together(model, repeated[i : i + BATCH // 10]) for i in range(0, len(repeated), BATCH // 10)]

    def ours() -> None:
        removal.ask(model, batches, keeps, BATCH)

    @torch.inference_mode()
    def forward() -> None:
        for inputs in plain:
            model.logits(inputs)

    times = in_turn({"ours": ours, "plain": forward}, repeats)
    case = f"removal curves by {operator}, {name}, {len(some)} samples × {len(keeps[0][operator])} masks"
    return Row(case, times["ours"], Against("passes on as many whole inputs", times["plain"], TARGET), None, peak(ours))


def captum_leaves_out(model: Model, batch: Batch) -> Callable[[], object]:
    """Return captum's ablation of one token at a time by the same word, 64 a pass."""
    from captum.attr import FeatureAblation

    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]

    def forward(given: Tensor) -> Tensor:
        return model.logits({**batch.inputs, "input_ids": given, "attention_mask": mask.expand(len(given), -1)})[:, 1]

    method, word = FeatureAblation(forward), model.tokenizer.mask_token_id
    return torch.inference_mode()(lambda: method.attribute(ids, baselines=word, perturbations_per_eval=BATCH))


def left_out(repeats: int) -> Row:
    """Time leave-one-out of one long review."""
    model = models.load("minilm-sst2", DEVICE)
    longest = max(samples.reviews(200), key=lambda one: len(one.text))
    batch = encode(model, [longest])
    tokens = len(batch.labels[0])
    together = {key: value.expand(tokens, -1).contiguous() for key, value in batch.inputs.items()}

    @torch.inference_mode()
    def forward() -> None:
        model.logits(together)

    works: dict[str, Callable[[], object]] = {
        "ours": lambda: explain("leave_one_out", model, longest, 1, operator="mask"),
        "plain": forward,
    }
    name = program("captum", works, lambda: captum_leaves_out(model, batch))
    times = in_turn(works, repeats)
    plain, peer = (
        Against(f"{tokens} plain passes, one batch", times["plain"], TARGET),
        Against(name, times.get(name), 1.0),
    )
    return Row(f"leave one out, {tokens} tokens, minilm-sst2", times["ours"], plain, peer, peak(works["ours"]))


def quantus_flips(model: Model, batch: Batch, maps: np.ndarray, steps: int) -> Callable[[], object]:
    """Return Quantus' pixel flipping in as many steps, over the same pictures and maps."""
    import quantus

    pixels = batch.inputs["pixel_values"] if "pixel_values" in batch.inputs else batch.inputs["x"]
    metric = quantus.PixelFlipping(
        features_in_step=maps[0].size // steps,
        perturb_baseline="mean",
        disable_warnings=True,
        display_progressbar=False,
    )
    whole = {"x_batch": pixels.cpu().numpy(), "y_batch": np.zeros(len(maps), int), "a_batch": maps}
    return lambda: metric(model=model.module, **whole, device=DEVICE)


def flips(quick: bool) -> Row:
    """Time deletion curves of many pictures in eight steps."""
    count, model = 4 if quick else 16, models.load("vit-scenes", DEVICE)
    some = list(samples.scene_pictures(count, 2, 5000))
    batch = encode(model, some)
    places = [removal.places(encode(model, [one])) for one in some]
    noise = torch.Generator().manual_seed(0)
    scores = torch.rand(count, len(places[0]), generator=noise, dtype=torch.float64)
    keeps = [keep_masks(place[row.argsort(descending=True)], len(batch.labels[0]), EIGHTHS)
             for place, row in zip(places, scores, strict=True)]  # fmt: skip
    batches = [encode(model, [one]) for one in some]
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: removal.ask(model, batches, [{"mean": keep} for keep in keeps], BATCH)
    }
    side = int(len(places[0]) ** 0.5)
    pixels = next(iter(batch.inputs.values())).shape[-1]
    large = scores.view(count, 1, side, side).repeat_interleave(pixels // side, 2).repeat_interleave(pixels // side, 3)
    name = program("quantus", works, lambda: quantus_flips(model, batch, large.numpy(), len(EIGHTHS) - 1))
    times = in_turn(works, 1 if quick else 3)
    case = f"deletion curve in {len(EIGHTHS) - 1} steps, vit-scenes, {count} pictures"
    return Row(case, times["ours"], None, Against(name, times.get(name), 1.0), peak(works["ours"]))


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure reviews and scenes, by every operator."""
    count, repeats = (6, 1) if quick else (18, 5)
    for operator in ("mask", "delete", "unknown"):
        yield curves("minilm-sst2", list(samples.reviews(count)), operator, repeats)
    for operator in ("mean", "blur", "black"):
        yield curves("vit-scenes", list(samples.scene_pictures(count, 2, 5000)), operator, repeats)
    yield left_out(repeats)
    yield flips(quick)
