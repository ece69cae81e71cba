"""Whole answers: every word of an answer explained by everything before it, as one table of tokens by tokens.

A causal model reads the beginning of a text alike whether or not the text goes on. So one captured pass through prompt
and answer holds the maps of every step: rows of the same attention for methods that roll it out, and one backward pass
from each step's own number for gradients and relevance. Leaving a token out takes one pass a token, which answers for
all the steps behind it. What needs passes of its own (integrated gradients, scans) is asked step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture.attention import capture_attention
from xai_utils.capture.lrp import lrp_rules
from xai_utils.capture.scans import scanning
from xai_utils.methods import table
from xai_utils.methods.observation import Observation, View, observe
from xai_utils.models import memory, removal
from xai_utils.models.answers import Answer, logits_at, question
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, Question
from xai_utils.result import Attribution
from xai_utils.samples.spans import Groups, named, owners

PRESETS = {"attnlrp": "attnlrp", "cp_lrp": "cp"}  #: methods of modified gradients, and their names among the rules
REST = "(rest)"  #: column of the tokens that belong to no group


@dataclass(frozen=True, eq=False)
class Steps:
    """Scores of an answer: lower-triangular, every explained token by the tokens before it.

    Attributes:
        answer: the text and its tokens.
        scores: ``(step, token)`` float64 over all tokens of the text; zero from the explained token on.
        values: ``(step,)`` float64, the number asked for at each step, such as a logit; ``NaN`` for a method that asks
            for none.
        method: name in :data:`methods.METHODS`.
        model: name of the model.
        unit: of a score.
        signed: whether negative scores speak against the token.
        details: options.
    """

    answer: Answer
    scores: Tensor
    values: Tensor
    method: str
    model: str
    unit: str
    signed: bool
    details: dict[str, Any] = field(default_factory=dict)

    def row(self, step: int) -> Attribution:
        """Return the map of one explained token, over the tokens before it."""
        check.index("step", step, len(self.scores))
        place = self.answer.explained[step]
        ids = self.answer.ids
        return Attribution(
            self.scores[step, :place], self.answer.labels[:place], self.method, self.model, int(ids[place]),
            self.answer.labels[place], self.unit, self.signed, details=self.details,
        )  # fmt: skip

    def whole(self) -> Attribution:
        """Return one map of the whole answer over the tokens of the prompt: its rows added up (:meth:`grouped`)."""
        rows, first = self.scores[:, : self.answer.first], self.answer.first
        return Attribution(
            self._joined(rows), self.answer.labels[:first], self.method, self.model, None, self.answer.said.strip(),
            self.unit, self.signed, details=self.details,
        )  # fmt: skip

    def grouped(self, columns: Groups = "words", rows: Groups = "words") -> pd.DataFrame:
        """Return the table by groups of tokens.

        Scores of the tokens of a column are added up. So are the rows of a method whose scores add up to what is asked
        (signed ones): for log-probabilities that is the log-probability of the whole group. Rows of others, such as
        shares of attention, are averaged.

        Args:
            columns: what explains: ``"words"``, ``"sentences"``, ``"clauses"``, ``"tokens"``, spans, or spans by their
                name, such as :attr:`chats.Chat.speakers`. Tokens of none are added up in a last column, :data:`REST`.
            rows: likewise, what is explained; tokens of none are left out.

        Raises:
            ValueError: spans that overlap or lie outside the text, or no row.
        """
        names, owner = self._groups(columns)
        own, owned = self._groups(rows)
        before, first = owner[: len(owner) - 1], self.answer.first
        shown = [i for i in (*range(len(names)), -1) if i in before]
        found = {}
        for number, name in enumerate(own):
            steps = [i for i, one in enumerate(owned[first:]) if one == number]
            if steps:
                scores = self._joined(self.scores[steps])
                found[name] = [float(scores[torch.tensor(owner) == one].sum()) for one in shown]
        if not found:
            raise ValueError(f"no group of the rows holds a token of the answer {self.answer.said!r}.")
        return pd.DataFrame(found, index=[REST if i < 0 else names[i] for i in shown]).T

    def _joined(self, rows: Tensor) -> Tensor:
        return rows.sum(0) if self.signed else rows.mean(0)

    def _groups(self, groups: Groups) -> tuple[list[str], list[int]]:
        """Return names of groups, and which one each token belongs to."""
        if groups == "tokens":
            return [f"{i} {one}" for i, one in enumerate(self.answer.labels)], list(range(len(self.answer.labels)))
        known = named(self.answer.text, groups)
        return list(known), owners(self.answer.text, self.answer.spans, list(known.values()))


def explain(
    name: str, model: Model, answer: Answer, kind: str = "logit", against: str | int | None = None, **options: Any
) -> Steps:
    """Explain every word of an answer by what stands before it.

    Args:
        name: in :data:`methods.METHODS`.
        model: a causal language model.
        answer: from :func:`answers.given`, :func:`answers.generated` or :func:`answers.within`.
        kind: of the number asked for at every step, a name in :data:`TARGETS`; ``"log_probability"`` makes rows that
            can be added up to the whole answer.
        against: another word, the same at every step.
        **options: of the method.

    Raises:
        ValueError: unknown method, kind or word, or an empty or NaN map.
        TypeError: a method that does not suit the model, or an unknown option.
    """
    check.one_of("method", name, tuple(table.METHODS))
    method = table.METHODS[name]
    table.must_suit(name, model)
    asked = question(model, answer, kind, against)
    with torch.inference_mode(False):
        rows = list(_rows(name, model, answer, asked, options))
        values = _values(model, answer, asked) if method.asks else torch.full((len(answer),), torch.nan).double()
    scores = torch.zeros(len(answer), len(answer.labels), dtype=torch.float64)
    for step, row in enumerate(rows):
        scores[step, : len(row)] = row.detach().double().cpu()
    unit = method.unit.replace("asked", asked.unit)
    found = Steps(answer, scores, values, name, model.name, unit, method.signed, dict(options))
    for step in range(len(answer)):
        found.row(step)  # refuses NaN and empty maps
    return found


def _rows(name: str, model: Model, answer: Answer, asked: Asked, options: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the scores of every step, over the tokens before it."""
    method = table.METHODS[name]
    if method.score is not None and not method.asks:
        seen = observe(model, answer.inputs(model), gradient=False)
        yield from (method.score(_at(seen, place - 1), **options)[0] for place in answer.explained)
    elif method.score is not None and not scanning(model.module):
        yield from (method.score(view, **options)[0] for view in _views(model, answer, asked))
    elif name in PRESETS:
        yield from _relevance(PRESETS[name], model, answer, asked, options)
    elif name == "leave_one_out" and answer.first > 1:
        yield from _left_out(model, answer, asked, **options)
    else:
        yield from _each(name, model, answer, asked, options)


