"""Sentences with a known truth, and rows of scores by what they are of: for the tests of scoring."""

import torch

from xai_utils.models.encoding import encode
from xai_utils.samples import Text

WORDS = Text("the film is not dull , but slow .", "first", 0, "plain", ((16, 20), (26, 30)))
PLAIN = Text("a warm plot and two friends", "second")


def judged(model, text):
    """Return the text with the label that the model gives it."""
    with torch.no_grad():
        label = int(model.logits(encode(model, [text]).inputs).argmax())
    return Text(text.text, text.name, label, text.kind, text.rationale)


def by_key(rows):
    return {(row["sample"], row["metric"], row["operator"]): row["value"] for row in rows}


def kept(scores, gone):
    """Return a mask that keeps all tokens but some."""
    return torch.ones(len(scores), dtype=torch.bool).index_fill(0, torch.tensor(gone, dtype=torch.long), False)
