"""Is relevance kept on its way down, and does the company of other samples change it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xai_utils.evaluation.on_objects import predicted
from xai_utils.maths.propagation import rescaled_addition
from xai_utils.methods import explain, relevance
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.samples.kinds import Sample


def by_depth(model: Model, samples: Sequence[Sample], method: str, **options: Any) -> Tensor:
    """Return the sum of relevance entering every block and leaving the last one, ``(sample, depth)``.

    Args:
        model: a transformer or a Mamba with a classifier.
        samples: each explained for its predicted class, or for the ``target`` among the options.
        method: a method that reports ``relevance_by_depth``: ``full_lrp``, which starts with 1, ``cp_lrp``,
            ``attnlrp`` or ``mamba_lrp``, which start with the logit.
        **options: of the method.

    Returns:
        Shares of what propagation starts with: 1 everywhere if nothing is gained or lost.
    """
    found = explain(method, model, samples, **options)
    if "relevance_by_depth" not in found[0].details:
        raise ValueError(f"{method} hands nothing down; try full_lrp, cp_lrp or attnlrp.")
    sums = torch.tensor([one.details["relevance_by_depth"] for one in found], dtype=torch.float64)
    if found[0].unit != "logit":
        return sums
    with torch.no_grad():
        logits = model.logits(encode(model, samples).inputs).cpu()
    return sums / logits.gather(1, torch.tensor([[one.target] for one in found])).to(sums)


def change_by_company(model: Model, samples: Sequence[Sample], preset: str = "transformer_attribution") -> float:
    """Return the greatest change of the first sample's relevance when the others share its batch.

    Args:
        model: a transformer with a classifier.
        samples: the first one is looked at.
        preset: rules, see :func:`lrp.relevance_rules`.

    Returns:
        As a share of its greatest relevance, at any depth and token. It should be rounding.
    """
    targets = predicted(model, samples)
    together, alone = (
        relevance.propagate(model, encode(model, samples[:count]), targets[:count], preset).hidden[:, 0]
        for count in (len(samples), 1)
    )
    return float((together[:, : alone.shape[1]] - alone).abs().max() / alone.abs().max())


def coupling(seed: int) -> float:
    """Return how much one entry changes if a skip's two branches are rescaled by totals of the whole batch.

    Two samples of random relevance (standard normal) meet random branches. The published code takes the total over
    both, :func:`propagation.rescaled_addition` over each.
    """
    noise = torch.Generator().manual_seed(seed)
    sent, skip, branch = torch.randn(3, 2, 5, 7, generator=noise, dtype=torch.float64)
    own, _ = rescaled_addition(sent, skip, branch)
    coupled, _ = rescaled_addition(sent[None], skip[None], branch[None])  # all samples as one
    return float((own - coupled[0]).abs().max())
