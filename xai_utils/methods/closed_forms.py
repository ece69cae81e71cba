"""The closed-form explanations of the attention classifier (notebook 07) as attributions of tokens."""

from __future__ import annotations

import torch

from xai_utils.methods import document
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample, Text

CLOSED = {
    "attention": "attention mean",
    "attention_max": "attention max",
    "gradient_mean": "gradient mean",
    "gradient_l1": "gradient L1",
    "gradient_norm": "gradient L2",
    "gradient_x_input": "gradient × input",
    "lime": "LIME",
}


def closed_form(model: Model, sample: Sample, target: int, method: str) -> Attribution:
    """Explain one text by a method of :data:`CLOSED`; each token gets the score of its word, the class token none.

    Raises:
        TypeError: another model than the attention classifier.
        ValueError: a picture, or a text of which no word is known.
    """
    if not isinstance(sample, Text):
        raise ValueError(f"{model.name} takes sentences, not a {type(sample).__name__.lower()}.")
    read = document.read(model, sample, target)
    words = document.explain(read, [CLOSED[method]])[CLOSED[method]]
    scores = torch.cat([words.new_zeros(1), words[read.word_of[1:]]])
    signed = CLOSED[method] in document.SIGNED
    return Attribution(scores, read.labels, method, model.name, target, model.classes[target], "logit", signed)
