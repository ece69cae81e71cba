"""Leave each token out and see what the score loses: the simplest explanation that asks the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xai_utils.models import removal
from xai_utils.models.encoding import Batch
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, given


def leave_one_out(
    model: Model, batch: Batch, targets: Asked | Sequence[int], operator: str | None = None
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return how much the number asked for falls when a token goes, one pass a token; specials get none.

    Args:
        model: text or vision model with a head.
        batch: its encoded samples.
        targets: what is asked of each, or its class index.
        operator: see :func:`removal.scorer`; the first that the model knows.

    Returns:
        Per sample the scores of every position (zero at specials and at the prefix of a picture) and the operator.

    Source: occlusion, Zeiler & Fergus (2014), arXiv:1311.2901; leave-one-out, Li et al. (2016), arXiv:1612.08220.
    """
    question, chosen = given(targets), operator or removal.operators_for(model)[0]
    alone = [batch.one(i) for i in range(len(batch))]
    places = [removal.places(one) for one in alone]
    keeps = []
    for one, place in zip(alone, places, strict=True):
        keep = torch.ones(len(place) + 1, len(one.labels[0]), dtype=torch.bool)  # the first row is the whole sample
        keep[torch.arange(1, len(place) + 1), place] = False
        keeps.append({chosen: keep})
    found = []
    for i, (one, place, answer) in enumerate(zip(alone, places, removal.ask(model, alone, keeps), strict=True)):
        values = question.of([i] * len(answer[chosen])).score(answer[chosen])
        scores = torch.zeros(one.length(0), dtype=torch.float64)
        scores[one.prefix + place] = values[0] - values[1:]
        found.append((scores, {"operator": chosen}))
    return found
