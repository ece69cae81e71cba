"""Correlations of metrics with the truth, clashes of ways to remove, and orders on other networks: known answers."""

import numpy as np
import pandas as pd
import pytest

from tests.sweep.trial import made_up
from xai_utils.sweep import agreement, standings

QUALITY = np.linspace(0, 1, 9)


def table(model="m", turn=1.0, samples=40, seed=0, noise=0.05, ways=("mask", "delete")):
    """Nine methods and the random map, whose truth is their quality; removal says ``turn`` times the same."""
    draw = np.random.default_rng(seed)
    rows = []
    for method, quality in [("random", -1.0), *((f"m{i}", one) for i, one in enumerate(QUALITY))]:
        for metric, operator, mean in [
            ("average_precision", "", quality),
            *(("delta_af", way, turn * quality) for way in ways),
        ]:
            values = mean + draw.normal(0, noise, samples)
            rows += [
                {
                    "model": model,
                    "method": method,
                    "sample": f"s{i:02}",
                    "metric": metric,
                    "operator": operator,
                    "value": one,
                }
                for i, one in enumerate(values)
            ]
    return pd.DataFrame(rows).assign(seconds=0.01, error="")


def test_a_metric_that_ranks_as_the_truth_does_and_one_that_ranks_the_other_way():
    for turn in (1, -1):
        both = pd.concat([table("m", turn), table("n", turn, seed=1)])
        whole, each = agreement.with_truth(both, ["m", "n"], 0, ["delta_af"])
        (row,) = whole.itertuples()
        assert row.rho * turn > 0.95 and row.p < 0.001 and row.models == 2
        assert row.low <= row.rho <= row.high and each.rho.mul(turn).min() > 0.95


def test_a_metric_that_knows_nothing_is_not_found_to_agree():
    made = [table(f"m{n}", 0.0, seed=n) for n in range(3)]
    whole, _ = agreement.with_truth(pd.concat(made), ["m0", "m1", "m2"], 0, ["delta_af"])
    assert whole.p.item() > 0.05 and whole.low.item() < 0 < whole.high.item()


def test_permutations_of_few_methods_are_not_significant():
    """Five methods in one order have a chance of one in 60 (two-sided); the interval alone would not say so."""
    few = table()
    few = few[few.method.isin(["random", "m0", "m2", "m4", "m6", "m8"])]
    whole, _ = agreement.with_truth(few, ["m"], 0, ["delta_af"])
    assert whole.rho.item() == pytest.approx(1) and whole.p.item() == pytest.approx(2 / 120, abs=0.01)


def test_a_model_is_left_out_for_a_reason_only():
    small = table("small", seed=2)
    small = small[small.method.isin(["random", "m1", "m2", "m3"])]
    other = table("other", seed=1, ways=("blank",))
    whole, each = agreement.with_truth(pd.concat([table(), other, small]), ["m", "other", "small"], 0, ["delta_af"])
    told = each.set_index("model")
    assert told.reason.to_dict() == {"m": "", "other": "", "small": "3 methods, fewer than 5"}
    assert np.isnan(told.at["small", "rho"]) and told.at["other", "rho"] > 0.95 and whole.models.item() == 2
    with pytest.raises(ValueError, match="none of small has 5 methods"):
        agreement.with_truth(small, ["small"], 0, ["delta_af"])


def test_nulls_do_not_win_agreement():
    names = agreement.verdicts(table(), "m", ["delta_af"]).methods
    assert "random" not in names and len(names) == len(QUALITY)


# Ways to remove


def test_flips_are_counted_and_those_within_the_noise_are_told_apart():
    steady, turning = (agreement.turned(made_up(flip=flip), ["m"], 0) for flip in (False, True))
    assert agreement.counted(steady).loc["m"].tolist() == [6, 0, 6, 0]
    assert agreement.counted(turning).loc["m"].tolist() == [6, 6, 6, 6]
    noise = table(turn=0.0, noise=1.0, samples=30)
    count = agreement.counted(agreement.turned(noise, ["m"], 0)).loc["m"]
    assert count.flips > 10 and count.clash <= 1, "equal methods change places without a clash"


def test_the_share_of_clashes_has_an_interval_over_models():
    tables = [made_up().assign(model=f"m{i}") for i in range(3)] + [made_up(flip=True).assign(model="odd")]
    pairs = agreement.turned(pd.concat(tables), ["m0", "m1", "m2", "odd"], 0)
    found = agreement.clashes(pairs, 0)
    assert found.mean == pytest.approx(0.25) and found.low == 0 and found.high >= 0.5


def test_a_difference_is_decided_by_clusters():
    draw = np.random.default_rng(0)
    one = pd.DataFrame({"a": draw.normal(0.25, 1, 44), "b": np.zeros(44)})
    one.index = [f"ground:{i}:1" for i in range(44)]
    many = pd.concat([one.set_index([[f"ground:{i + 44 * copy}:1" for i in range(44)]]) for copy in range(30)])
    assert np.array_equal(agreement._decided(one, 0), agreement._decided(many, 0))
    apart = many.set_index([[f"s{i}" for i in range(len(many))]])
    assert agreement._decided(apart, 0)[0, 1] != 0


# Other networks


def test_the_order_on_networks_that_agree_and_on_those_that_do_not():
    same = pd.concat([table(f"n{i}", seed=i) for i in range(3)])
    turned = table("n0").assign(value=lambda one: -one.value)
    found = agreement.between({"same": same, "turned": pd.concat([turned, table("n1", seed=1)])}, 0).set_index("recipe")
    assert found.at["same", "rho"] > 0.95 and found.at["same", "low"] > 0.7 and found.at["same", "networks"] == 3
    assert found.at["same", "best"] == "m8" and found.at["same", "methods"] == len(QUALITY)
    assert found.at["turned", "rho"] < -0.95 and found.at["turned", "best"] == "m0, m8"


def test_places_on_every_network_are_called_after_their_seeds():
    turned = table("trained:runs/net-3").assign(value=lambda one: -one.value)
    found = agreement.orders(pd.concat([turned, table("net")]))  # in either order
    assert list(found) == ["bundled", "seed 3"] and "random" not in found.index
    assert found.loc["m8"].tolist() == [1, 9] and found.loc["m0"].tolist() == [9, 1]


def test_equal_networks_of_noise_have_a_wide_interval():
    noise = pd.concat([table(f"n{i}", seed=i, noise=20.0, samples=10) for i in range(3)])
    found = agreement.between({"noise": noise}, 0).iloc[0]
    assert found.low < 0 < found.high


def test_the_truth_has_the_name_of_the_standings():
    assert agreement.TRUTH == standings.TRUTH and set(agreement.WANTED) > {"delta_af", "sufficiency"}
