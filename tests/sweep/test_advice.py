"""Advice from a leaderboard made up here, whose right answer is known."""

import numpy as np
import pytest

from tests.sweep.test_leaderboard import made_up
from xai_utils.sweep import leaderboard


def test_the_best_is_named_with_how_sure_that_is():
    found = leaderboard.advice(made_up(), "m", 0)
    assert found["best"] == "good" and found["choice"] == "good" and found["tied"] == ("good",) and found["n"] == 60
    assert found["stays"] == 1.0 and found["wins"] > 0.8 and (found["removal"], found["ways"]) == (2, 2)
    assert found["low"] < found["mean"] < found["high"] and found["seconds"] == pytest.approx(0.01)


def test_among_equals_the_cheapest_is_taken():
    table = made_up()
    twin = table[table.method == "good"].assign(method="twin", seconds=0.001)
    noise = np.random.default_rng(1).normal(0, 0.01, len(twin))
    twin["value"] = twin.value.where(twin.metric == "fails", twin.value + noise)
    found = leaderboard.advice(leaderboard.pd.concat([table, twin]), "m", 0)
    assert found["choice"] == "twin" and set(found["tied"]) == {"good", "twin"} and 0 <= found["lost"] < 0.01


def test_a_choice_that_removal_speaks_against_shows():
    found = leaderboard.advice(made_up(flip=True), "m", 0)
    assert found["best"] == "good" and (found["removal"], found["ways"]) == (1, 2)


def test_a_table_without_methods_is_refused():
    table = made_up()
    table["method"] = table.method.replace({"good": "uniform", "fair": "centre", "poor": "length"})
    with pytest.raises(ValueError, match="only null maps"):
        leaderboard.advice(table, "m", 0)


def test_lines_hold_every_model():
    rows = [leaderboard.advice(made_up(), "m", 0)] * 2
    told = leaderboard.lines(rows).splitlines()
    assert len(told) == 3 and "good" in told[1] and "100%" in told[1] and max(map(len, told)) <= 135
