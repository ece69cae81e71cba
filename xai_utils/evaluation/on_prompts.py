"""Does a map point at the word that the next word follows? Prompts of known cause (see :mod:`samples.prompts`).

First :func:`verified` asks the model: only where it is right, and every edit does what it should, is the cause known of
this model. Then :func:`explained` and :func:`marks`. A map of a model with shuffled weights is a null like any other:
explain once more within ``sanity.randomised(model, sanity.layers(model), seed)`` and mark it beside the others. The
table that comes of it goes to :func:`paired.differences`.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils import check, metrics, stats
from xai_utils.evaluation import judged
from xai_utils.evaluation.judged import BATCH, Maps, Methods
from xai_utils.models import Model, Question
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Text
from xai_utils.samples.prompts import Prompt, Span

#: role of a version of a prompt -> why the prompt is dropped if the model gives another answer to it
REASONS = {
    "prompt": "the model is wrong",
    "answer": "the answer does not follow the decisive word",
    "other": "another entry changes the answer",
    "question": "asked for the other entry, it does not give that one",
}
UNSAYABLE = "an answer is not a single token"
TOGETHER = 6  #: prompts in one pass, where gradients are taken
#: of :func:`marks`; more is better, as :mod:`paired` wants to be told
MEASURES = {"hit": 1, "precision": 1, "contrast": 1}
WORD = re.compile(r"\w+(?:['’-]\w+)*")
#: ``(words, noise) -> (word,)``: what knows neither the prompt nor the model
NULLS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "first word": lambda words, _: -np.arange(words, dtype=float),
    "last word": lambda words, _: np.arange(words, dtype=float),
    "random": lambda words, noise: noise.random(words),
}


@dataclass(frozen=True)
class Verified:
    """What a model made of some prompts and their edits.

    Attributes:
        asked: all prompts.
        verdicts: of each, ``""`` if it is kept, or why it is dropped: the first of :data:`REASONS` that holds.
    """

    asked: tuple[Prompt, ...]
    verdicts: tuple[str, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that are kept."""
        return [one for one, verdict in zip(self.asked, self.verdicts, strict=True) if not verdict]

    @property
    def dropped(self) -> dict[str, int]:
        """How many are dropped, by reason."""
        return dict(Counter(filter(None, self.verdicts)))

    @property
    def kept(self) -> stats.Interval:
        """Share of prompts that are kept, with Wilson's interval."""
        return stats.rate_interval([not verdict for verdict in self.verdicts])

    @property
    def right(self) -> stats.Interval:
        """Share of prompts on which the model is right, whatever it does on their edits."""
        return stats.rate_interval([one not in (UNSAYABLE, REASONS["prompt"]) for one in self.verdicts])


def verified(model: Model, prompts: Sequence[Prompt], batch_size: int = BATCH) -> Verified:
    """Ask a model about prompts and all their edits, and keep those that have the cause they should have.

    A prompt is kept if the right word has the greatest logit of its candidates, on the prompt and on every edit.

    Args:
        model: a language model that says what comes next.
        prompts: at least one.
        batch_size: texts in one pass.

    Raises:
        ValueError: a model that answers something else, or no prompt.
    """
    check.at_least_one("batch_size", batch_size)
    if model.head != "next" or not prompts:
        raise ValueError(f"{len(prompts)} prompts for {model.name}; expected some, and a language model: try smollm2.")
    ids = {word: _id(model, word) for word in dict.fromkeys(word for one in prompts for word in one.candidates)}
    column = {word: i for i, word in enumerate(word for word, one in ids.items() if one is not None)}
    sayable = [one for one in prompts if column.keys() >= set(one.candidates)]
    texts = list(dict.fromkeys(edit.text for one in sayable for edit in one.versions))
    said = _logits(model, texts, [one for one in ids.values() if one is not None], batch_size)
    return Verified(tuple(prompts), tuple(_verdict(one, said, column) for one in prompts))


def _id(model: Model, word: str) -> int | None:
    try:
        return model.class_index(word)
    except ValueError:
        return None


@torch.inference_mode()
def _logits(model: Model, texts: Sequence[str], words: Sequence[int], batch_size: int) -> dict[str, Tensor]:
    """Return the logits of some words behind every text, texts of like length together."""
    found: dict[str, Tensor] = {}
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        rows = model.logits(encode(model, [Text(one) for one in some]).inputs)[:, words].cpu()
        found.update(zip(some, rows, strict=True))
    return found


def _verdict(prompt: Prompt, said: Mapping[str, Tensor], column: Mapping[str, int]) -> str:
    if not column.keys() >= set(prompt.candidates):
        return UNSAYABLE
    for role, reason in REASONS.items():
        for edit in prompt.versions:
            others = [column[word] for word in prompt.candidates if word != edit.answer]
            if edit.role == role and not (said[edit.text][column[edit.answer]] > said[edit.text][others]).all():
                return reason
    return ""


def question(prompts: Sequence[Prompt], against: bool = True) -> Question:
    """Return what is asked of prompts: how much more the answer is expected than the distractor, or its logit alone."""
    return Question([one.answer for one in prompts], [one.distractor for one in prompts] if against else None)


