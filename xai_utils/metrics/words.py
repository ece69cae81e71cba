"""Compare what a method marks with what people marked. Pure functions on scores, marks and spans of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.metrics import auc, precision_recall_curve
from torch import Tensor

from xai_utils.metrics.pictures import overlap

Span = tuple[int, int]  #: ``[start, end)`` in tokens


def spans(marked: ArrayLike) -> tuple[Span, ...]:
    """Return the runs of marked tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(marked, dtype=np.int8), [0]])))
    return tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))


def token_prf(marked: ArrayLike, truth: ArrayLike) -> tuple[float, float, float]:
    """Return precision, recall and F1 over tokens; 0 where a quotient has nothing to divide by.

    Source: ``rationale_benchmark/metrics.py`` of eraserbenchmark, ``score_hard_rationale_predictions`` on one text.
    """
    one, other = _same(marked, truth)
    both = float((one & other).sum())
    precision, recall = both / max(one.sum(), 1), both / max(other.sum(), 1)
    return precision, recall, _f1(precision, recall)


def iou_prf(found: Sequence[Span], truth: Sequence[Span], threshold: float = 0.5) -> tuple[float, float, float]:
    """Return precision, recall and F1 over spans; a span counts if its best overlap over union reaches the threshold.

    Args:
        found: spans that the method marks.
        truth: spans that people marked.
        threshold: of intersection over union, in (0, 1].

    Source: ``partial_match_score`` of eraserbenchmark. As there, recall counts the found spans that match, so several
        of them on one true span all count.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected above 0 and at most 1.")
    length = max((end for _, end in (*found, *truth)), default=0)
    hits = float((overlap(_marks(found, length)[:, None], _marks(truth, length)) >= threshold).any(1).sum())
    precision, recall = hits / max(len(found), 1), hits / max(len(truth), 1)
    return precision, recall, _f1(precision, recall)


def auprc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Return the area under the curve of precision against recall by the trapezoid rule, in [0, 1].

    Source: eraserbenchmark, ``score_soft_tokens``. Differs from: average precision (a step function), which does not
        join points that no threshold reaches.
    """
    values, inside = _scores(scores), np.asarray(truth, dtype=bool)
    if values.shape != inside.shape or inside.all() or not inside.any():
        raise ValueError(f"expected {values.shape} marks, some true and some false, got {inside.sum()} true.")
    precision, recall, _ = precision_recall_curve(inside, values)
    return float(auc(recall, precision))


def _marks(some: Sequence[Span], length: int) -> Tensor:
    """Return ``(span, token)`` bool."""
    places = torch.arange(length)
    start, end = torch.tensor(some, dtype=torch.long).view(-1, 2, 1).unbind(1)
    return (start <= places) & (places < end)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _scores(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"expected finite scores (token,), got shape {values.shape}.")
    return values


def _same(one: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"marks of shapes {first.shape} and {second.shape}; expected two times (token,).")
    return first, second
