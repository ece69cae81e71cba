"""How well scores recover a table of pronoun probabilities that was planted in a model's training text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_utils.gender import findings, probes, vectors
from xai_utils.gender.vectors import Vectors
from xai_utils.maths import densray
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.samples import planted
from xai_utils.samples.gender import Item, Probe
from xai_utils.stats import AgainstChance

#: Scores of an occupation that are asked which of two decides, and what each is called in :data:`probes.SCORES`.
OF_TOKENS = {
    "AttCAT": "AttCAT",
    "DensRay of the occupation": "DensRay",
    "AttDR": "AttDR",
    "attention of [MASK]": "attention of [MASK]",
}


def questions(kind: str, each: int, seed: int, filled: int | None = None) -> list[Probe]:
    """Draw ``each`` sentences for every occupation and every template of a kind, ``"occupation"`` or ``"two"``.

    A second occupation stands by as often as any other: it is the first one's neighbour at a distance drawn at random.
    The same seed with another ``filled`` gives the same sentences but for the words that decide nothing: adjectives,
    places, things and times.
    """
    given, noise = planted.language(), np.random.default_rng(seed)
    jobs, found = list(given["he"]), []
    templates = given["templates"][kind] * each
    steps = noise.integers(1, len(jobs), len(templates))
    noise = noise if filled is None else np.random.default_rng(filled)
    for place, job in enumerate(jobs):
        for template, step in zip(templates, steps, strict=True):
            other = jobs[(place + step) % len(jobs)]
            part = next(name for name in given["pronouns"] if "{" + name + "}" in template)
            text = template.format(job=job, other=other, **_filled(given, noise), **{part: "[MASK]"})
            found.append(Probe(text, job, kind, other=other, pair=tuple(given["pronouns"][part])))
    return found


def directions(model: Model, each: int, seed: int) -> Vectors:
    """Return the states of gendered nouns and pronouns of the planted language, no occupation near."""
    given, noise = planted.language(), np.random.default_rng(seed)
    sides: tuple[list[Item], list[Item]] = ([], [])
    for template in [t for t in given["templates"]["noun"] if "{other}" not in t and "{noun}" in t] * each:
        filled = _filled(given, noise)
        for pair in given["pairs"]:
            for side, items in enumerate(sides):
                pronouns = {name: words[side] for name, words in given["pronouns"].items()}
                text = template.format(noun=pair[side], **filled, **pronouns)
                start = text.index(f" {pair[side]} ") + 1
                items.append(Item(text, start, start + len(pair[side]), not side))
    male, female = (vectors.states(model, items) for items in sides)
    return Vectors(male, female, np.arange(male.shape[1]) % len(given["pairs"]))


def log_odds() -> np.ndarray:
    """Return the truth, the planted log odds of the masculine pronoun, ``(occupation,)``, in the table's order."""
    return np.array([np.log(p / (1 - p)) for p in planted.table().values()])


def recovered(scores: Mapping[str, np.ndarray], seed: int, shuffles: int = 999) -> dict[str, AgainstChance]:
    """Compare scores ``(occupation,)`` with the truth: rank correlation, and what random orders of the table give."""
    return {name: findings.ordered(log_odds(), values, seed, shuffles) for name, values in scores.items()}


def occupation_scores(model: Model, asked: Sequence[Probe], rays: Tensor) -> dict[str, np.ndarray]:
    """Return every score of every occupation by layer, averaged over its sentences.

    Args:
        model: trained on the planted language.
        asked: of :func:`questions`.
        rays: one direction per layer, ``(layer, width)``.

    Returns:
        By name ``(layer, occupation)`` in the order of :func:`planted.table`; one layer for scores that have none.
    """
    rows: dict[str, list[Tensor]] = {}
    order: list[str] = []
    for one in probes.by_pair(model, asked):
        likeliest = probes.observe(model, one.probes, "likeliest")
        assert one.seen.states is not None
        end = densray.project(one.seen.states[-1], rays[-1].to(one.seen.states))
        found = {
            "logit difference": torch.from_numpy(one.log_odds)[None],
            "AttCAT": one.of_word("AttCAT"),
            "AttCAT, column mean": one.of_word("AttCAT, column mean"),
            "CAT": one.of_word("CAT"),
            "AttCAT of the likeliest word": likeliest.of_word("AttCAT"),
            "DensRay of the occupation": one.of_word("DensRay", rays),
            "AttDR": one.of_word("AttDR", rays),
            "DensRay of [MASK]": (one.scores("DensRay", rays) * one.mask).sum(-1),
            "DensRay of [MASK], at the end": (end * one.mask).sum(-1)[None],
            "attention of [MASK]": one.of_word("attention of [MASK]"),
        }
        for name, values in found.items():
            rows.setdefault(name, []).append(values)
        order += [probe.word for probe in one.probes]
    return {name: _by_job(torch.cat(parts, 1), order) for name, parts in rows.items()}