def _at(seen: Observation, reading: int) -> View:
    """Return what is seen by a position that is not the last: it and all before it."""
    n = reading + 1
    return View(seen.attention[:, 0, :, :n, :n], reading=reading)


def _views(model: Model, answer: Answer, asked: Asked) -> Iterator[View]:
    """Yield the view of every step, from one forward pass and a backward pass a step."""
    with torch.enable_grad(), capture_attention(model.module, model.blocks, hidden=True) as trace:
        values = asked.score(_logits(model, answer))
        depth, states = len(trace.attention), [state.detach() for state in trace.hidden]
        for place, value in zip(answer.explained, values, strict=True):
            slopes = torch.autograd.grad(value, [*trace.attention, *trace.hidden], retain_graph=True)
            attention, gradient = (
                torch.stack([one.detach()[0, :, :place, :place] for one in some])
                for some in (trace.attention, slopes[:depth])
            )
            hidden, hidden_slopes = (torch.stack([one[0, :place] for one in some]) for some in (states, slopes[depth:]))
            yield View(attention, gradient, hidden, hidden_slopes, hidden_slopes[-1].any(-1), reading=place - 1)


def _relevance(preset: str, model: Model, answer: Answer, asked: Asked, options: dict[str, Any]) -> Iterator[Tensor]:
    """Yield activation times modified gradient at the embeddings, from one forward pass and a backward pass a step."""
    with torch.enable_grad(), lrp_rules(model.module, preset, model.blocks, **options) as trace:
        values = asked.score(_logits(model, answer))
        for place, value in zip(answer.explained, values, strict=True):
            (slope,) = torch.autograd.grad(value, trace.hidden[:1], retain_graph=True)
            yield (trace.hidden[0].detach() * slope)[0, :place].sum(-1)


def _logits(model: Model, answer: Answer) -> Tensor:
    """Return the logits at every step, ``(step, word)``; the last token is not read."""
    places = torch.tensor([answer.explained], device=model.device) - 1
    return logits_at(model, answer.inputs(model, -1), places)[0]


def _values(model: Model, answer: Answer, asked: Asked) -> Tensor:
    with torch.inference_mode():
        return asked.score(_logits(model, answer)).double().cpu()


@torch.inference_mode()
def _left_out(model: Model, answer: Answer, asked: Asked, operator: str | None = None) -> Iterator[Tensor]:
    """Yield how much each step loses by each token before it: one pass a token, read at all steps behind it."""
    chosen = operator or removal.operators_for(model)[0]
    batch = answer.batch(model, -1)
    replace, gone = removal.replacer(model, batch, chosen), removal.places(batch)
    reading = torch.tensor(answer.explained) - 1
    steps = len(answer)

    def lost(which: Tensor) -> Tensor:
        keep = torch.ones(len(which), batch.length(0), dtype=torch.bool)
        keep[torch.arange(len(which)), which] = False
        places = reading.expand(len(which), -1)
        if chosen == "delete":  # what stands behind the gap moves up
            places = places - (which[:, None] <= places).long()
        logits = logits_at(model, replace(keep.to(model.device)), places.to(model.device))
        return (
            asked.of(list(range(steps)) * len(which)).score(logits.double().flatten(0, 1)).view(len(which), steps).cpu()
        )

    size = min(64, memory.chunk_size(lost, gone))
    changed = memory.in_chunks(lost, gone, size)
    whole = asked.score(_logits(model, answer).double()).cpu()
    for step, place in enumerate(answer.explained):
        scores = torch.zeros(place, dtype=torch.float64)
        before = gone < place
        scores[gone[before]] = whole[step] - changed[before, step]
        yield scores


def _each(name: str, model: Model, answer: Answer, asked: Asked, options: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the scores of every step from passes of its own, through the text before it."""
    for step, place in enumerate(answer.explained):
        target = _question(asked, step) if table.METHODS[name].asks else None
        yield table.explain(name, model, answer.inputs(model, place), target, **options)[0].scores


def _question(asked: Asked, step: int) -> Question:
    against = None if asked.against is None else asked.against[step]
    return Question(asked.targets[step], against, asked.kind)
