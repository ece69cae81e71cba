"""How well scores recover a table of pronoun probabilities that was planted in a model's training text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xai_utils.gender import vectors as gender_vectors
from xai_utils.gender.vectors import Vectors
from xai_utils.maths import attcat, densray
from xai_utils.methods import masked
from xai_utils.methods.masked import Masked
from xai_utils.models import Model
from xai_utils.samples import planted
from xai_utils.samples.gender import Item

#: Names of the scores of :func:`occupation_scores`.
SCORES = (
    "logit difference",
    "AttCAT",
    "AttCAT, column mean",
    "CAT",
    "AttCAT of the likeliest word",
    "DensRay of the occupation",
    "AttDR",
    "DensRay of [MASK]",
    "DensRay of [MASK], at the end",
    "attention of [MASK]",
)
#: Scores that are asked which of two occupations decides; see :func:`two_jobs`.
OF_TOKENS = ("AttCAT", "DensRay of the occupation", "AttDR", "attention of [MASK]")


@dataclass(frozen=True)
class Question:
    """A sentence of the planted language with [MASK] for its pronoun, and the pair that fits there."""

    text: str
    pair: tuple[str, str]
    job: str
    other: str


def questions(kind: str, each: int, seed: int) -> list[Question]:
    """Draw ``each`` sentences for every occupation and every template of a kind, ``"occupation"`` or ``"two"``.

    A second occupation stands by as often as any other: it is the first one's neighbour at a distance drawn at random.
    """
    given, noise = planted.language(), np.random.default_rng(seed)
    jobs, found = list(given["he"]), []
    templates = given["templates"][kind] * each
    steps = noise.integers(1, len(jobs), len(templates))
    for place, job in enumerate(jobs):
        for template, step in zip(templates, steps, strict=True):
            other = jobs[(place + step) % len(jobs)]
            filled = {name: str(noise.choice(words)) for name, words in given["words"].items()}
            part = next(name for name in given["pronouns"] if "{" + name + "}" in template)
            text = template.format(job=job, other=other, **filled, **{part: "[MASK]"})
            found.append(Question(text, tuple(given["pronouns"][part]), job, other))
    return found


def directions(model: Model, each: int, seed: int) -> Vectors:
    """Return the states of gendered nouns and pronouns of the planted language, no occupation near."""
    given, noise = planted.language(), np.random.default_rng(seed)
    male: list[Item] = []
    female: list[Item] = []
    for template in [t for t in given["templates"]["noun"] if "{other}" not in t and "{noun}" in t] * each:
        filled = {name: str(noise.choice(words)) for name, words in given["words"].items()}
        for pair in given["pairs"]:
            for side, items in enumerate((male, female)):
                pronouns = {name: words[side] for name, words in given["pronouns"].items()}
                text = template.format(noun=pair[side], **filled, **pronouns)
                start = text.index(f" {pair[side]} ") + 1
                items.append(Item(text, start, start + len(pair[side]), not side))
    return Vectors(gender_vectors.states(model, male), gender_vectors.states(model, female))


def occupation_scores(
    model: Model, asked: list[Question], vectors: Tensor
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return every score of every occupation, averaged over its sentences.

    Args:
        model: trained on the planted language.
        asked: of :func:`questions`.
        vectors: one direction per layer, ``(layer, width)``.

    Returns:
        Sums over the layers by name of :data:`SCORES`, ``(occupation,)`` in the order of :func:`planted.table`; and
        by layer, ``(layer, occupation)``, for the scores that have layers.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in SCORES}
    order: list[str] = []
    for pair in dict.fromkeys(question.pair for question in asked):
        some = [question for question in asked if question.pair == pair]
        order += [question.job for question in some]
        texts = [question.text for question in some]
        seen = masked.observe(model, texts, pair)
        likeliest = masked.observe(model, texts, pair, target="likeliest")
        job = seen.covers([question.job for question in some], texts)
        at_mask = torch.zeros_like(job)
        at_mask[range(len(some)), seen.position] = True
        end = densray.project(seen.hidden[-1:], vectors[-1])
        found = {
            **{name: _at(scores, job) for name, scores in _of_tokens(seen, vectors).items()},
            "logit difference": seen.score[None], "AttCAT, column mean": _at(seen.attcat("column mean"), job),
            "CAT": _at(attcat.cat(seen.hidden[:-1], seen.gradient[:-1]), job),
            "AttCAT of the likeliest word": _at(likeliest.attcat(), job),
            "DensRay of [MASK]": _at(seen.ray(vectors), at_mask), "DensRay of [MASK], at the end": _at(end, at_mask),
        }  # fmt: skip
        for name in SCORES:
            rows[name].append(found[name])
    by_layer = {name: _by_job(torch.cat(parts, 1), order) for name, parts in rows.items()}
    return {name: values.sum(0) for name, values in by_layer.items()}, by_layer


def two_jobs(model: Model, asked: list[Question], vectors: Tensor) -> dict[str, np.ndarray]:
    """Ask every score which of two occupations decides the pronoun.

    Returns:
        By name of :data:`OF_TOKENS` an array ``(3, occupation)`` in the order of :func:`planted.table`: mean score,
        summed over the layers, where the occupation decides; where it stands by and decides nothing; and the share of
        sentences in which the absolute score of the one that decides is the larger.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in OF_TOKENS}
    order: list[list[str]] = [[], []]
    for pair in dict.fromkeys(question.pair for question in asked):
        some = [question for question in asked if question.pair == pair]
        texts, names = [q.text for q in some], ([q.job for q in some], [q.other for q in some])
        seen = masked.observe(model, texts, pair)
        where = [seen.covers(words, texts) for words in names]
        for place in (0, 1):
            order[place] += names[place]
        for name, scores in _of_tokens(seen, vectors).items():
            rows[name].append(torch.stack([_at(scores, one).sum(0) for one in where]))
    found = {name: torch.cat(parts, 1) for name, parts in rows.items()}
    larger = {name: (both[0].abs() > both[1].abs()).double() for name, both in found.items()}
    return {
        name: np.stack(
            [_by_job(row, jobs) for row, jobs in zip((*both, larger[name]), (*order, order[0]), strict=True)]
        )
        for name, both in found.items()
    }


def _of_tokens(seen: Masked, vectors: Tensor) -> dict[str, Tensor]:
    """Return the scores of :data:`OF_TOKENS`, ``(layer, sample, token)``."""
    return dict(zip(OF_TOKENS, (seen.attcat(), seen.ray(vectors), seen.attdr(vectors), seen.paid()), strict=True))


def _by_job(values: Tensor, order: list[str]) -> np.ndarray:
    """Average ``(..., question)`` over the questions about every occupation of the table, ``(..., occupation)``."""
    jobs = list(planted.table())
    which = torch.tensor([[job == name for job in order] for name in jobs]).double()
    if not which.any(1).all():
        raise ValueError("some occupation is in no question; draw more for each.")
    return (values.double().cpu() @ (which / which.sum(1, keepdim=True)).T).numpy()


def _at(scores: Tensor, where: Tensor) -> Tensor:
    """Add up scores ``(layer, sample, token)`` over the asked tokens: ``(layer, sample)``."""
    return (scores * where).sum(-1)
