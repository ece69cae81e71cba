"""What the ``lime`` package does with a text, to compare with :mod:`lime`; the only user of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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


def run(
    labels: Sequence[str],
    score: Callable[[list[str]], np.ndarray],
    target: int,
    count: int = 5000,
    seed: int = 0,
    bow: bool = True,
    mask: str | None = None,
) -> LibraryRun:
    """Explain a text by the package with its own defaults.

    Args:
        labels: the words of the text, repeated ones included; the package sees them with single spaces between.
        score: texts to class scores ``(text, class)``.
        target: class to explain.
        count: texts to ask about.
        seed: of the package's random numbers.
        bow: the package's default, ``True``, deletes words, whatever ``mask`` says; ``False`` masks by position.
        mask: what stands for a masked word where ``bow`` is ``False``.

    Source: Ribeiro, Singh & Guestrin (2016), arXiv:1602.04938; package lime 0.2.
    """
    from lime.lime_text import LimeTextExplainer

    asked: list[str] = []

    def watched(texts: list[str]) -> np.ndarray:
        asked.extend(texts[:5])
        return score(texts)

    explainer = LimeTextExplainer(split_expression=r"\s+", bow=bow, mask_string=mask, random_state=seed)
    found = explainer.explain_instance(
        " ".join(labels), watched, labels=(target,), num_features=len(labels), num_samples=count
    )
    words = list(dict.fromkeys(labels))
    slopes = torch.zeros(len(words), dtype=torch.float64)
    for place, value in found.as_map()[target]:  # by distinct word, in order of appearance, or by position
        slopes[place if bow else words.index(labels[place])] += float(value)
    return LibraryRun(slopes, tuple(asked))