def explained(
    model: Model, prompts: Sequence[Prompt], asked: Methods, against: bool = True, batch_size: int = TOGETHER
) -> dict[str, list[Attribution]]:
    """Explain the next word of every prompt by many methods, as :func:`judged.explained` does, like lengths together.

    Args:
        model: a language model.
        prompts: such as :func:`verified` keeps.
        asked: label -> (name in :data:`methods.METHODS`, options).
        against: explain the answer against the distractor, or the answer alone.
        batch_size: samples in one pass; many would pad the short ones, and hold the graph of them all.

    Returns:
        Label to a map for each prompt, in their order.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].text))
    some = [prompts[i] for i in order]
    found = judged.explained(model, some, asked, question(some, against), batch_size)
    return {label: [own[order.index(i)] for i in range(len(order))] for label, own in found.items()}


def without_first(maps: Sequence[Attribution | Tensor]) -> list[Tensor]:
    """Rank the first token last: it draws attention that says nothing of it, and no task has its decisive word there.

    Source: attention sinks, Xiao et al. (2023), arXiv:2309.17453.
    """
    found = [_scores_of(one).clone() for one in maps]
    for scores in found:
        scores[0] = scores.min()
    return found


def same_word(model: Model, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Mark the words that read like the answer, ``(token,)`` 1 or 0: what a search for it finds, without the model."""
    found = []
    for one, spans in zip(prompts, encode(model, prompts).spans, strict=True):
        alike = [word.span() for word in WORD.finditer(one.text) if word[0] == one.answer]
        found.append(torch.tensor([float(_touches(span, alike)) for span in spans]))
    return found


@dataclass(frozen=True)
class Words:
    """The words of a prompt that are ranked: neither punctuation, nor specials, nor what asks.

    Attributes:
        of: ``(word, token)`` float64, 1 where a token belongs to a word.
        decisive: ``(word,)`` bool.
        rival: ``(word,)`` bool, what speaks for the distractor.
    """

    of: Tensor
    decisive: Tensor
    rival: Tensor

    def __len__(self) -> int:
        return len(self.decisive)


def words(prompt: Prompt, tokens: Sequence[Span]) -> Words:
    """Return the ranked words of a prompt.

    Args:
        prompt: its text and what is known of it.
        tokens: character span of every token, (0, 0) for specials.
    """
    spans = [found.span() for found in WORD.finditer(prompt.text)]
    ranked = [span for span in spans if not _touches(span, prompt.asking)]
    of = torch.tensor([[_touches(token, [span]) for token in tokens] for span in ranked]).double()
    marked = [torch.tensor([_touches(span, some) for span in ranked]) for some in (prompt.rationale, prompt.rival)]
    return Words(of, *marked)


def _touches(one: Span, some: Sequence[Span]) -> bool:
    return any(one[0] < end and start < one[1] for start, end in some)


def marks(model: Model, prompts: Sequence[Prompt], maps: Maps, seed: int = 0) -> pd.DataFrame:
    """Mark maps by the known cause of every prompt; the scores of a word's tokens are added up.

    Args:
        model: whose tokens the maps score.
        prompts: such as :func:`verified` keeps.
        maps: label -> a map, or its scores, for each prompt.
        seed: of the random ranking.

    Returns:
        A row for each prompt; columns ``(label, measure)`` for the maps and for every ranking in :data:`NULLS`:
        ``"hit"``, whether the greatest score is on the decisive word, ties counted in part; ``"precision"``, the
        average precision of finding it among the words; ``"contrast"``, whether it is above the rival, a tie a half.

    Raises:
        ValueError: no prompt, a number of maps that is not that of prompts, or of scores that is not that of tokens.
    """
    known = [words(one, spans) for one, spans in zip(prompts, encode(model, prompts).spans, strict=True)]
    noises = [np.random.default_rng([seed, zlib.crc32(one.name.encode())]) for one in prompts]
    ranked = {
        label: [torch.from_numpy(null(len(one), noise)) for one, noise in zip(known, noises, strict=True)]
        for label, null in NULLS.items()
    }
    ranked = {label: _by_word(label, some, known) for label, some in maps.items()} | ranked
    return pd.DataFrame(
        {
            (label, measure): [score(scores, one) for scores, one in zip(rows, known, strict=True)]
            for label, rows in ranked.items()
            for measure, score in _SCORES.items()
        },
        index=[one.name for one in prompts],
    )


def _scores_of(one: Attribution | Tensor) -> Tensor:
    """Return the scores of a map, ``(token,)`` float64."""
    return (one.scores if isinstance(one, Attribution) else one).double()


def _by_word(label: str, maps: Sequence[Attribution | Tensor], known: Sequence[Words]) -> list[Tensor]:
    if len(maps) != len(known):
        raise ValueError(f"{len(maps)} maps of {label!r} are given for {len(known)} prompts; expected one for each.")
    found = [_scores_of(one) for one in maps]
    for scores, one in zip(found, known, strict=True):
        if scores.shape != one.of.shape[1:]:
            raise ValueError(f"{label}: {tuple(scores.shape)} scores for {one.of.shape[1]} tokens.")
    return [one.of @ scores for scores, one in zip(found, known, strict=True)]


def _hit(scores: Tensor, known: Words) -> float:
    return float(known.decisive[scores == scores.max()].double().mean())


def _contrast(scores: Tensor, known: Words) -> float:
    return float((1 + (scores[known.decisive].max() - scores[known.rival].max()).sign()) / 2)


_SCORES: dict[str, Callable[[Tensor, Words], float]] = {
    "hit": _hit,
    "precision": lambda scores, known: metrics.average_precision(scores, known.decisive.double()),
    "contrast": _contrast,
}


def intervals(table: pd.DataFrame, seed: int) -> dict[tuple[str, str], stats.Interval]:
    """Return the mean of every column of :func:`marks` with its interval: Wilson's of a share, else a bootstrap's."""
    return {key: _interval(table[key].to_numpy(), seed) for key in table}


def _interval(values: np.ndarray, seed: int) -> stats.Interval:
    share = np.isin(values, (0, 1)).all()
    return stats.rate_interval((values > 0).tolist()) if share else stats.mean_interval(values.tolist(), seed)
