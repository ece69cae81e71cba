"""Does a map point at the answer? Scores of explanations on sequences whose one cause is known (see :mod:`recall`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils import stats
from xai_utils.evaluation.judged import Maps
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples import recall
from xai_utils.samples.kinds import Text
from xai_utils.samples.recall import Recall

REACH = 3  # tokens that the convolution before a scan carries a letter on: taps - 1


@dataclass(frozen=True)
class Pointing:
    """Where the greatest score of every sequence lies, among all tokens but the last one, which reads.

    Attributes:
        exact: ``(sequence,)`` bool, on the answer.
        near: on the answer or at most :data:`REACH` tokens behind it, where the convolution has carried it.
        marked: on the mark before the answer.
        null: share of exact hits of a random choice.
        near_null: share of near hits of a random choice.
    """

    exact: np.ndarray
    near: np.ndarray
    marked: np.ndarray
    null: float
    near_null: float


def pointing(scores: Sequence[Tensor], sequences: Sequence[Recall]) -> Pointing:
    """Compare the place of each sequence's greatest score with its answer.

    Args:
        scores: per sequence one score a token; of signed scores the greatest, not the most extreme, counts.
        sequences: as many.

    Raises:
        ValueError: a number of scores that is not the number of tokens.
    """
    for one, sequence in zip(scores, sequences, strict=True):
        if len(one) != len(sequence.tokens):
            raise ValueError(f"{len(one)} scores for {len(sequence.tokens)} tokens; texts are scored token by token.")
    lags = np.array([int(one[:-1].argmax()) - sequence.place for one, sequence in zip(scores, sequences, strict=True)])
    free = np.array([len(sequence.tokens) - 1 for sequence in sequences])
    near = np.array([min(REACH + 1, sequence.distance) for sequence in sequences])
    return Pointing(
        lags == 0, (lags >= 0) & (lags <= REACH), lags == -1, float((1 / free).mean()), float((near / free).mean())
    )


def texts(sequences: Sequence[Recall]) -> tuple[list[Text], list[int]]:
    """Return the sequences as texts, and the class of each answer, as :func:`judged.explained` takes them."""
    return [recall.text_of(one) for one in sequences], [one.label for one in sequences]


def marks(maps: Maps, sequences: Sequence[Recall]) -> pd.DataFrame:
    """Return whether each map points at the answer: a row a sequence, columns ``(map, "exact")`` and ``(map, "near")``.

    Raises:
        ValueError: as :func:`pointing`.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    for label, own in maps.items():
        scores = [one.scores if isinstance(one, Attribution) else one for one in own]
        hits = pointing(scores, sequences)
        found |= {(label, "exact"): hits.exact.astype(float), (label, "near"): hits.near.astype(float)}
    return pd.DataFrame(found).rename_axis(columns=["map", "measure"])


@torch.no_grad()
def swaps(model: Model, sequences: Sequence[Recall], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for every sequence whether the prediction changes: when the answer is swapped, and when another letter is.

    This is what makes the answer's position the truth of this model, and not only of the task.
    """
    noise = np.random.default_rng(seed)
    others = [int(noise.choice([i for i in _letters(one) if i != one.place])) for one in sequences]
    before = _predicted(model, sequences)
    at_answer = _predicted(model, [recall.swapped(one, one.place, noise) for one in sequences])
    elsewhere = _predicted(model, [recall.swapped(one, i, noise) for one, i in zip(sequences, others, strict=True)])
    return at_answer != before, elsewhere != before


def accuracy(model: Model, sequences: Sequence[Recall]) -> np.ndarray:
    """Return for every sequence whether the model recalls the answer."""
    with torch.no_grad():
        return _predicted(model, sequences) == np.array([sequence.label for sequence in sequences])


def _letters(sequence: Recall) -> list[int]:
    return [i for i, token in enumerate(sequence.tokens) if token != recall.MARK]


def _predicted(model: Model, sequences: Sequence[Recall]) -> np.ndarray:
    ids = torch.tensor([model.tokenizer.convert_tokens_to_ids(list(one.tokens)) for one in sequences])
    return model.logits({"input_ids": ids.to(model.device)}).argmax(1).cpu().numpy()


def by_distance(hits: Sequence[float], sequences: Sequence[Recall]) -> dict[int, stats.Interval]:
    """Return the share of hits with Wilson's interval for every distance from the answer to the end."""
    found: dict[int, list[bool]] = {}
    for hit, sequence in zip(hits, sequences, strict=True):
        found.setdefault(sequence.distance, []).append(bool(hit))
    return {distance: stats.rate_interval(some) for distance, some in found.items()}
