"""Time the foreground fraction of many maps, and weigh the memory of transformer attribution."""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np
import torch

from xai_utils import metrics

SECONDS = 1.0  # for 1,000 maps, masks of 224 x 224 pixels included
REPEATS = 3


def one_by_one(maps: torch.Tensor, masks: torch.Tensor) -> list[float]:
    """Score map by map."""
    return [
        metrics.mass_inside(scores.flatten(), metrics.cover(mask.numpy(), tuple(scores.shape)))  # type: ignore[arg-type]
        for scores, mask in zip(maps, masks, strict=True)
    ]


def seconds(work: object) -> float:
    """Return the median processor time of some runs."""
    taken = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()  # type: ignore[operator]
        taken.append(time.process_time() - begun)
    return float(np.median(taken))


def peak(name: str, count: int, out: object) -> None:
    """Send the peak memory in MB of explaining ``count`` pictures of DeiT-tiny's size, in this fresh process."""
    from tests.bench.bench_methods import pictures, vision_model
    from xai_utils.methods import relevance
    from xai_utils.models.encoding import encode

    torch.set_num_threads(1)
    model = vision_model()
    batch = encode(model, pictures(count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "plain":
        inputs = {key: value.requires_grad_() for key, value in batch.inputs.items()}
        model.logits(inputs)[:, 0].sum().backward()
    else:
        relevance.transformer_attribution(model, batch, [0] * count)
    out.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)  # type: ignore[attr-defined]


def memory(name: str, count: int) -> float:
    """Return MB above the peak of loading and encoding, measured in a process of its own; 0 where that was higher."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=peak, args=(name, count, there))
    process.start()
    found = here.recv()
    process.join()
    return float(found)


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure 1,000 maps, and a batch of 16 pictures; the memory rows hold MB in place of seconds."""
    count, batch = (100, 2) if quick else (1000, 16)
    noise = torch.Generator().manual_seed(0)
    maps = torch.rand(count, 14, 14, generator=noise)
    masks = torch.rand(count, 224, 224, generator=noise) > 0.7
    ours, loop = (seconds(lambda f=f: f(maps, masks)) for f in (metrics.foreground_fraction, one_by_one))
    plain, whole = memory("plain", batch), memory("relevance", batch)
    case = f"{count:,} maps of 14 x 14, masks of 224 x 224"
    return [
        {"case": case, "ours": "FAF", "compared with": f"the wanted {SECONDS:g} s", "seconds": ours,
         "theirs (s)": SECONDS, "ratio": ours / SECONDS, "target": 1.0},
        {"case": case, "ours": "FAF", "compared with": "map by map", "seconds": ours, "theirs (s)": loop,
         "ratio": ours / loop},
        {"case": f"peak memory of {batch} pictures, DeiT-tiny, MB for seconds", "ours": "transformer attribution",
         "compared with": "fused forward + backward", "seconds": whole, "theirs (s)": plain,
         "ratio": whole / plain if plain else None},
    ]  # fmt: skip
