"""Maps that know nothing of the model, or nearly nothing: what every method has to beat.

Chance, place and contrast; what a table of localisation shows beside them is :func:`on_pictures.beside`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from xai_utils.metrics.pictures import centre_prior
from xai_utils.models import Model
from xai_utils.models.encoding import Batch, encode, patch_sums
from xai_utils.models.targets import Asked
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample


def null(
    name: str,
    model: Model,
    samples: Sequence[Sample] | Mapping[str, Tensor],
    question: Asked | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Return the null maps of some samples.

    Args:
        name: in :data:`NULLS`, and made for this kind of model.
        model: the model, whose tokens are scored.
        samples: sentences, pictures, or tensors of one's own.
        question: what is asked of each; only the raw gradient looks at it.
        seed: of the random map, together with the sample's name: the same for every batch.
    """
    batch = encode(model, samples)
    if name == "pixel_gradient":
        assert question is not None
        maps = _pixel_gradient(model, batch, question)
    else:
        names = map(str, range(len(batch))) if isinstance(samples, Mapping) else (one.name for one in samples)
        noises = [np.random.default_rng([seed, zlib.crc32(name.encode())]) for name in names]
        maps = [_KNOWING_NOTHING[name](batch, i, noise) for i, noise in enumerate(noises)]
    pairs = [(None, "")] * len(maps) if question is None else zip(question.targets, question.names, strict=True)
    return [
        Attribution(one, batch.labels[i], name, model.name, target, called, "none", False, batch.grid)
        for i, (one, (target, called)) in enumerate(zip(maps, pairs, strict=True))
    ]


def _pixel_gradient(model: Model, batch: Batch, question: Asked) -> list[Tensor]:
    """Squared length of the gradient of what is asked at the pixels, added up by patch."""
    ((name, pixels),) = batch.inputs.items()
    with torch.enable_grad():
        leaf = pixels.clone().requires_grad_()
        question.score(model.logits({name: leaf})).sum().backward()
    assert leaf.grad is not None
    return list(patch_sums(leaf.grad.square().sum(1), batch)[:, batch.prefix :].cpu())


def _contrast(batch: Batch, i: int) -> Tensor:
    """Return how far the pixels of each patch are from the picture's median, channel by channel, on average.

    An object in a colour of its own is found by this without any model, so it is what a map of such objects must beat.
    """
    pixels = next(iter(batch.inputs.values()))[i].double()
    apart = (pixels - pixels.flatten(1).median(1).values[:, None, None]).abs().mean(0)
    return patch_sums(apart[None], batch)[0, batch.prefix :].cpu() / apart.numel() * len(batch.labels[i])


NULLS: dict[str, tuple[str, ...]] = {
    "random": ("text", "vision"),
    "uniform": ("text", "vision"),
    "centre": ("vision",),
    "contrast": ("vision",),
    "length": ("text",),
    "position": ("text",),
    "pixel_gradient": ("vision",),
}
#: ``(batch, sample, noise) -> (token,)``; long tokens come first, or late ones.
_KNOWING_NOTHING: dict[str, Callable[[Batch, int, np.random.Generator], Tensor]] = {
    "random": lambda batch, i, noise: torch.from_numpy(noise.random(len(batch.labels[i]))),
    "uniform": lambda batch, i, noise: torch.ones(len(batch.labels[i]), dtype=torch.float64),
    "centre": lambda batch, i, noise: centre_prior(batch.grid or (0, 0), between_centres=True).flatten(),
    "contrast": lambda batch, i, noise: _contrast(batch, i),
    "length": lambda batch, i, noise: torch.tensor([end - start + 1 for start, end in batch.spans[i]]).double(),
    "position": lambda batch, i, noise: torch.arange(1.0, len(batch.labels[i]) + 1, dtype=torch.float64),
}
