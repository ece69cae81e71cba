"""Maps that know nothing of the model, or nearly nothing: what every method has to beat."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from xai_utils.models import Model
from xai_utils.models.encoding import Batch, encode, patch_sums
from xai_utils.models.targets import Asked
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample

SPREAD = 0.25  #: standard deviation of the centre prior, of the picture's side


def null(
    name: str, model: Model, samples: Sequence[Sample], question: Asked | None = None, seed: int = 0
) -> list[Attribution]:
    """Return the null maps of some samples.

    Args:
        name: in :data:`NULLS`, and made for this kind of model.
        model: the model, whose tokens are scored.
        samples: sentences or pictures.
        question: what is asked of each; only the raw gradient looks at it.
        seed: of the random map, together with the sample's name: the same for every batch.
    """
    batch = encode(model, samples)
    if name == "pixel_gradient":
        assert question is not None
        maps = _pixel_gradient(model, batch, question)
    else:
        noises = [np.random.default_rng([seed, zlib.crc32(one.name.encode())]) for one in samples]
        maps = [_KNOWING_NOTHING[name](batch, i, noise) for i, noise in enumerate(noises)]
    return [
        Attribution(one, batch.labels[i], name, model.name, unit="none", grid=batch.grid) for i, one in enumerate(maps)
    ]


def _random(batch: Batch, sample: int, noise: np.random.Generator) -> Tensor:
    return torch.from_numpy(noise.random(len(batch.labels[sample])))


def _uniform(batch: Batch, sample: int, noise: np.random.Generator) -> Tensor:
    return torch.ones(len(batch.labels[sample]), dtype=torch.float64)


def _centre(batch: Batch, sample: int, noise: np.random.Generator) -> Tensor:
    """A Gaussian in the middle of the picture."""
    assert batch.grid is not None
    row, column = (torch.linspace(-0.5, 0.5, size, dtype=torch.float64) for size in batch.grid)
    return torch.exp(-(row[:, None] ** 2 + column**2) / (2 * SPREAD**2)).flatten()


def _length(batch: Batch, sample: int, noise: np.random.Generator) -> Tensor:
    """Long tokens first."""
    return torch.tensor([end - start + 1.0 for start, end in batch.spans[sample]], dtype=torch.float64)


def _position(batch: Batch, sample: int, noise: np.random.Generator) -> Tensor:
    """Late tokens first."""
    return torch.arange(1.0, len(batch.labels[sample]) + 1, dtype=torch.float64)


def _pixel_gradient(model: Model, batch: Batch, question: Asked) -> list[Tensor]:
    """Squared length of the gradient of what is asked at the pixels, added up by patch."""
    ((name, pixels),) = batch.inputs.items()
    with torch.enable_grad():
        leaf = pixels.clone().requires_grad_()
        question.score(model.logits({name: leaf})).sum().backward()
    assert leaf.grad is not None
    return list(patch_sums(leaf.grad.square().sum(1), batch)[:, batch.prefix :].cpu())


NULLS: dict[str, tuple[str, ...]] = {
    "random": ("text", "vision"),
    "uniform": ("text", "vision"),
    "centre": ("vision",),
    "length": ("text",),
    "position": ("text",),
    "pixel_gradient": ("vision",),
}
_KNOWING_NOTHING: dict[str, Callable[[Batch, int, np.random.Generator], Tensor]] = {
    "random": _random,
    "uniform": _uniform,
    "centre": _centre,
    "length": _length,
    "position": _position,
}
