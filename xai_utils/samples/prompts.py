"""Prompts whose next word has one known cause, with the edits that prove it on a model.

Three tasks for a language model, drawn from templates and lists of words:

- ``"indirect_object"``: two people, one of whom gives something; the next word is the other one;
- ``"notes"``: some notes of a name and a thing each, then the beginning of one of them; the next word is its thing;
- ``"agreement"``: a subject and a noun of the other number; the next word is the verb in the number of the subject.

The cause is the *decisive* word: written anew, it makes another word come next, and we know which. Every other entry
(a name, a thing, a noun) can be written anew and the next word stays. A word that says *which* entry is asked for is
a cause as well, but of another kind: the prompt marks it, and maps are not judged by it. Whether a model does what the
task says is another question, answered by :func:`on_prompts.verified`.

Source: of the first task Wang et al. (2022), arXiv:2211.00593; of the third Linzen et al. (2016), arXiv:1611.01368.
Differs: all sentences and words are ours, and the truth is not assumed of a prompt but tested on it, edit by edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import NamedTuple, TypeVar

import numpy as np

from xai_utils import check
from xai_utils.samples.kinds import Text

T = TypeVar("T")
Span = tuple[int, int]
Words = Mapping[str, str]  #: slot of a template -> what is written there

NAMES = (
    "Mary Anna Lisa Sarah Emma Alice Laura Julia Helen Nancy Maria Ruth Clara Ella Martha Rose Susan Karen Linda Diana "
    "John Paul Peter Tom Jack David Mark Simon Frank Kevin Adam Steve Oscar Felix Hugo George Henry Robert Brian James"
).split()
PLACES = "school market station library office garden museum kitchen park hotel".split()
THINGS = "book letter ticket ring coat cup map flower knife bag".split()
GIVING = (
    "On Friday {one} and {two} met at the {place}, and {asks} gave a {thing} to",
    "Because {one} and {two} worked at the same {place}, {asks} often lent a {thing} to",
    "Yesterday {one} and {two} sat together in the {place}. Then {asks} passed the {thing} to",
    "Before {one} and {two} left the {place}, {asks} offered a {thing} to",
    "In the evening {one} and {two} stood in the {place}, where {asks} gave the {thing} to",
    "When {one} and {two} came back from the {place}, {asks} showed the {thing} to",
)
DOINGS = {
    "eats": "bread cheese honey rice soup fish cake fruit".split(),
    "plays": "chess football tennis piano violin guitar cards golf".split(),
    "speaks": "French German Spanish Italian Greek Russian Chinese Dutch".split(),
    "keeps a": "dog cat horse goat pig rabbit cow duck".split(),
    "lives in": "London Paris Rome Berlin Dublin Madrid Vienna Moscow".split(),
    "drinks": "tea coffee milk water wine beer juice".split(),
    "drives a": "truck bus taxi car van tractor".split(),
    "wears a": "hat coat ring belt watch shirt".split(),
}
NOTES = (
    ("My neighbors are easy to tell apart. ", "{key} {value}. ", "As I said, {asks}"),
    ("Let me think: ", "{key} {value}, ", "so, again, {asks}"),
    ("Our guests:\n", "* {key} {value}.\n", "\nThe same once more:\n* {asks}"),
)  #: beginning, each note, end; every note is of a doing of its own
ALIKE = (("Please write down: ", "for {key} {value}, ", "and that is all. I repeat: for {asks}"),)  #: only names differ
SUBJECTS = "key box picture letter book cup lamp bridge chair table".split()
OTHERS = "cabinet garden farmer teacher doctor window wall school station office river village".split()
PLURALS = {"box": "boxes"}  #: that do not just add an s
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
CLAUSES = (
    "The {head} {by} the {near}",
    "Everybody in the town knows that the {head} {by} the {near}",
    "In the old story the {head} {by} the {far} {beside} the {near}",
    "Not far from the {near}, the {head}",
    "Behind the {near}, as we had expected, the {head}",
    "Just opposite the {near}, the {head} {by} the {far}",
)
BY, BESIDE = ("of", "for", "beside"), ("near", "behind")
#: what says the answer where it decides nothing, see :func:`echoed`
ECHOES = {
    "indirect_object": "(we had just spoken about {word}) ",
    "notes": "(the word of the week is {word}) ",
    "agreement": "(he forgot the word {word}) ",
}


class Edit(NamedTuple):
    """A prompt with one entry written anew, everywhere it stands.

    Attributes:
        role: ``"answer"``, the decisive entry; ``"other"``, any other one; or ``"question"``, which asks for the
            distractor.
        text: the whole prompt that comes of it.
        answer: the word that comes next then.
        asks: the character at which the part that asks begins; 0 if there is none.
    """

    role: str
    text: str
    answer: str
    asks: int = 0


@dataclass(frozen=True)
class Prompt(Text):
    """A text whose next word is known; its ``rationale`` is the decisive word, its ``kind`` the task.

    Attributes:
        answer: the word that comes next.
        distractor: the word that a reader might say who takes the wrong entry.
        rival: character spans of the entry that speaks for the distractor.
        asking: character spans of what says which entry is asked for.
        candidates: every word that is the answer of the prompt or of an edit, or stands in an entry like it.
        edits: what proves the cause.
        opening: what its template begins with; prompts with the same opening are of one template.
    """

    answer: str = ""
    distractor: str = ""
    rival: tuple[Span, ...] = ()
    asking: tuple[Span, ...] = ()
    candidates: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    opening: str = ""

    @property
    def versions(self) -> tuple[Edit, ...]:
        """The prompt itself (role ``"prompt"``) and its edits."""
        return Edit("prompt", self.text, self.answer), *self.edits


def draw(task: str, seed: int) -> Prompt:
    """Draw one prompt of a task; the same arguments give the same prompt.

    Raises:
        ValueError: an unknown task.
    """
    check.one_of("task", task, tuple(TASKS))
    noise = np.random.default_rng([seed, list(TASKS).index(task)])
    return TASKS[task](f"{task}:{seed}", noise)


def draws(task: str, number: int, first: int = 0) -> list[Prompt]:
    """Draw the prompts of the seeds from ``first`` on, so many of them."""
    check.at_least_one("number", number)
    return [draw(task, seed) for seed in range(first, first + number)]


def echoed(prompt: Prompt, behind: bool = False) -> Prompt:
    """Say the answer once more, where it decides nothing: a map that looks for words like the answer marks it there.

    The echo stays in every edit; one edit more, of the role ``"other"``, says the distractor in it.

    Args:
        prompt: as :func:`draw` makes it.
        behind: put the echo before what asks, behind the decisive word; else in front. An agreement has nothing that
            asks, so there it is in front.

    Returns:
        The longer prompt; its ``rival`` is the echo.
    """
    before = ECHOES[prompt.kind]
    place = prompt.asking[0][0] if behind and prompt.asking else 0
    start = place + before.index("{word}")
    by = len(before.format(word=prompt.answer))
    turned = Edit("other", _put(prompt.text, place, before.format(word=prompt.distractor)), prompt.answer)
    edits = (_put(one.text, one.asks if behind else 0, before.format(word=prompt.answer)) for one in prompt.edits)
    return replace(
        prompt,
        text=_put(prompt.text, place, before.format(word=prompt.answer)),
        name=f"{prompt.name}:echoed",
        rationale=_moved(prompt.rationale, place, by),
        rival=((start, start + len(prompt.answer)),),
        asking=_moved(prompt.asking, place, by),
        edits=(*(one._replace(text=text) for one, text in zip(prompt.edits, edits, strict=True)), turned),
    )


def _put(text: str, place: int, words: str) -> str:
    return text[:place] + words + text[place:]


def _moved(spans: Sequence[Span], place: int, by: int) -> tuple[Span, ...]:
    return tuple((start + by, end + by) if start >= place else (start, end) for start, end in spans)


def _indirect_object(name: str, noise: np.random.Generator) -> Prompt:
    one, two, new, third = _some(noise, NAMES, 4)
    (place, elsewhere), (thing, another) = _some(noise, PLACES, 2), _some(noise, THINGS, 2)
    words = {"one": one, "two": two, "place": place, "thing": thing}
    gives, gets = _some(noise, ("one", "two"), 2)
    giver, answer = words[gives], words[gets]
    changes = [
        ("answer", {gets: new}, new),
        ("other", {gives: third, "asks": third}, answer),
        ("other", {"place": elsewhere}, answer),
        ("other", {"thing": another}, answer),
        ("question", {"asks": answer}, giver),
    ]
    frame = _Frame(_one(noise, GIVING), words | {"asks": giver}, gets, gives)
    return frame.prompt(name, answer, giver, changes, (new, third))


def _notes(name: str, noise: np.random.Generator) -> Prompt:
    design, count = _one(noise, (*NOTES, *ALIKE)), int(noise.integers(3, 6))
    names, doings = _some(noise, NAMES, count), _some(noise, tuple(DOINGS), count)
    keys = [f"{who} {doing}" for who, doing in zip(names, doings, strict=True)]
    values, anew = zip(*(_some(noise, DOINGS[doing], 2) for doing in doings), strict=True)
    if design in ALIKE:
        keys, things = names, _some(noise, DOINGS["eats"], count + 1)
        values, anew = tuple(things[:-1]), (things[-1],) * count
    begin, note, end = design
    right, wrong = (int(i) for i in noise.permutation(count)[:2])
    notes = "".join(note.format(key=f"{{key{i}}}", value=f"{{value{i}}}") for i in range(count))
    words = {f"key{i}": key for i, key in enumerate(keys)} | {f"value{i}": value for i, value in enumerate(values)}
    changes = [
        ("answer", {f"value{i}": word}, word) if i == right else ("other", {f"value{i}": word}, values[right])
        for i, word in enumerate(anew)
    ]
    changes.append(("question", {"asks": keys[wrong]}, values[wrong]))
    frame = _Frame(begin + notes + end, words | {"asks": keys[right]}, f"value{right}", f"value{wrong}")
    return frame.prompt(name, values[right], values[wrong], changes, (*values, *anew))


def _agreement(name: str, noise: np.random.Generator) -> Prompt:
    template, verbs, many = _one(noise, CLAUSES), _one(noise, VERBS), int(noise.integers(2))
    nouns = dict(zip(("head", "far", "near"), (_one(noise, SUBJECTS), *_some(noise, OTHERS, 2)), strict=True))
    plural = {"head": many, "far": int(noise.integers(2)), "near": 1 - many}
    words = {slot: _noun(noun, plural[slot]) for slot, noun in nouns.items()}
    words |= {"by": _one(noise, BY), "beside": _one(noise, BESIDE)}
    changes = [
        ("answer" if slot == "head" else "other", {slot: _noun(noun, 1 - plural[slot])}, verbs[many ^ (slot == "head")])
        for slot, noun in nouns.items()
        if f"{{{slot}}}" in template
    ]
    return _Frame(template, words, "head", "near").prompt(name, verbs[many], verbs[1 - many], changes, ())


TASKS = {"indirect_object": _indirect_object, "notes": _notes, "agreement": _agreement}


@dataclass(frozen=True)
class _Frame:
    """A template, what is written in its slots, and which of them hold the decisive word and its rival."""

    template: str
    words: Words
    decisive: str
    rival: str

    def written(self, changed: Words) -> tuple[str, dict[str, Span]]:
        """Fill the template, some slots with other words, and return where each of them stands."""
        text, spans = "", {}
        for literal, slot, *_ in Formatter().parse(self.template):
            text += literal
            if slot is not None:
                word = changed.get(slot, self.words[slot])
                spans[slot] = (len(text), len(text) + len(word))
                text += word
        return text, spans

    def prompt(
        self, name: str, answer: str, distractor: str, changes: Sequence[tuple[str, Words, str]], like: Sequence[str]
    ) -> Prompt:
        text, spans = self.written({})
        edits = tuple(self._edit(*change) for change in changes)
        candidates = dict.fromkeys((answer, distractor, *(edit.answer for edit in edits), *like))
        return Prompt(
            text, name, None, name.partition(":")[0], (spans[self.decisive],), answer, distractor,
            (spans[self.rival],), (spans["asks"],) if "asks" in spans else (), tuple(candidates), edits,
            self.template.partition("{")[0],
        )  # fmt: skip

    def _edit(self, role: str, changed: Words, told: str) -> Edit:
        text, spans = self.written(changed)
        return Edit(role, text, told, spans["asks"][0] if "asks" in spans else 0)


def _noun(word: str, many: int) -> str:
    return PLURALS.get(word, f"{word}s") if many else word


def _one(noise: np.random.Generator, of: Sequence[T]) -> T:
    return of[int(noise.integers(len(of)))]


def _some(noise: np.random.Generator, of: Sequence[T], count: int) -> list[T]:
    return [of[int(i)] for i in noise.permutation(len(of))[:count]]
