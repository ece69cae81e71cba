r"""The published "input gradient" of a BERT, which is zero in exact arithmetic.

It is :math:`s_t = |\sum_d \partial y / \partial e_{t,d}|` at word embeddings :math:`e` that enter a LayerNorm. A
LayerNorm does not change when a constant is added to all coordinates of a token, so the derivative in that direction,
which is the sum, vanishes; a program returns its rounding errors. The gradient's length, and its sum behind the
LayerNorm, do not vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.models.targets import asked
from xai_utils.samples.kinds import Sample


def in_double(model: Model) -> Model:
    """Return a copy of the model that computes in float64; the model itself is left alone."""
    return replace(model, module=deepcopy(model.module).double())


def word_gradients(
    model: Model, samples: Sequence[Sample], target: int | str | None = None, twice: bool = False
) -> list[Tensor]:
    """Return the gradient of a class score at the word embeddings that enter the embedding block.

    Args:
        model: a text classifier of the BERT family.
        samples: sentences; one batch.
        target: class index or name; ``None`` for the predicted class.
        twice: feed the embedding block its own output, as the published code does (position and LayerNorm are then
            applied twice, so the explained forward pass is not the model's own).

    Returns:
        ``(token, width)`` for each sample, without padding, in logits per unit of embedding.

    Raises:
        TypeError: a model that takes no word embeddings.

    Source: repositories samiraabnar/attention_flow and manuragkhullar/XAI_thesis, whose saliency is the absolute sum
        over the width; they explain the last class for every sentence.
    """
    if model.kind != "text":
        raise TypeError(f"{model.name} reads pictures; only a text model has word embeddings.")
    batch = encode(model, samples)
    inputs = dict(batch.inputs)
    words = inputs.pop("input_ids")
    module: Any = model.module
    with torch.no_grad():
        block = module.base_model.embeddings if twice else module.get_input_embeddings()
        states = block(words)
    states.requires_grad_(True)
    with torch.enable_grad():
        logits = model.logits({**inputs, "inputs_embeds": states})
        question = asked(model, logits, target)
        assert question is not None  # a model without a classifier was refused by logits
        (gradient,) = torch.autograd.grad(question.score(logits).sum(), states)
    return [gradient[i, : batch.length(i)] for i in range(len(batch))]


def relative_sum(gradient: Tensor) -> Tensor:
    """Return ``|sum over the width| / length`` of each token's gradient: ``(token, width)`` to ``(token,)``.

    At most √width; about the precision of the arithmetic where the sum is zero by construction, of order 1 elsewhere.

    Raises:
        ValueError: a token without any gradient.
    """
    length = gradient.norm(dim=-1)
    if not length.all():
        raise ValueError(f"{int((length == 0).sum())} of {len(length)} tokens have no gradient at all.")
    return gradient.sum(-1).abs() / length
