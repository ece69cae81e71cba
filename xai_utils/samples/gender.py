"""Sentences about gender: contexts with a gendered word and its counterfactual partner, and probes with one [MASK]."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from xai_utils import check, runtime

FILE = runtime.DATA / "texts" / "gender.json"
MASK = "[MASK]"
KINDS = ("occupation", "adjective", "noun", "two jobs")
#: Words whose partner depends on their part in the sentence; see :func:`swap`.
_HIS, _HER, _HIM = "his", "her", "him"


@dataclass(frozen=True)
class Item:
    """One occurrence of a gendered word.

    Attributes:
        text: the sentence.
        start, end: characters of the word.
        male: its side.
    """

    text: str
    start: int
    end: int
    male: bool

    @property
    def word(self) -> str:
        """The gendered word, lower case."""
        return self.text[self.start : self.end].lower()


@dataclass(frozen=True)
class Probe:
    """A sentence with one [MASK], and the word that is asked about.

    Attributes:
        text: with one [MASK].
        word: occupation, adjective or noun in it; empty if none is asked about.
        kind: one of :data:`KINDS`, or of a corpus.
        group: list the word comes from, such as ``"appearance"``.
        other: the other of two occupations, else empty.
        pair: two words of one token that could stand at [MASK], masculine first.
    """

    text: str
    word: str = ""
    kind: str = ""
    group: str = ""
    other: str = ""
    pair: tuple[str, str] = ("he", "she")

    def __post_init__(self) -> None:
        object.__setattr__(self, "pair", tuple(self.pair))


@cache
def words() -> dict[str, Any]:
    """Return word lists, contexts and templates."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def pairs() -> tuple[tuple[str, str], ...]:
    """Return the gender pairs, masculine first; every word is one piece of BERT's vocabulary."""
    return tuple((male, female) for male, female in words()["pairs"])


def check_pairs(given: Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Accept pairs of two different words, masculine first, no word on both sides.

    Raises:
        ValueError: not two words, a word on both sides, or a pair known the other way round.
    """
    found = []
    for pair in given:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"{tuple(pair)} is no pair of two different words, masculine first.")
        found.append((pair[0].lower(), pair[1].lower()))
    known = {*pairs(), (_HIS, _HER), (_HIM, _HER), ("himself", "herself")}
    if swapped := [pair for pair in found if pair[::-1] in known]:
        raise ValueError(f"the sides of {swapped[0]} are swapped: the masculine word comes first, as in ('he', 'she').")
    if both := {male for male, _ in found} & {female for _, female in found}:
        raise ValueError(f"{sorted(both)} stand on both sides, so they have no side.")
    if not found:
        raise ValueError("no gender pair is given; expected some, such as ('he', 'she').")
    return tuple(found)


def gendered(given: Iterable[Sequence[str]] | None = None) -> tuple[list[Item], list[Item]]:
    """Fill every context and place with every pair: masculine sentences and, in the same order, their partners."""
    chosen = pairs() if given is None else check_pairs(given)
    sides: tuple[list[Item], list[Item]] = ([], [])
    for context, place, pair in product(words()["contexts"], words()["places"], chosen):
        for side, word in enumerate(pair):
            sides[side].append(_filled(context.replace("{place}", place), word, male=not side))
    runtime.record.data["gendered"] = f"{len(sides[0])} sentences a side, data/texts/gender.json"
    return sides


def probes(kind: str, pair: tuple[str, str] = ("he", "she")) -> list[Probe]:
    """Return the sentences of one kind, each with one [MASK], that ask for one word of a pair against the other."""
    check.one_of("kind", kind, KINDS)
    template, groups = words()["templates"][kind], words()[kind]
    runtime.record.data[f"probes {kind}"] = f"{sum(map(len, groups.values()))} sentences, data/texts/gender.json"
    if kind == "two jobs":
        return [Probe(template.format(first=one, word=two), two, kind, "", one, pair) for one, two in groups[""]]
    return [
        Probe(template.format(word=word, a="an" if word[0] in "aeiou" else "a"), word, kind, group, pair=pair)
        for group, members in groups.items()
        for word in members
    ]


def open_contexts(pair: tuple[str, str] = ("he", "she")) -> list[Probe]:
    """Return every written context once, with [MASK] for its subject: probes that share no template, and no word."""
    places, contexts = words()["places"], words()["contexts"]
    return [Probe(c.format(who=MASK, place=places[i % len(places)]), pair=pair) for i, c in enumerate(contexts)]


def occurrences(text: str, given: Sequence[tuple[str, str]]) -> list[Item]:
    """Return every whole word of ``given`` in a text, with its own side."""
    side = {word: not i for pair in given for i, word in enumerate(pair)}
    found = (m for m in re.finditer(r"[A-Za-z]+", text) if m[0].lower() in side)
    return [Item(text, m.start(), m.end(), side[m[0].lower()]) for m in found]


def swap(text: str, given: Sequence[tuple[str, str]]) -> str:
    """Return the counterfactual sentence: every gendered word becomes its partner, capitals kept.

    ``her`` becomes ``his`` before a word and ``him`` before a mark or the end, which is a rule of thumb ("gave her
    money" is treated wrongly); ``his`` and ``him`` become ``her``.
    """
    partner = {a: b for pair in given for a, b in (pair, pair[::-1])}
    partner |= {_HIS: _HER, _HIM: _HER, "himself": "herself", "herself": "himself"}

    def turned(match: re.Match[str]) -> str:
        word = match[0].lower()
        if word == _HER:
            new = _HIS if re.match(r"\s+\w", text[match.end() :]) else _HIM
        else:
            new = partner.get(word, word)
        return match[0] if new == word else new.capitalize() if match[0][0].isupper() else new

    return re.sub(r"[A-Za-z]+", turned, text)


def _filled(context: str, word: str, male: bool) -> Item:
    before, after = context.split("{who}")
    article = "" if word in ("he", "she") else "The " if not before else "the "
    shown = word.capitalize() if not before and not article else word
    start = len(before + article)
    return Item(f"{before}{article}{shown}{after}", start, start + len(shown), male)
