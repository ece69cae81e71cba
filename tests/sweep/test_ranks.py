"""Ranks of methods on matched samples, and corrections for many tests."""

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from xai_utils import stats


def scores(shift, samples=40, seed=0):
    noise = np.random.default_rng(seed)
    return {f"m{i}": noise.normal(i * shift, 1, samples) for i in range(5)}


def test_the_best_method_comes_first_in_either_direction():
    found = stats.ranking(scores(2.0), higher_is_better=True)
    assert list(found.ranks) == ["m4", "m3", "m2", "m1", "m0"] and found.p < 1e-6 and found.samples == 40
    assert list(stats.ranking(scores(2.0), higher_is_better=False).ranks) == ["m0", "m1", "m2", "m3", "m4"]
    assert sum(found.ranks.values()) == pytest.approx(15)


def test_the_critical_difference_is_demsars():
    assert stats.ranking(scores(1.0, 10), True).critical == pytest.approx(2.728 * np.sqrt(5 * 6 / 60), abs=2e-3)
    four = {name: values for name, values in scores(1.0, 14).items() if name != "m0"}
    assert stats.ranking(four, True, level=0.1).critical == pytest.approx(2.291 * np.sqrt(4 * 5 / 84), abs=2e-3)


def test_the_test_is_friedmans_and_methods_that_are_all_equal_rank_alike():
    drawn = scores(0.3)
    assert stats.ranking(drawn, True).p == pytest.approx(friedmanchisquare(*drawn.values()).pvalue)
    flat = stats.ranking({name: np.ones(6) for name in "abc"}, True)
    assert flat.p == 1 and set(flat.ranks.values()) == {2.0} and flat.groups() == [("a", "b", "c")]


def test_groups_are_the_runs_within_the_critical_difference():
    found = stats.Ranking({"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0}, 0.8, 0.0, 10, 0.05)
    assert found.groups() == [("a", "b"), ("b", "c")] and found.tied_with_best() == ("a", "b")


def test_the_win_rate_counts_samples_and_ties_as_half():
    found = stats.win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 1.0, 1.0], True, 0)
    assert found.mean == pytest.approx(2.5 / 4) and found.n == 4
    assert stats.win_rate([0.0, 0.0], [1.0, 1.0], False, 0).mean == 1


def test_random_maps_do_not_win():
    noise = np.random.default_rng(1)
    found = stats.win_rate(noise.random(400), noise.random(400), True, 0)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: stats.ranking({"a": [1, 2], "b": [2, 3]}, True), "at least 3"),
        (lambda: stats.ranking({"a": [1, 2], "b": [2], "c": [1, 2]}, True), "same samples"),
        (lambda: stats.ranking({"a": [1, np.nan], "b": [2, 2], "c": [1, 2]}, True), "finite"),
        (lambda: stats.ranking(scores(1), True, level=0), "level"),
        (lambda: stats.win_rate([1.0], [1.0, 2.0], True, 0), "same samples"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
