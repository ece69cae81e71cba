"""What a model decides on an input, with its probabilities, and what it decides once tokens are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.models import Model, encoding, removal, targets
from xai_utils.samples import Text
from xai_utils.widgets.explorer.view import Captured, Panel

NAMED = 2  #: answers in the line above a picture
TAKEN, DRAWS = 5, 20  #: words or patches of a map that are taken away at once; and how often as many at random


def named(model: Model, index: int) -> str:
    """Return an answer as it is read: a class, or a word without the marks of its vocabulary."""
    if model.head == "classes":
        return model.classes[index]
    return model.classes[index].lstrip("Ġ▁").removeprefix("##") or repr(model.classes[index])


def chances(model: Model, logits: Tensor) -> Tensor:
    """Return ``(..., answer)`` probabilities; a head of one number has none and gives the number itself."""
    return logits if model.link == "none" else targets.probabilities(logits, model.link)


def said(model: Model, logits: Tensor | None) -> str:
    """Say what is decided: ``"predicted 7 (52 %), 0 (31 %)"``."""
    if logits is None:
        return f"{model.name} has no classifier: it decides nothing, so no token can be checked."
    if model.link == "none":
        return f"gives {amount(model, float(logits[0]))}"
    values, order = chances(model, logits).sort(descending=True)
    most = zip(values[:NAMED].tolist(), order[:NAMED].tolist(), strict=True)
    return "predicted " + ", ".join(f"{named(model, i)} ({percent(value)})" for value, i in most)


def amount(model: Model, value: float) -> str:
    """Write what a model gives a class: a probability, or the one number of a regression head."""
    return f"{value:.3g}" if model.link == "none" else percent(value)


def percent(share: float) -> str:
    """Write a probability: whole percents between 1 and 99, more digits where whole ones would say 0 or 100."""
    digits = 0 if 0.01 <= share <= 0.99 else 2
    return f"{100 * share:.{digits}f} %"


def asked_class(captured: Captured) -> int:
    """Return the answer that a view asks about, the predicted one where none is chosen."""
    if captured.logits is None:
        raise ValueError(said(captured.model, None))
    question = targets.asked(captured.model, captured.logits[None], captured.target)
    assert question is not None
    return question.targets[0]


def words(captured: Captured) -> list[int]:
    """Return for every explained token the number of its word, ``-1`` for a special one; a patch is a word.

    Pieces belong to one word if neither a blank nor a mark of punctuation stands between them.
    """
    if not isinstance(captured.sample, Text):
        return list(range(len(captured.batch.labels[0])))
    spans, text, found = captured.batch.spans[0], captured.sample.text, [-1] * len(captured.batch.labels[0])
    plain = encoding.word_mask(captured.sample, spans)
    for i, (start, end) in enumerate(spans):
        joined = i > 0 and plain[i] and plain[i - 1] and spans[i - 1][1] == start and not text[start].isspace()
        if start < end:
            found[i] = found[i - 1] if joined else max(found) + 1
    return found


def _ranked(captured: Captured) -> list[int]:
    """Return the word of every token that may be ranked, ``-1`` for the others: specials and punctuation."""
    owner = words(captured)
    if not isinstance(captured.sample, Text):
        return owner
    plain = encoding.word_mask(captured.sample, captured.batch.spans[0])
    return [one if good else -1 for one, good in zip(owner, plain, strict=True)]


def without(captured: Captured, gone: Sequence[Sequence[int]]) -> Tensor:
    """Ask the model again without some tokens, all lists in one batch.

    Args:
        captured: the whole input.
        gone: lists of places among the explained tokens.

    Returns:
        ``(list, answer)`` logits, float64; tokens are replaced by the first operator of the model, see
        :func:`removal.scorer`.

    Raises:
        ValueError: a model without a classifier, a place that is not there or is a special token.
    """
    keep = torch.ones(len(gone), len(captured.batch.labels[0]), dtype=torch.bool)
    for row, places in zip(keep, gone, strict=True):
        for place in places:
            check.index("token", place, len(row))
            row[place] = False
    operator = removal.operators_for(captured.model)[0]
    return removal.ask(captured.model, [captured.batch], [{operator: keep}])[0][operator]


def told(captured: Captured, gone: Sequence[int]) -> str:
    """Say how likely the class that is asked about is without some tokens, and what is decided then."""
    asked, logits = asked_class(captured), without(captured, [[], gone])
    before, after = chances(captured.model, logits)[:, asked].tolist()
    change = f"{amount(captured.model, before)} → {amount(captured.model, after)}"
    now = f"{named(captured.model, asked)}: {change}"
    return f"{now}; {said(captured.model, logits[1])}"


def best(captured: Captured, panel: Panel, count: int = TAKEN) -> list[int]:
    """Return the tokens of the ``count`` words or patches that a map ranks first; a word counts the sum of its pieces.

    Punctuation and specials are no words. ``ValueError`` for a map that is not there.
    """
    if panel.found is None:
        raise ValueError(f"{panel.title} has no map: {panel.problem}")
    owner = _ranked(captured)
    sums = torch.zeros(max(owner) + 1, dtype=torch.float64)
    there = torch.tensor([one >= 0 for one in owner])
    sums.index_add_(0, torch.tensor(owner)[there], panel.found.scores.double()[there])
    offered = sorted(set(owner) - {-1}, key=lambda one: -float(sums[one]))[:count]
    return [i for i, one in enumerate(owner) if one in offered]


@dataclass(frozen=True)
class Checked:
    """A map's first words taken away, beside as many at random.

    Attributes:
        gone: tokens of the map's first words.
        before: probability of the class that is asked about, on the whole input.
        after: the same without them.
        random: the same without as many words at random, ``(draw,)``.
        model: whose probabilities they are.
    """

    gone: list[int]
    before: float
    after: float
    random: Tensor
    model: Model

    def __str__(self) -> str:
        values = self.before, self.after, *(float(f(self.random)) for f in (torch.mean, torch.min, torch.max))
        before, after, mean, low, high = (amount(self.model, one) for one in values)
        return f"{before} → {after}; as many at random: {mean} ({low} to {high} in {len(self.random)} draws)"


def checked(captured: Captured, panel: Panel, count: int = TAKEN, draws: int = DRAWS, seed: int = 0) -> Checked:
    """Take a map's first words or patches away, and as many at random, in one batch."""
    asked, gone, owner = asked_class(captured), best(captured, panel, count), _ranked(captured)
    noise, offered = np.random.default_rng(seed), sorted(set(owner) - {-1})
    chosen = [noise.choice(offered, min(count, len(offered)), replace=False) for _ in range(draws)]
    some = [[i for i, one in enumerate(owner) if one in drawn] for drawn in chosen]
    found = chances(captured.model, without(captured, [[], gone, *some]))[:, asked]
    return Checked(gone, float(found[0]), float(found[1]), found[2:], captured.model)