def two_jobs(model: Model, asked: Sequence[Probe], rays: Tensor) -> dict[str, np.ndarray]:
    """Ask every score which of two occupations decides the pronoun.

    Returns:
        By name of :data:`OF_TOKENS` an array ``(3, occupation)`` in the order of :func:`planted.table`: mean score,
        summed over the layers, where the occupation decides; where it stands by and decides nothing; and the share of
        sentences in which the absolute score of the one that decides is the larger.
    """
    seen = list(probes.by_pair(model, asked))
    jobs, others = zip(*((probe.word, probe.other) for one in seen for probe in one.probes), strict=True)
    found = {}
    for name, score in OF_TOKENS.items():
        own, bystander = (
            torch.cat([one.of_word(score, rays, other).sum(0) for one in seen]) for other in (False, True)
        )
        larger = own.abs() > bystander.abs()
        found[name] = np.stack([_by_job(own, jobs), _by_job(bystander, others), _by_job(larger, jobs)])
    return found


#: What makes an explanation clear, see :func:`clarity`.
CLARITY = ("separation", "concentration", "stability")


def clarity(model: Model, asked: Sequence[Probe], again: Sequence[Probe], rays: Tensor) -> dict[str, np.ndarray]:
    """Measure how clearly a score, summed over the layers, names the one word that decides.

    Separation: the share of the two occupations' scores that falls on the one that decides, in [0, 1]. Concentration:
    its share of the scores of all tokens but [MASK] and specials. Both of absolute scores. Stability: Spearman's
    correlation of the absolute scores of all tokens between two sentences that differ in words that decide nothing.

    Args:
        model: trained on the planted language.
        asked: of ``questions("two", ...)``.
        again: the same with other fillings.
        rays: one direction per layer, ``(layer, width)``.

    Returns:
        By name of :data:`OF_TOKENS` an array ``(3, occupation)`` in the order of :data:`CLARITY` and of the table.
    """
    one, other = (probes.observe(model, some) for some in (asked, again))
    if not torch.equal(one.explained, other.explained):
        raise ValueError("sentences and their refilled partners differ in length; expected the same templates.")
    jobs, found = [probe.word for probe in asked], {}
    for name, score in OF_TOKENS.items():
        first, second = ((seen.scores(score, rays).sum(0).abs() * seen.explained) for seen in (one, other))
        decides, idle = ((first * one.where(which)).sum(-1) for which in (False, True))
        rows = zip(first.cpu().numpy(), second.cpu().numpy(), one.explained.cpu().numpy(), strict=True)
        stable = torch.tensor([float(agreement.spearman(a[kept], b[kept])) for a, b, kept in rows])
        parts = (decides / (decides + idle), decides / first.sum(-1), stable)
        found[name] = np.stack([_by_job(part, jobs) for part in parts])
    return found


def _filled(given: Mapping[str, Any], noise: np.random.Generator) -> dict[str, str]:
    return {name: str(noise.choice(words)) for name, words in given["words"].items()}


def _by_job(values: Tensor, order: Iterable[str]) -> np.ndarray:
    """Average ``(..., question)`` over the questions about every occupation of the table, ``(..., occupation)``."""
    asked = list(order)
    which = torch.tensor([[job == name for job in asked] for name in planted.table()]).double()
    if not which.any(1).all():
        raise ValueError("some occupation is in no question; draw more for each.")
    return (values.double().cpu() @ (which / which.sum(1, keepdim=True)).T).numpy()
