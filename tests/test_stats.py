"""Intervals and tests: properties, a case worked out by hand, coverage of the true mean, refusals."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare
from statsmodels.stats.multitest import multipletests
from strategies import steady

from xai_utils.stats import (
    AgainstChance,
    Gain,
    Interval,
    Ranking,
    benjamini_hochberg,
    gains,
    holm,
    mean_interval,
    permutation_p,
    permutation_ps,
    ranking,
    rate_interval,
)


def sample(seed, count=40):
    return np.random.default_rng(seed).normal(2.0, 1.0, count)


def test_the_same_seed_gives_the_same_interval():
    assert mean_interval(sample(0), seed=1) == mean_interval(list(sample(0)), seed=1)
    assert mean_interval(sample(0), seed=1) != mean_interval(sample(0), seed=2)


@steady
@given(seed=st.integers(0, 999), count=st.integers(2, 30))
def test_the_mean_lies_in_its_interval_and_the_count_is_reported(seed, count):
    found = mean_interval(sample(seed, count), seed, resamples=200)
    assert found.n == count and found.mean == pytest.approx(sample(seed, count).mean())
    least, most = sample(seed, count).min() - 1e-12, sample(seed, count).max() + 1e-12  # means are rounded
    assert least <= found.low <= found.mean <= found.high <= most


def test_intervals_move_and_stretch_with_the_data():
    found, moved = mean_interval(sample(0), seed=3), mean_interval(10 - 2 * sample(0), seed=3)
    assert (moved.low, moved.high) == pytest.approx((10 - 2 * found.high, 10 - 2 * found.low))


def test_more_confidence_or_fewer_samples_make_it_wider():
    def width(found):
        return found.high - found.low

    assert width(mean_interval(sample(0), 1, level=0.99)) > 1.2 * width(mean_interval(sample(0), 1, level=0.9))
    assert width(mean_interval(sample(0, 25), 1)) > 1.5 * width(mean_interval(sample(0, 225), 1))


def test_two_values_by_hand():  # the mean of two draws from {0, 1} is 0, 1/2, 1 with odds 1 : 2 : 1
    assert mean_interval([0.0, 1.0], seed=0, level=0.9) == Interval(0.5, 0.0, 1.0, 2)
    assert mean_interval([0.0, 1.0], seed=0, level=0.4) == Interval(0.5, 0.5, 0.5, 2)


def test_equal_values_leave_no_doubt():
    assert mean_interval([3.0] * 5, seed=0) == Interval(3.0, 3.0, 3.0, 5)


def test_the_width_is_that_of_a_normal_mean():
    found, data = mean_interval(sample(5, 400), seed=0), sample(5, 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * data.std() / 20, rel=0.1)


@pytest.mark.parametrize(("level", "least", "most"), [(0.95, 0.89, 0.98), (0.5, 0.4, 0.59)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(level, least, most):
    found = [mean_interval(sample(seed), seed, level, resamples=300) for seed in range(300)]
    assert least < np.mean([interval.low <= 2.0 <= interval.high for interval in found]) < most


def test_it_reads_as_a_line():
    assert str(Interval(0.12345, -0.1, 0.3, 20)) == "0.123 [-0.100, 0.300] (n = 20)"


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0], [3.0, 4.0]], 3.0])
def test_fewer_than_two_numbers_are_refused(values):
    with pytest.raises(ValueError, match="expected at least two finite numbers, got shape"):
        mean_interval(values, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite numbers"):
        mean_interval([1.0, 2.0, value], seed=0)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(ValueError, match=f"level is {level}"):
        mean_interval([1.0, 2.0], seed=0, level=level)


# Permutation test and Holm's correction


def test_few_pairs_are_all_permuted():  # all six sign changes but (+++) and (---) have a smaller mean: 2 of 8
    assert permutation_p([1.0, 2.0, 3.0], seed=0) == 0.25
    assert permutation_p([1.0, -1.0], seed=0) == 1.0


def test_the_sign_of_the_differences_does_not_matter():
    assert permutation_p(sample(0, 9), seed=0) == permutation_p(-sample(0, 9), seed=1)


def test_a_clear_difference_is_found_and_noise_is_not_found_more_often_than_it_should():
    assert permutation_p(sample(0), seed=0, permutations=999) <= 0.002
    noise = [permutation_p(sample(seed, 20) - 2.0, seed, permutations=199) for seed in range(200)]
    assert 0.02 <= np.mean(np.array(noise) <= 0.05) <= 0.09


def test_many_permutation_tests_at_once_are_the_same_tests():
    families = {str(seed): sample(seed, 40) for seed in range(6)}
    once = {name: permutation_p(values, seed=3, permutations=499) for name, values in families.items()}
    assert permutation_ps(families, seed=3, permutations=499) == once
    assert permutation_ps({}, seed=3) == {}
    with pytest.raises(ValueError, match="as many numbers each, got"):
        permutation_ps({"long": sample(0, 9), "short": sample(0, 8)}, seed=0)


def test_pairs_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite numbers"):
        permutation_p([1.0, float("nan")], seed=0)


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert list(found) == ["a", "b", "c"]
    assert [found[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert holm({}) == {}


@patch("gc.collect", new=lambda: 0)  # which statsmodels does in every call, half a second where models are loaded
@steady
@given(values=st.lists(st.floats(0, 1), max_size=9))
def test_holm_is_that_of_statsmodels(values):
    found = holm({str(i): value for i, value in enumerate(values)})
    assert list(found.values()) == (values and pytest.approx(multipletests(values, method="holm")[1].tolist()))


def test_a_family_of_gains_is_each_interval_with_its_adjusted_p():
    family = {"clear": sample(0), "none": sample(1) - sample(2), "weak": sample(3) - 1.7}
    found, p = gains(family, 5, 999), holm(permutation_ps(family, 5, 999))
    assert {name: (one.interval, one.p) for name, one in found.items()} == {
        name: (mean_interval(values, 5), p[name]) for name, values in family.items()
    }
    assert found["clear"].bounds == found["clear"].interval.bounds and "p = 0.00" in str(found["clear"])
    assert gains({}, 0) == {}


@pytest.mark.parametrize(("p", "low", "expected"), [(0.04, 0.1, 0.1), (0.05, 0.1, 0.0), (0.9, -0.2, -0.2)])
def test_a_gain_that_its_test_does_not_see_is_not_above_zero(p, low, expected):
    assert Gain(Interval(0.3, low, 0.5, 9), p).bounds == (expected, 0.5)


def test_a_mean_stands_against_what_chance_gives():
    chance = np.linspace(-1, 1, 201)
    found = AgainstChance.of(Interval(0.5, 0.4, 0.6, 9), chance)
    assert (found.low, found.high) == pytest.approx((-0.95, 0.95)) and found.p == pytest.approx(103 / 202)
    assert str(found).endswith("by chance -0.95 to 0.95")
    far = AgainstChance.of(Interval(0.5, 0.4, 0.6, 9), chance, middle=-1.0)
    assert far.p < found.p, "far from the middle that chance has is rare"
    assert Gain(Interval(0.5, 0.4, 0.6, 9), 0.2).bounds == (0.0, 0.6)
    assert Gain(Interval(-0.5, -0.6, -0.4, 9), 0.2).bounds == (-0.6, 0.0)


# Ranks of methods


def scores(shift, samples=40, seed=0):
    noise = np.random.default_rng(seed)
    return {f"m{i}": noise.normal(i * shift, 1, samples) for i in range(5)}


def test_the_best_method_comes_first_in_either_direction():
    found = ranking(scores(2.0), higher_is_better=True)
    assert list(found.ranks) == ["m4", "m3", "m2", "m1", "m0"] and found.p < 1e-6 and found.samples == 40
    assert list(ranking(scores(2.0), higher_is_better=False).ranks) == ["m0", "m1", "m2", "m3", "m4"]
    assert sum(found.ranks.values()) == pytest.approx(15)


def test_the_critical_difference_is_demsars():
    assert ranking(scores(1.0, 10), True).critical == pytest.approx(2.728 * np.sqrt(5 * 6 / 60), abs=2e-3)
    four = {name: values for name, values in scores(1.0, 14).items() if name != "m0"}
    assert ranking(four, True, level=0.1).critical == pytest.approx(2.291 * np.sqrt(4 * 5 / 84), abs=2e-3)


def test_the_test_is_friedmans_and_methods_that_are_all_equal_rank_alike():
    drawn = scores(0.3)
    assert ranking(drawn, True).p == pytest.approx(friedmanchisquare(*drawn.values()).pvalue)
    flat = ranking({name: np.ones(6) for name in "abc"}, True)
    assert flat.p == 1 and set(flat.ranks.values()) == {2.0} and flat.groups() == [("a", "b", "c")]


def test_groups_are_the_runs_within_the_critical_difference():
    found = Ranking({"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0}, 0.8, 0.0, 10, 0.05)
    assert found.groups() == [("a", "b"), ("b", "c")] and found.tied_with_best() == ("a", "b")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ranking({"a": [1, 2], "b": [2, 3]}, True), "at least 3"),
        (lambda: ranking({"a": [1, 2], "b": [2], "c": [1, 2]}, True), "same samples"),
        (lambda: ranking({"a": [1, np.nan], "b": [2, 2], "c": [1, 2]}, True), "finite"),
        (lambda: ranking(scores(1), True, level=0), "level"),
    ],
)
def test_methods_that_cannot_be_ranked_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Rates


def test_rates_have_honest_intervals_at_the_ends():
    found = rate_interval([True] * 20)
    assert found.mean == 1 and found.high == 1 and 0.8 < found.low < 0.87 and found.n == 20
    assert rate_interval([True, False] * 50).low == pytest.approx(0.404, abs=1e-3)
    with pytest.raises(ValueError, match="at least one hit"):
        rate_interval([])


def test_benjamini_hochberg_is_between_nothing_and_holm():
    raw = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.9}
    found, strict = benjamini_hochberg(raw), holm(raw)
    assert found == pytest.approx({"a": 0.04, "b": 0.04, "c": 0.04, "d": 0.9})
    assert all(raw[name] <= found[name] <= strict[name] for name in raw) and benjamini_hochberg({}) == {}


def test_clusters_of_one_sample_each_change_nothing_but_the_draws():
    plain, own = (mean_interval(sample(0), 1, clusters=names) for names in (None, range(40)))
    assert own.n == 40 and own.mean == pytest.approx(plain.mean)
    assert own.bounds == pytest.approx(plain.bounds, abs=0.02)
    assert permutation_p(sample(0) - 1.9, 1, clusters=range(40)) == permutation_p(sample(0) - 1.9, 1)


def test_copies_of_a_sample_are_no_news_once_they_are_one_cluster():
    thrice, names = np.repeat(sample(0, 12), 3), np.repeat(np.arange(12), 3)
    alone = mean_interval(sample(0, 12), 1)
    assert mean_interval(thrice, 1, clusters=names.tolist()).bounds == pytest.approx(alone.bounds)
    assert mean_interval(thrice, 1).high - mean_interval(thrice, 1).low < 0.7 * (alone.high - alone.low)
    shifted = sample(0, 12) - 1.5
    assert permutation_p(np.repeat(shifted, 3), 1, clusters=names.tolist()) == permutation_p(shifted, 1)


def test_clusters_of_different_size_count_by_their_samples():
    found = mean_interval([0.0, 0.0, 0.0, 1.0], 0, clusters=["a", "a", "a", "b"])
    assert found.mean == 0.25 and found.bounds == (0.0, 1.0)


@pytest.mark.parametrize("clusters", [["a", "b"], ["a"] * 4])
def test_clusters_that_do_not_fit_are_refused(clusters):
    with pytest.raises(ValueError, match="the cluster of each sample"):
        mean_interval([1.0, 2.0, 3.0, 4.0], 0, clusters=clusters)
