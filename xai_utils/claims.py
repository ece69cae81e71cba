"""Claims a notebook ends in: a line that names the claim, not the digits, so it reads the same on every machine.

``near``, ``equal``, ``at_least`` and ``at_most`` raise when they fail: something we rely on is broken.
``finding``, ``tested`` and ``equivalent`` report either way: a published or plausible statement that may well be
false for some model. They say ``holds``, ``does not hold`` where the opposite is shown, or ``undecided``.
"""

from __future__ import annotations

import math


def near(what: str, value: float, expected: float, tolerance: float) -> None:
    """Claim ``|value - expected| <= tolerance``; the tolerance is absolute, in the unit of ``value``."""
    _require(f"{what} = {expected:g} ± {tolerance:g}", abs(value - expected) <= tolerance, value)


def equal(what: str, value: object, expected: object) -> None:
    """Claim that two things are equal."""
    _require(f"{what} = {expected!r}", value == expected, value)


def at_least(what: str, value: float, bound: float) -> None:
    """Claim ``value >= bound``."""
    _require(f"{what} ≥ {bound:g}", value >= bound, value)


def at_most(what: str, value: float, bound: float) -> None:
    """Claim ``value <= bound``."""
    _require(f"{what} ≤ {bound:g}", value <= bound, value)


def finding(what: str, low: float, high: float, above: float = 0.0) -> None:
    """Report whether a whole confidence interval lies above a value, without raising.

    Args:
        what: the statement, in words.
        low: lower end of the interval.
        high: upper end of the interval.
        above: the value that the statement says is exceeded. It must be known: an end of another interval, or of what
            chance gives, counts noise twice; compare by :func:`tested` instead.

    Prints ``holds`` when ``low > above``, ``does not hold`` when ``high < above`` and ``undecided`` when the interval
    contains it, its ends included.
    """
    _interval(what, low, high)
    _report(what, low > above, high < above)


def tested(what: str, value: float, p: float, above: float = 0.0, level: float = 0.05) -> None:
    """Report whether a test finds a number to be above a value, without raising.

    Args:
        what: the statement, in words.
        value: what was measured.
        p: two-sided, of the test that it is ``above``; corrected where it is one of a family.
        above: the value that the statement says is exceeded.
        level: of the test.

    Prints ``undecided`` when ``p >= level``, else ``holds`` or ``does not hold`` by the side on which it lies.

    Raises:
        ValueError: a p-value outside [0, 1], or a value that is no number.
    """
    if not 0 <= p <= 1 or math.isnan(value):
        raise ValueError(f"p is {p} and the value {value}, expected a number in [0, 1] and a number; claim: {what}.")
    _report(what, p < level and value > above, p < level and value < above)


def equivalent(what: str, low: float, high: float, bound: float) -> None:
    """Report whether a difference is too small to matter, without raising.

    Args:
        what: the statement, in words.
        low: lower end of the interval of the difference; of level 0.9 for two one-sided tests at 5 %.
        high: upper end.
        bound: the smallest difference that would matter, set before looking; above 0.

    Prints ``holds`` when the whole interval lies within ``±bound``, ``does not hold`` when it lies wholly beyond one
    of the two, else ``undecided``. A difference whose interval merely contains 0 is not shown to be absent.

    Source: Schuirmann (1987), two one-sided tests.
    """
    if not bound > 0:
        raise ValueError(f"bound is {bound}, expected a difference above 0; claim: {what}.")
    _interval(what, low, high)
    _report(what, -bound < low and high < bound, low > bound or high < -bound)


def _interval(what: str, low: float, high: float) -> None:
    if math.isnan(low) or math.isnan(high) or low > high:
        raise ValueError(f"[{low}, {high}] is no interval; claim: {what}.")


def _report(what: str, holds: bool, fails: bool) -> None:
    print(("holds  " if holds else "does not hold  " if fails else "undecided  ") + what)


def _require(claim: str, holds: bool, value: object) -> None:
    if not holds:
        raise AssertionError(f"claim does not hold: {claim}; measured {value!r}")
    print(f"holds  {claim}")
