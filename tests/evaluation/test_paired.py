"""Paired differences of maps: signs, missing samples, families of tests, refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from xai_utils import stats
from xai_utils.evaluation import paired

NOISE = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {("good", "mass"): NOISE.random(30) + 0.5, ("good", "deletion"): NOISE.random(30) - 0.5,
     ("bad", "mass"): NOISE.random(30), ("bad", "deletion"): NOISE.random(30)}
)  # fmt: skip
SIGNS = {"mass": 1, "deletion": -1}


def test_differences_are_turned_so_that_more_is_better():
    found = paired.differences(TABLE, [("good", "bad"), ("bad", "good")], SIGNS)
    assert list(found) == [(*pair, one) for pair in (("good", "bad"), ("bad", "good")) for one in SIGNS]
    np.testing.assert_array_equal(
        found["good", "bad", "deletion"], TABLE["bad", "deletion"] - TABLE["good", "deletion"]
    )
    np.testing.assert_array_equal(found["good", "bad", "mass"], -found["bad", "good", "mass"])
    assert paired.differences(TABLE[:0], [("good", "bad")], SIGNS) == {}
    with pytest.raises(ValueError, match="holds no mass of ugly"):
        paired.differences(TABLE, [("good", "ugly")], SIGNS)


def test_intervals_leave_out_samples_that_are_missing():
    values = np.where(np.arange(30) < 12, TABLE["good", "mass"], np.nan)
    found = paired.intervals({"whole": TABLE["good", "mass"], "part": values, "none": [np.nan]}, 3, level=0.9)
    assert list(found) == ["whole", "part"]
    assert found["part"] == stats.mean_interval(values[:12], 3, 0.9) and found["part"].n == 12
    assert found["whole"].n == 30 and paired.intervals(TABLE, 3)["good", "mass"].mean == found["whole"].mean


def test_a_family_of_tests_is_that_of_the_statistics_whatever_its_lengths():
    gaps = paired.differences(TABLE, [("good", "bad")], SIGNS)
    family = {**gaps, "few": gaps["good", "bad", "mass"][:7], "noise": NOISE.normal(size=30), "zero": np.zeros(30)}
    found = paired.p_values(family, 5, 999)
    alone = {str(key): stats.permutation_p(values, 5, 999) for key, values in family.items() if key != "zero"}
    expected = stats.holm(alone)
    assert found.pop("zero") == 1.0 and list(found) == [key for key in family if key != "zero"]
    assert {str(key): p for key, p in found.items()} == pytest.approx(expected)
    assert found["good", "bad", "mass"] < 0.05 < found["noise"] and paired.p_values({}, 0) == {}


def test_signs_say_better_worse_or_undecided():
    means = {name: stats.Interval(mean, mean - 1, mean + 1, 9) for name, mean in (("a", 0.5), ("b", -0.5), ("c", 0.5))}
    assert paired.signs(means, {"a": 0.01, "b": 0.049, "c": 0.05}) == {"a": "+", "b": "-", "c": "."}


def test_clusters_stay_with_their_samples_where_some_are_missing():
    values = {"one": [0.0, 0.0, np.nan, 1.0, 1.0, 1.0], "none": [np.nan] * 6}
    loose, whole = (paired.intervals(values, 0, clusters=by) for by in (None, list("aaabbb")))
    assert list(whole) == ["one"] and whole["one"].n == 5 and whole["one"].mean == loose["one"].mean
    assert whole["one"].bounds == (0.0, 1.0) and loose["one"].high - loose["one"].low < 1


def test_one_family_over_several_sets_is_corrected_once():
    noise = np.random.default_rng(0)
    first = {"a": noise.normal(0.4, 1, 60), "b": noise.normal(0, 1, 60), "nothing": np.zeros(60)}
    second, clusters = {("c", 1): noise.normal(1, 1, 24)}, [n // 4 for n in range(24)]
    found = paired.family((first, None), (second, clusters), seed=3)
    raw = stats.permutation_ps({"a": first["a"].tolist(), "b": first["b"].tolist()}, 3)
    raw["c"] = stats.permutation_p(second["c", 1].tolist(), 3, clusters=clusters)
    wanted = stats.holm(raw)
    assert list(found) == ["a", "b", "nothing", ("c", 1)] and found["nothing"].p == 1
    assert [found[key].p for key in ("a", "b", ("c", 1))] == pytest.approx([wanted[key] for key in "abc"])
    assert found["c", 1].interval == stats.mean_interval(second["c", 1].tolist(), 3, clusters=clusters)
    with pytest.raises(ValueError, match="two sets have tests of the same name"):
        paired.family((first, None), (first, None), seed=3)


def truth_and_measures(noise, samples=60):
    """Six maps of rising truth; a measure that follows it, one that goes against it, and one that knows nothing."""
    truth = np.linspace(0.2, 0.8, 6)
    columns = {}
    for i, level in enumerate(truth):
        right = level + 0.2 * noise.normal(size=samples)
        columns[f"map {i}", "truth"] = right
        columns[f"map {i}", "follows"] = right + 0.05 * noise.normal(size=samples)
        columns[f"map {i}", "falls"] = -right + 0.05 * noise.normal(size=samples)
        columns[f"map {i}", "blind"] = noise.normal(size=samples)
    return pd.DataFrame(columns)


def test_a_measure_agrees_with_the_truth_if_it_ranks_the_maps_alike():
    table = truth_and_measures(np.random.default_rng(0))
    signs = {"follows": 1, "falls": -1, "blind": 1}
    found = paired.agreement(table, "truth", signs, 0)
    means = table.mean()
    for measure, sign in signs.items():
        pair = [[means[f"map {i}", name] for i in range(6)] for name in ("truth", measure)]
        assert found.loc[measure, "rho"] == pytest.approx(spearmanr(pair[0], np.multiply(sign, pair[1])).statistic)
    assert (found.loc[["follows", "falls"], "low"] > 0.8).all() and found.loc["blind", "low, maps too"] < 0
    inside = found["low, maps too"] <= found["rho"]
    assert inside.all() and (found["rho"] <= found["high, maps too"] + 1e-12).all()
    wrong = paired.agreement(table, "truth", {"falls": 1}, 0)
    assert wrong.loc["falls", "rho"] == pytest.approx(-1)
    pd.testing.assert_frame_equal(found, paired.agreement(table, "truth", signs, 0))


def test_noise_agrees_with_the_truth_as_often_as_it_should():
    """Of measures that know nothing, the interval over samples and maps leaves 0 out in about one of twenty."""
    noise, left_out = np.random.default_rng(1), 0
    for _ in range(40):
        found = paired.agreement(truth_and_measures(noise, 30), "truth", {"blind": 1}, 0, draws=200)
        left_out += not found.loc["blind", "low, maps too"] <= 0 <= found.loc["blind", "high, maps too"]
    assert left_out <= 8


def test_a_measure_that_is_not_there_and_too_few_maps_are_refused():
    table = truth_and_measures(np.random.default_rng(0))
    with pytest.raises(ValueError, match="the measure 'lift' of 'map 0' is not there for every sample"):
        paired.agreement(table, "truth", {"lift": 1}, 0)
    with pytest.raises(ValueError, match="3 maps are given; expected 4 at least"):
        paired.agreement(table[["map 0", "map 1", "map 2"]], "truth", {"follows": 1}, 0)
