"""The one result type: an attribution that checks itself and knows how to be labelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from xai_utils import check

_SPECIAL = re.compile(r"\[(CLS|SEP|PAD|MASK|UNK)\]|</?s>|<pad>|<mask>")


@dataclass(frozen=True, eq=False)
class Attribution:
    """A score for every token of one input, for one class; equal only to itself, compare the scores of two.

    Attributes:
        scores: ``(token,)`` on the CPU; for pictures the patches row by row, without prefix tokens.
        labels: one text per token; for pictures ``"row,column"``.
        method: name in :data:`methods.METHODS`.
        model: name of the model.
        target: index of the explained class; ``None`` for a method that knows no class.
        target_name: its name; ``""`` where there is none.
        unit: what one unit of score means.
        signed: whether negative scores speak against the class.
        grid: ``(rows, columns)`` of a picture's patches, else ``None``.
        details: what else the method reports (layers used, completeness gap, options).

    Raises:
        ValueError: on creation, if lengths disagree, or the scores are NaN, infinite, all zero, or negative though
            the method is unsigned. An empty map is a failure of the method, never a result.
    """

    scores: Tensor
    labels: tuple[str, ...]
    method: str
    model: str
    target: int | None = None
    target_name: str = ""
    unit: str = "share"
    signed: bool = False
    grid: tuple[int, int] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", self.scores.detach().cpu())
        object.__setattr__(self, "details", MappingProxyType(dict(self.details)))
        what = f"{self.method} on {self.model}"
        if self.scores.ndim != 1 or len(self.labels) != len(self.scores):
            raise ValueError(f"{what}: scores {tuple(self.scores.shape)} for {len(self.labels)} labelled tokens.")
        if self.grid is not None and self.grid[0] * self.grid[1] != len(self.scores):
            raise ValueError(f"{what}: {len(self.scores)} scores do not fill a grid of {self.grid}.")
        check.finite(f"{what}: scores", self.scores)
        if not self.scores.any():
            raise ValueError(f"{what}: every score is zero; the method says nothing about this input.")
        if not self.signed and self.scores.min() < 0:
            raise ValueError(f"{what}: an unsigned method returned {float(self.scores.min()):.2g}.")

    def top(self, count: int) -> tuple[str, ...]:
        """Return the labels of the ``count`` greatest scores, greatest first."""
        order = self.scores.argsort(descending=True, stable=True)[:count]
        return tuple(self.labels[i] for i in order.tolist())

    def words(self) -> Attribution:
        """Return the attribution without special tokens ([CLS], [SEP], <s> …); scores are not rescaled."""
        kept = [i for i, label in enumerate(self.labels) if not _SPECIAL.fullmatch(label)]
        labels = tuple(self.labels[i] for i in kept)
        return replace(self, scores=self.scores[kept], labels=labels)

    def picture(self) -> Tensor:
        """Return the scores as ``(row, column)``; ``ValueError`` for a text."""
        if self.grid is None:
            raise ValueError(f"{self.method} on {self.model} explains a text; it has no grid of patches.")
        return self.scores.view(self.grid)
