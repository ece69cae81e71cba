"""Do maps rank the marked words of a labelled text first? Average precision against random rankings of its words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from xai_utils import metrics
from xai_utils.encode import encode, rationale_mask
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples import Text

DRAWS = 50  # random rankings of each text


def gains(model: Model, texts: Sequence[Text], maps: Sequence[Attribution], seed: int) -> np.ndarray:
    """Return how much better each map ranks its text's marked tokens than a random ranking does on average.

    Args:
        model: whose tokens the maps score.
        texts: each with a rationale that leaves some tokens out.
        maps: one for each text; tokens that stand for no character ([CLS], [SEP]) do not take part.
        seed: of the random rankings; the same for all methods.

    Returns:
        ``(text,)``: average precision, less the mean of that of :data:`DRAWS` random rankings of the same tokens.

    Raises:
        ValueError: a number of maps that is not the number of texts, maps of another length, a text whose rationale is
            empty or everything.
    """
    if len(maps) != len(texts):
        raise ValueError(f"{len(maps)} maps are given for {len(texts)} texts; expected one for each.")
    noise, found = np.random.default_rng(seed), []
    for own, sample, spans in zip(maps, texts, encode(model, texts).spans, strict=True):
        if len(own.scores) != len(spans):
            raise ValueError(f"a map has {len(own.scores)} scores for the {len(spans)} tokens of {sample.name!r}.")
        real = np.array([end > start for start, end in spans])
        marked = torch.from_numpy(rationale_mask(sample, spans)[real].astype(float))
        null = [metrics.average_precision(torch.from_numpy(noise.random(len(marked))), marked) for _ in range(DRAWS)]
        found.append(metrics.average_precision(own.scores[torch.from_numpy(real)], marked) - np.mean(null))
    return np.array(found)
