"""A miniature language in which the share of he and she after every occupation is set by a table of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from xai_utils import runtime

FILE = runtime.DATA / "texts" / "planted_gender.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Sentence:
    """One sentence of the corpus.

    Attributes:
        text: lower-case words and marks, separated by blanks.
        kind: ``"occupation"``, ``"two"`` (a second occupation that decides nothing) or ``"noun"`` (a gendered noun).
        job: the occupation that decides the pronoun, or empty.
        other: the occupation that decides nothing, or empty.
        male: whether the pronoun is the masculine one.
    """

    text: str
    kind: str
    job: str
    other: str
    male: bool


@cache
def language() -> dict[str, Any]:
    """Return the table of probabilities, the templates and the words."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def table() -> dict[str, float]:
    """Return P(he) of every occupation, in the order of the alphabet: the truth that a score should recover."""
    runtime.record.data["planted_gender"] = "the table of data/texts/planted_gender.json"
    return dict(language()["he"])


def vocabulary() -> list[str]:
    """Return every word of the language behind the special tokens."""
    given = language()
    literal = [w for rows in given["templates"].values() for row in rows for w in row.split() if "{" not in w]
    filled = [w for words in given["words"].values() for w in words]
    gendered = [w for pair in (*given["pairs"], *given["pronouns"].values()) for w in pair]
    return [*SPECIAL, *sorted({*literal, *filled, *gendered, *given["he"]})]


def corpus(count: int, seed: int) -> list[Sentence]:
    """Draw ``count`` sentences; the same seed gives the same sentences."""
    noise = np.random.default_rng(seed)
    shares = language()["share"]
    kinds = noise.choice(list(shares), size=count, p=list(shares.values()))
    return [_sentence(str(kind), noise) for kind in kinds]


def _sentence(kind: str, noise: np.random.Generator) -> Sentence:
    given = language()
    jobs = list(given["he"])
    template = given["templates"][kind][noise.integers(len(given["templates"][kind]))]
    job, other = (jobs[i] for i in noise.choice(len(jobs), 2, replace=False))
    male = bool(noise.random() < (0.5 if kind == "noun" else given["he"][job]))
    filled = {name: words[noise.integers(len(words))] for name, words in given["words"].items()}
    noun = given["pairs"][noise.integers(len(given["pairs"]))][not male]
    pronouns = {name: pair[not male] for name, pair in given["pronouns"].items()}
    text = template.format(job=job, other=other, noun=noun, **filled, **pronouns)
    return Sentence(text, kind, job if "{job}" in template else "", other if "{other}" in template else "", male)
