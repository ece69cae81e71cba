"""A task whose true explanation is known: recall the one letter that came after the mark.

A sequence holds random letters and, at a place we choose, a mark ``*``. It ends in another mark, and the right class is
the letter that followed the first: ``F B * K A C *`` gives K. Every other letter is a distraction from the same
alphabet, so the class depends on one position and no other, which :func:`swapped` lets anyone check on a model.

Source: induction heads and selective copying, Gu & Dao (2023), arXiv:2312.00752, section 4.1; Olsson et al. (2022),
arXiv:2209.11895.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xai_utils import check
from xai_utils.samples.kinds import Text

LETTERS = tuple("ABCDEFGHIJKLMNOP")
MARK = "*"


@dataclass(frozen=True)
class Recall:
    """One sequence.

    Attributes:
        tokens: letters and two marks, the second at the end.
        place: position of the answer, just behind the first mark.
        label: index of the answer in :data:`LETTERS`.
    """

    tokens: tuple[str, ...]
    place: int
    label: int

    @property
    def distance(self) -> int:
        """Tokens from the answer to the end."""
        return len(self.tokens) - 1 - self.place


def draw(noise: np.random.Generator, length: int, distance: int | None = None) -> Recall:
    """Draw one sequence of ``length`` tokens, the answer ``distance`` tokens before its end (default: anywhere).

    Raises:
        ValueError: fewer than 3 tokens, or an answer that would lie outside.
    """
    if length < 3:
        raise ValueError(f"length is {length}; a mark, an answer and a mark need at least 3 tokens.")
    place = int(noise.integers(1, length - 1)) if distance is None else length - 1 - distance
    if not 1 <= place <= length - 2:
        raise ValueError(f"distance is {distance}, expected 1 to {length - 2} in a sequence of {length} tokens.")
    codes = noise.integers(0, len(LETTERS), length)
    tokens = [LETTERS[code] for code in codes]
    tokens[place - 1] = tokens[-1] = MARK
    return Recall(tuple(tokens), place, int(codes[place]))


def swapped(sequence: Recall, place: int, noise: np.random.Generator) -> Recall:
    """Replace one letter by another one; ``ValueError`` at a mark."""
    check.index("place", place, len(sequence.tokens))
    if sequence.tokens[place] == MARK:
        raise ValueError(f"token {place} is a mark; only letters can be swapped.")
    others = [code for code, letter in enumerate(LETTERS) if letter != sequence.tokens[place]]
    code = int(noise.choice(others))
    tokens = (*sequence.tokens[:place], LETTERS[code], *sequence.tokens[place + 1 :])
    return Recall(tokens, sequence.place, code if place == sequence.place else sequence.label)


def grid(distances: Sequence[int], each: int, length: int, seed: int) -> list[Recall]:
    """Draw ``each`` sequences for every distance, in order."""
    check.at_least_one("each", each)
    noise = np.random.default_rng(seed)
    return [draw(noise, length, distance) for distance in distances for _ in range(each)]


def text_of(sequence: Recall) -> Text:
    """Write a sequence as a text whose rationale is the answer; the tokenizer adds the mark at its end, which asks."""
    words = sequence.tokens[:-1]
    start = sum(len(word) + 1 for word in words[: sequence.place])
    name = f"answer {sequence.distance} tokens ago"
    return Text(" ".join(words), name, sequence.label, "", ((start, start + len(words[sequence.place])),))
