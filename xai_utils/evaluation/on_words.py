"""Do maps rank the marked words of a labelled text first? Average precision against random rankings of its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from xai_utils import methods, metrics
from xai_utils.models import Model
from xai_utils.models.encoding import encode, rationale_mask
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Text

Asked = Mapping[str, tuple[str, Mapping[str, Any]]]  #: what a map is called -> (name of its method, options)


def gains(model: Model, texts: Sequence[Text], maps: Sequence[Attribution]) -> np.ndarray:
    """Return how much better each map ranks its text's marked tokens than a random ranking is expected to.

    Args:
        model: whose tokens the maps score.
        texts: each with a rationale that leaves some tokens out.
        maps: one for each text; tokens that stand for no character ([CLS], [SEP]) do not take part.

    Returns:
        ``(text,)``: average precision, less :func:`chance`.

    Raises:
        ValueError: a number of maps that is not the number of texts, maps of another length, a text whose rationale is
            empty or everything.
    """
    if len(maps) != len(texts):
        raise ValueError(f"{len(maps)} maps are given for {len(texts)} texts; expected one for each.")
    found = []
    for own, sample, spans in zip(maps, texts, encode(model, texts).spans, strict=True):
        if len(own.scores) != len(spans):
            raise ValueError(f"a map has {len(own.scores)} scores for the {len(spans)} tokens of {sample.name!r}.")
        real = np.array([end > start for start, end in spans])
        marked = rationale_mask(sample, spans)[real]
        reached = metrics.average_precision(own.scores[torch.from_numpy(real)], torch.from_numpy(marked + 0.0))
        found.append(reached - chance(len(marked), int(marked.sum())))
    return np.array(found)


def chance(tokens: int, marked: int) -> float:
    """Return the expected average precision of a random ranking of ``tokens``, ``marked`` of which are to be found.

    A marked token at rank k has k - 1 tokens before it, of which (marked - 1) / (tokens - 1) are marked too.
    """
    if not 0 < marked < tokens:
        raise ValueError(f"{marked} of {tokens} tokens are marked; expected some, and not all.")
    ranks = np.arange(1, tokens + 1)
    return float(((1 + (ranks - 1) * (marked - 1) / (tokens - 1)) / ranks).mean())


def gained(model: Model, texts: Sequence[Text], asked: Asked) -> dict[str, np.ndarray]:
    """Explain the label of every text by many methods, each as name in the table and options, and return their gains.

    The label is explained whether or not the model agrees with it; ``ValueError`` for a text without one.
    """
    labels = [one.label for one in texts if one.label is not None]
    return {
        label: gains(model, texts, methods.explain(name, model, texts, labels, **options))
        for label, (name, options) in asked.items()
    }
