"""Which characters of a text belong together: words, sentences, clauses, and spans that somebody names.

A span is ``(start, end)``, the end not included. A group is a name with the spans that belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from xai_utils import check

Span = tuple[int, int]
Groups = str | Sequence[Span] | Mapping[str, Sequence[Span]]  #: a name in :data:`PARTS`, spans, or spans by their name

#: every mark of punctuation is a part of its own, blanks belong to none
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
#: a full stop ends a sentence only before a blank, so that 3.5 stays whole
_SENTENCE = re.compile(r"\S(?:[^.!?\n]|[.!?](?!\s|$))*[.!?]*")
_CLAUSE = re.compile(r"[^\s.,;:!?](?:[^.,;:!?\n]|[.,;:!?](?!\s|$))*[.,;:!?]*")
PARTS = {"words": _WORD, "sentences": _SENTENCE, "clauses": _CLAUSE}  #: what a text can be divided into


def parts(text: str, into: str = "sentences") -> tuple[Span, ...]:
    """Divide a text.

    Args:
        text: what is divided.
        into: ``"words"`` (marks of punctuation are words of their own), ``"sentences"`` (a line break ends one too), or
            ``"clauses"`` (commas, colons and semicolons end one too).

    Returns:
        Spans in order; blanks between them belong to none.

    Raises:
        ValueError: another name, or a text with nothing but blanks.
    """
    check.one_of("parts of a text", into, tuple(PARTS))
    found = tuple(one.span() for one in PARTS[into].finditer(text))
    if not found:
        raise ValueError(f"the text {text!r} has no {into}.")
    return found


def named(text: str, groups: Groups) -> dict[str, list[Span]]:
    """Return groups of a text by their names.

    Args:
        text: what they lie in.
        groups: a name in :data:`PARTS`; or spans, each a group of its own; or spans by their name. A group without a
            name is called by its text; where two read alike the later ones are numbered.

    Raises:
        ValueError: a span that is empty or lies outside the text, or two that overlap.
    """
    if isinstance(groups, Mapping):
        found = {name: list(spans) for name, spans in groups.items()}
    else:
        spans = parts(text, groups) if isinstance(groups, str) else groups
        found = {}
        for span in spans:
            found[_unused(" ".join(text[slice(*span)].split()), found)] = [span]
    _check(text, sorted(span for spans in found.values() for span in spans))
    return found


def _unused(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _check(text: str, ordered: Sequence[Span]) -> None:
    for start, end in ordered:
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the span {(start, end)} is empty or outside a text of {len(text)} characters.")
    for one, other in pairwise(ordered):
        if other[0] < one[1]:
            raise ValueError(f"the spans {one} and {other} overlap; expected each character in one group at most.")


def owners(text: str, tokens: Sequence[Span], groups: Sequence[Sequence[Span]]) -> list[int]:
    """Return which group each token belongs to, -1 for none: the one that its last character that is no blank lies in.

    Args:
        text: what all lie in.
        tokens: character span of each, such as from :func:`encoding.encode`; (0, 0) for specials.
        groups: spans of each group.
    """
    found = []
    for start, end in tokens:
        last = start + max(len(text[start:end].rstrip()), 1) - 1 if start < end else -1
        found.append(next((i for i, spans in enumerate(groups) if any(s <= last < e for s, e in spans)), -1))
    return found
