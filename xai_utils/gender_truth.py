"""How well scores recover a table of pronoun probabilities that was planted in a model's training text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xai_utils import attcat, gender_vectors, masked, planted
from xai_utils.gender_texts import Item
from xai_utils.gender_vectors import Vectors
from xai_utils.models import Model

#: Names of the scores of :func:`occupation_scores`.
SCORES = (
    "logit difference",
    "AttCAT",
    "CAT",
    "AttCAT of the likeliest word",
    "DensRay of the occupation",
    "DensRay of [MASK]",
    "AttDR",
    "attention of [MASK]",
)


@dataclass(frozen=True)
class Question:
    """A sentence of the planted language with [MASK] for its pronoun, and the pair that fits there."""

    text: str
    pair: tuple[str, str]
    job: str
    other: str


def questions(kind: str, each: int, seed: int) -> list[Question]:
    """Draw ``each`` sentences for every occupation and every template of a kind, ``"occupation"`` or ``"two"``."""
    given, noise = planted.language(), np.random.default_rng(seed)
    jobs, found = list(given["he"]), []
    for job in jobs:
        for template in given["templates"][kind] * each:
            other = str(noise.choice([name for name in jobs if name != job]))
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
        ray = seen.ray(vectors)
        found = {
            "logit difference": seen.score[None], "AttCAT": _at(seen.attcat(), job),
            "CAT": _at(attcat.cat(seen.hidden[:-1], seen.gradient[:-1]), job),
            "AttCAT of the likeliest word": _at(likeliest.attcat(), job), "DensRay of the occupation": _at(ray, job),
            "DensRay of [MASK]": _at(ray, at_mask), "AttDR": _at(seen.attdr(vectors), job),
            "attention of [MASK]": _at(seen.paid(), job),
        }  # fmt: skip
        for name, values in found.items():
            rows[name].append(values)
    jobs = list(planted.table())
    which = torch.tensor([[job == name for job in order] for name in jobs]).double()
    mean = which / which.sum(1, keepdim=True)
    by_layer = {name: (torch.cat(parts, 1).double() @ mean.T).numpy() for name, parts in rows.items()}
    return {name: values.sum(0) for name, values in by_layer.items()}, by_layer


def deciding(model: Model, asked: list[Question]) -> Tensor:
    """Return AttCAT of the occupation that decides and of the one that does not, ``(question, 2)``, absolute."""
    texts = [question.text for question in asked]
    seen = masked.observe(model, texts, asked[0].pair)
    total = seen.attcat().sum(0).abs()
    which = [seen.covers(names, texts) for names in ([q.job for q in asked], [q.other for q in asked])]
    return torch.stack([(total * where).sum(-1) for where in which], -1)


def _at(scores: Tensor, where: Tensor) -> Tensor:
    """Add up scores ``(layer, sample, token)`` over the asked tokens: ``(layer, sample)``."""
    return (scores * where).sum(-1)
