"""The table of times: every part can be measured as it stands, and rows are written as they come."""

from importlib import import_module

import pytest

from tests.bench.__main__ import COLUMNS, PARTS, lines


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_there(part):
    assert callable(import_module(f"tests.bench.bench_{part}").rows)


def test_rows_are_written_as_they_come():
    def rows():
        yield {"case": "first", "ours": "a", "seconds": 0.12345, "ratio": 2.0, "target": 1.5}
        raise RuntimeError("the second one fails")

    written = lines(rows())
    assert next(written) == f"| {' | '.join(COLUMNS)} |" and set(next(written)) == set("| -")
    assert next(written) == "| first | a |  | 0.123 |  | 2 | ≤ 1.5 (missed) |"
    with pytest.raises(RuntimeError, match="second"):
        next(written)


def test_a_target_that_is_met_is_not_marked_and_nothing_is_made_up():
    *_, met, bare = lines([{"ratio": 1.0, "target": 1.5}, {"case": "no ratio", "ratio": None}])
    assert met.endswith("| 1 | ≤ 1.5 |") and bare == "| no ratio |  |  |  |  |  |  |"
