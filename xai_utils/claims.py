"""Claims a notebook ends in: a line that names the claim, not the digits, so it reads the same on every machine.

``near``, ``equal``, ``at_least`` and ``at_most`` raise when they fail: something we rely on is broken.
``finding`` reports either way: a published or plausible statement that may well be false for some model.
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
        above: the value that the statement says is exceeded.

    Prints ``holds`` when ``low > above``, ``does not hold`` when ``high < above`` and ``does not hold … (undecided)``
    when the interval contains it, its ends included.
    """
    if math.isnan(low) or math.isnan(high) or low > high:
        raise ValueError(f"[{low}, {high}] is no interval; claim: {what}.")
    if low > above:
        print(f"holds  {what}")
    else:
        print(f"does not hold  {what}" + (" (undecided)" if high >= above else ""))


def _require(claim: str, holds: bool, value: object) -> None:
    if not holds:
        raise AssertionError(f"claim does not hold: {claim}; measured {value!r}")
    print(f"holds  {claim}")
