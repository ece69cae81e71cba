"""What the ``lime`` package does with a text, to compare with the exact solution; the only user of the package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import Document
from xai_utils.models import Model

MASK = "UNK"  #: what the published experiments told the package to put in the place of a word


@dataclass(frozen=True)
class LibraryRun:
    """What one run of the package returned and what it asked the model.

    Attributes:
        slopes: ``(word,)`` one number for each distinct word, in order of appearance; by position if words were masked
            in place, added up over the places of a word.
        asked: the first texts that the package asked the model about, as it made them.
    """

    slopes: Tensor
    asked: tuple[str, ...]


def run(model: Model, read: Document, count: int = 5000, seed: int = 0, in_place: bool = False) -> LibraryRun:
    """Explain a text by the package with its own defaults; it always gets :data:`MASK`.

    Args:
        model: that is asked.
        read: the text; the package sees its words in lower case with single spaces between.
        count: texts to ask about.
        seed: of the package's random numbers.
        in_place: mask by position; the package's default (``bow=True``) deletes words, whatever mask it was given.

    Source: Ribeiro, Singh & Guestrin (2016), arXiv:1602.04938; package lime 0.2.
    """
    from lime.lime_text import LimeTextExplainer

    asked: list[str] = []

    def score(texts: list[str]) -> np.ndarray:
        asked.extend(texts[:5])
        return closed_forms.class_scores(model, texts).numpy()

    labels = read.labels[1:]
    explainer = LimeTextExplainer(split_expression=r"\s+", bow=not in_place, mask_string=MASK, random_state=seed)
    found = explainer.explain_instance(
        " ".join(labels), score, labels=(read.target,), num_features=len(labels), num_samples=count
    )
    slopes = torch.zeros(len(read.words), dtype=torch.float64)
    for place, value in found.as_map()[read.target]:  # by distinct word, in order of appearance, or by position
        slopes[int(read.word_of[1 + place]) if in_place else place] += float(value)
    return LibraryRun(slopes, tuple(asked))
