"""The table of times: every part can be measured as it stands, rows are written as they come, what fails is a row."""

import mmap
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from tests.bench import measure
from tests.bench.__main__ import COLUMNS, PARTS, lines, measured
from tests.bench.measure import Against, Row


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_there(part):
    assert callable(import_module(f"tests.bench.bench_{part}").rows)


def test_rows_are_written_as_they_come():
    def rows():
        plain = Against("a pass", 0.061725, 1.5, "it is slow")
        yield Row("first", 0.12345, plain, Against("other 1.0", 0.24690, 1.0, "unused"), 12.0, 11.0)
        raise RuntimeError("the second one fails")

    written = lines(rows())
    assert next(written) == f"| {' | '.join(COLUMNS)} |" and set(next(written)) == set("| -")
    line = "| first | 0.123 | a pass | 0.0617 | 2 (≤ 1.5, missed: it is slow) | other 1.0 | 0.247 | 0.5 (≤ 1) |"
    assert next(written) == f"{line} 12 (≤ 11, missed) |"
    with pytest.raises(RuntimeError, match="second"):
        next(written)


def test_nothing_is_made_up_where_nothing_was_measured():
    rows = [Row("a", 1.0, None, Against("lxt: not installed, skipped")), Row("b", 1.0, Against("c", 0.0))]
    *_, skipped, free = lines(rows)
    assert skipped == "| a | 1 |  |  |  | lxt: not installed, skipped |  |  |  |"
    assert free == "| b | 1 | c |  |  |  |  |  |  |"


def test_a_part_that_fails_is_a_row_and_the_others_go_on(monkeypatch):
    def broken(_quick):
        yield Row("begun", 1.0)
        raise ZeroDivisionError("division\nby | zero")

    monkeypatch.setitem(sys.modules, "tests.bench.bench_one", SimpleNamespace(rows=broken))
    monkeypatch.setitem(sys.modules, "tests.bench.bench_two", SimpleNamespace(rows=lambda _quick: [Row("whole", 1.0)]))
    begun, failed, whole = measured(["one", "two"], True)
    assert (begun.path, whole.path) == ("begun", "whole")
    assert failed == Row("one: failed, ZeroDivisionError: division by / zero")


def mapped(count: int = 60_000_000) -> mmap.mmap:
    """Take memory from the system and touch it: what the process has freed before cannot stand in for it."""
    taken = mmap.mmap(-1, count)
    for page in range(0, count, mmap.PAGESIZE):
        taken[page] = 1
    return taken


def test_the_peak_is_of_what_was_done():
    found = measure.peak(mapped)
    assert found is None or 40 < found < 120


def test_what_is_left_behind_is_seen():
    kept = []
    found = measure.left(lambda: kept.append(mapped()))
    assert found is None or 40 < found < 120


def test_a_program_that_is_missing_is_named_and_not_timed():
    works: measure.Works = {}
    assert measure.program("no-such-thing", works, lambda: pytest.fail) == "no-such-thing: not installed, skipped"
    assert measure.program("captum", works, lambda: list).startswith("captum 0") and len(works) == 1
