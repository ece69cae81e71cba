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
PROFESSIONS = runtime.DATA / "texts" / "professions.json"
MASK = "[MASK]"
KINDS = ("occupation", "adjective", "noun", "two jobs")
#: Occupations that crowd workers rated at least so far from 0 are gendered by definition, as waitress is.
BY_DEFINITION = 0.5
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
        group: list the word comes from, such as ``"appearance"``; of occupations ``"by definition"`` or empty.
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


@cache
def professions() -> dict[str, tuple[float, float]]:
    """Return the 320 professions, and how male each is by definition and by stereotype, in [-1, 1], as crowds rated it.

    Source: Bolukbasi et al. (2016), repository tolga-b/debiaswe, with blanks in the place of underscores.
    """
    listed = json.loads(PROFESSIONS.read_text(encoding="utf-8"))["professions"]
    return {word.replace("_", " "): (definition, stereotype) for word, definition, stereotype in listed}


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


def gendered(given: Iterable[Sequence[str]] | None = None, places: int | None = None) -> tuple[list[Item], list[Item]]:
    """Fill every context with every pair: masculine sentences and, in the same order, their partners.

    Args:
        given: pairs, masculine first; default all.
        places: in how many of the places every context is set, another one first from context to context; default all.
    """
    chosen = pairs() if given is None else check_pairs(given)
    named = words()["places"]
    sides: tuple[list[Item], list[Item]] = ([], [])
    for number, context in enumerate(words()["contexts"]):
        turned = [named[(number + step) % len(named)] for step in range(places or len(named))]
        for place, pair in product(turned, chosen):
            for side, word in enumerate(pair):
                sides[side].append(_filled(context.replace("{place}", place), word, male=not side))
    runtime.record.data["gendered"] = f"{len(sides[0])} sentences a side, data/texts/gender.json"
    return sides


def probes(kind: str, pair: tuple[str, str] = ("he", "she")) -> list[Probe]:
    """Return the sentences of one kind, each with one [MASK], that ask for one word of a pair against the other."""
    check.one_of("kind", kind, KINDS)
    template = words()["templates"][kind]
    groups: dict[str, Any] = _occupations() if kind == "occupation" else words()[kind]
    source = PROFESSIONS if kind == "occupation" else FILE
    runtime.record.data[f"probes {kind}"] = f"{sum(map(len, groups.values()))} sentences, data/texts/{source.name}"
    if kind == "two jobs":
        return [Probe(template.format(first=one, word=two), two, kind, "", one, pair) for one, two in groups[""]]
    return [
        Probe(template.format(word=word, a="an" if word[0] in "aeiou" else "a"), word, kind, group, pair=pair)
        for group, members in groups.items()
        for word in members
    ]


def _occupations() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {"": [], "by definition": []}
    for word, (definition, _) in professions().items():
        groups["by definition" if abs(definition) >= BY_DEFINITION else ""].append(word)
    return groups


def definitions() -> list[Probe]:
    """Return sentences that ask for he or she of a word whose definition says which, such as king and queen.

    Every pair of singular nouns in every template, the masculine word first and its partner next, which is its
    ``other``. ``group`` is the side, ``"male"`` or ``"female"``.
    """
    singular = [pair for pair in pairs()[1:] if pair[0] not in words()["plural"]]
    return [
        Probe(template.format(word=pair[side]), pair[side], "definition", ("male", "female")[side], pair[1 - side])
        for template, pair, side in product(words()["templates"]["definition"], singular, (0, 1))
    ]


def everyday(given: Iterable[str], masked: bool = True) -> list[Probe]:
    """Return the templates of :func:`definitions` about other words, for example occupations, word by word.

    With ``masked`` false only what stands before [MASK], for a model that goes on.
    """
    templates = [one if masked else one.partition(" " + MASK)[0] for one in words()["templates"]["definition"]]
    return [Probe(template.format(word=word), word, "everyday") for word in given for template in templates]


def agreements() -> list[Probe]:
    """Return sentences whose verb, ``is`` or ``are``, must agree with a noun: grammar without gender.

    ``group`` is the number of the noun, ``"one"`` or ``"many"``; its form in the other number is ``other``.
    """
    places = words()["places"]
    rows = product(words()["templates"]["agreement"], enumerate(words()["agreement"]), (0, 1))
    return [
        Probe(
            template.format(word=forms[many], places=f"{places[number % 4]}s"),
            forms[many], "agreement", ("one", "many")[many], forms[1 - many], ("is", "are"),
        )
        for template, (number, forms), many in rows
    ]  # fmt: skip


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
