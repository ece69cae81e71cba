"""Leave each token out and see what the score loses: the simplest explanation that asks the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xai_utils.models import Model, removal
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample


def leave_one_out(
    model: Model, samples: Sequence[Sample], targets: Sequence[int], operator: str | None = None
) -> list[Attribution]:
    """Return how much the logit of the class falls when a token goes, one pass a token; specials get none.

    Args:
        model: text or vision model with a classifier.
        samples: sentences or pictures.
        targets: class of each.
        operator: see :func:`removal.scorer`; the first that the model knows.

    Source: occlusion, Zeiler & Fergus (2014), arXiv:1311.2901; leave-one-out, Li et al. (2016), arXiv:1612.08220.
    """
    chosen = operator or removal.operators_for(model)[0]
    batches = [encode(model, [one]) for one in samples]
    keeps, places = [], []
    for batch in batches:
        tokens = len(batch.labels[0])
        spans = batch.spans[0] if batch.spans else ((0, 1),) * tokens
        place = torch.tensor([i for i, (start, end) in enumerate(spans) if start < end])
        without = torch.ones(len(place), tokens, dtype=torch.bool)
        without[torch.arange(len(place)), place] = False
        keeps.append({chosen: torch.cat([torch.ones(1, tokens, dtype=torch.bool), without])})
        places.append(place)
    found = []
    for batch, place, answer, target in zip(batches, places, removal.ask(model, batches, keeps), targets, strict=True):
        values = answer[chosen][:, target]
        scores = torch.zeros(len(batch.labels[0]), dtype=torch.float64).index_copy(0, place, values[0] - values[1:])
        found.append(
            Attribution(
                scores, batch.labels[0], "leave_one_out", model.name, target, model.classes[target], "logit", True,
                batch.grid, {"operator": chosen},
            )
        )  # fmt: skip
    return found
