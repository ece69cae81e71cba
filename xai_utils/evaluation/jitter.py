"""Put a little noise on a model's input, to see whether an explanation survives it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from xai_utils.capture.intervene import restored
from xai_utils.models import Model
from xai_utils.samples.kinds import Picture, Sample

RADIUS = 0.02  #: greatest change of a pixel in [0, 1]; of an embedding, in standard deviations of its table


@contextmanager
def jittered(model: Model, samples: Sequence[Sample], seed: int, radius: float = RADIUS) -> Iterator[Sequence[Sample]]:
    """Yield samples to explain in place of these, while the model is as it has to be for that.

    Pictures get uniform noise on their pixels, and stay in [0, 1]. A text has no small change; there the table of word
    embeddings gets uniform noise within the block, and its own values back afterwards.

    Args:
        model: the model.
        samples: sentences or pictures.
        seed: of the noise; for pictures together with their name.
        radius: see :data:`RADIUS`.
    """
    if not 0 < radius <= 1:
        raise ValueError(f"radius is {radius}, expected above 0 and at most 1.")
    if model.kind == "vision":
        yield [_noisy(one, seed, radius) for one in samples if isinstance(one, Picture)]
        return
    table = _table(model.module, len(model.tokenizer)).weight
    noise = torch.empty(table.shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed)).to(table)
    with restored([table]):
        with torch.no_grad():
            table.add_(radius * table.std() * noise)
        yield samples


def _noisy(picture: Picture, seed: int, radius: float) -> Picture:
    noise = np.random.default_rng([seed, zlib.crc32(picture.name.encode())])
    changed = picture.image + noise.uniform(-radius, radius, picture.image.shape)
    return replace(picture, image=np.clip(changed, 0, 1).astype(np.float32))


def _table(module: nn.Module, words: int) -> nn.Embedding:
    """Return the table of word embeddings: the first with a row for every word."""
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.num_embeddings >= words:
            return part
    raise TypeError(f"{type(module).__name__} has no table of word embeddings with {words} rows.")
