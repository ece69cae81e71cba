"""What a sample is: a text or a picture, with what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Text:
    """A sentence, with what is known about it.

    Attributes:
        text: the sentence.
        name: how to find it again.
        label: index in :data:`SENTIMENT`, or ``None``.
        kind: ``"plain"``, ``"negation"`` or ``"contrast"`` for a bundled review, else ``""``.
        rationale: ``[start, end)`` character spans marked as the evidence for the label.
        second: of a pair of texts, where the second begins in ``text``; 0 for one text.
    """

    text: str
    name: str = "own sentence"
    label: int | None = None
    kind: str = ""
    rationale: tuple[tuple[int, int], ...] = ()
    second: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Picture:
    """A picture, with what is known about it.

    Attributes:
        image: ``(3, height, width)`` float32 in [0, 1].
        name: how to find it again.
        masks: class name to ``(height, width)`` bool; empty where nothing is known.
        label: index of its class, or ``None``.
        background: what a scene is drawn on; scenes that share it are alike, and belong to one cluster of a sample.
    """

    image: np.ndarray
    name: str
    masks: dict[str, np.ndarray]
    label: int | None = None
    background: str = ""


Sample = Text | Picture
