"""What was measured for a claim: the row of its notebook's tables of tests that says it.

A notebook saves its tests as ``figures/NN_tests.csv``, or under the other endings of :data:`SAVED`, and prints a claim
for each. A row belongs to the claim that says the row's texts: the whole statement where the row has one text, else
each of them as whole words, none twice; of several such rows the one with the longest texts. A claim and a row that
contradict each other were not made by one execution, and stop the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from xai_utils.workbook.report.sources import FAILS, HOLDS, UNDECIDED, Claim, Measured
from xai_utils.workbook.report.tables import number, read_table

EFFECTS = ("mean", "effect", "difference", "gain", "gap", "rho", "left")
PS = ("p", "p (Holm)")
LEVEL = 0.05  # of claims.tested
HALF = ("left", 0.5)  #: the one effect whose claim is that it is below a number, and the number
NONE = re.compile(r"\bwithin [\d.]+ of\b")  #: says that there is no difference, which no row of a test of one does
SAVED = re.compile(r"\d\d_(.+_)?(tests|findings|rule|nulls|agree|changes)")


@dataclass(frozen=True)
class Test:
    """One row of a table of tests; ``above`` is the value that it was tested against, or ``below`` it."""

    texts: tuple[str, ...]
    measured: Measured
    above: float
    below: bool = False

    @property
    def verdict(self) -> str:
        """Return what :func:`xai_utils.claims.tested` says of the row."""
        if self.measured.p >= LEVEL or self.measured.effect == self.above:
            return UNDECIDED
        return HOLDS if (self.measured.effect > self.above) != self.below else FAILS

    def says(self, statement: str) -> bool:
        """Return whether a statement holds every text of the row."""
        if len(self.texts) == 1:
            return self.texts[0] == statement
        for text in sorted(self.texts, key=len, reverse=True):
            statement, found = re.subn(rf"(?<!\w){re.escape(text)}(?!\w)", "\0", statement, count=1)
            if not found:
                return False
        return True


def read_tests(folder: Path, number: str) -> list[Test]:
    """Return the rows of every table of tests of a notebook's own run.

    Args:
        folder: of the figures.
        number: two digits, of the notebook.

    Raises:
        ValueError: a file that is no table.
    """
    found = (path for path in sorted(folder.glob(f"{number}_*.csv")) if SAVED.fullmatch(path.stem))
    return [test for path in found for test in _rows(path)]


def _rows(path: Path) -> Iterable[Test]:
    table = read_table(path)
    effect, p = (next((one for one in names if one in table), None) for names in (EFFECTS, PS))
    if effect is None or p is None:
        return []
    texts = _telling([name for name in table if any(map(_words, table[name]))], table)
    return [_test(row, texts, effect, p, path.stem) for row in table.to_dict("records")]


def _words(value: object) -> bool:
    return isinstance(value, str) and bool(re.search(r"\w", value))


def _telling(texts: list[str], table: pd.DataFrame) -> list[str]:
    """Leave out columns that another one determines, such as the measure of a task, the last first; two stay."""
    for name in reversed(texts):
        others = [one for one in texts if one != name]
        if len(others) > 1 and any(table.groupby(one)[name].nunique().max() == 1 for one in others):
            texts = others
    return texts


def _test(row: dict[Any, Any], texts: Sequence[str], effect: str, p: str, table: str) -> Test:
    ends = [None if pd.isna(row.get(name)) else float(row[name]) for name in ("low", "high")]
    measured = Measured(float(row[effect]), ends[0], ends[1], float(row[p]), table)
    below = effect == HALF[0]
    return Test(
        tuple(str(row[name]) for name in texts), measured, float(row.get("above", HALF[1] if below else 0.0)), below
    )


def measured(claims: Iterable[Claim], tests: Sequence[Test]) -> tuple[Claim, ...]:
    """Return the claims with what was measured for them, where a table holds it.

    Raises:
        ValueError: a row says another verdict than the notebook printed.
    """
    return tuple(claim if claim.required else _with_row(claim, tests) for claim in claims)


def _with_row(claim: Claim, tests: Sequence[Test]) -> Claim:
    found = [test for test in tests if test.says(claim.statement) and not NONE.search(claim.statement)]
    most = max((sum(map(len, test.texts)) for test in found), default=0)
    found = [test for test in found if sum(map(len, test.texts)) == most]
    if len(found) != 1:
        return claim
    if found[0].verdict != claim.verdict:
        one = found[0].measured
        raise ValueError(
            f"{claim.notebook} printed {claim.verdict!r} of {claim.statement!r}, and figures/{one.table}.csv has "
            f"{one.effect:g} with p = {one.p:g}; run make golden ONLY={claim.notebook[:2]}."
        )
    return replace(claim, measured=found[0].measured)


def told(one: Measured) -> str:
    """Write what was measured as one line: the effect, its interval, the corrected p."""
    interval = "" if one.low is None else f" [{number(one.low)}, {number(one.high)}]"
    return f"{number(one.effect)}{interval}, p = {number(one.p)}"
