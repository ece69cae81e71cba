"""The table of a sweep as a leaderboard, on a table made up here whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from xai_utils.sweep import leaderboard, parts

QUALITY = {"good": 1.0, "fair": 0.5, "random": 0.0, "poor": -0.6}
WAYS = ("mask", "delete")


def made_up(samples=60, seed=0, flip=False, missing=()):
    """Draw a table in which ``good`` is best everywhere; with ``flip``, worst when words are deleted."""
    noise = np.random.default_rng(seed)
    rows = []
    for method, quality in QUALITY.items():
        for i in range(samples):
            lacks = method in missing and i % 3 == 0
            row = {"model": "m", "method": method, "set": "s", "sample": f"s{i}", "seconds": 0.01, "error": ""}
            rows.append(row | {"metric": "fails", "operator": "", "value": float(lacks)})
            for metric, operator in (("average_precision", ""), *(("delta_af", way) for way in WAYS)):
                turned = -quality if flip and operator == "delete" else quality
                if not lacks:
                    value = turned + noise.normal(0, 0.5)
                    rows.append(row | {"metric": metric, "operator": operator, "value": value})
            if not lacks:
                rows.append(row | {"metric": "sufficiency", "operator": "mask", "value": -quality})
    return pd.DataFrame(rows)


def test_standings_find_the_order_the_gain_and_its_certainty():
    found = leaderboard.standings(made_up(), "m", "average_precision", "", 0).set_index("method")
    assert list(found.index) == ["good", "fair", "random", "poor"] and (found.n == 60).all()
    assert ((found.low < found["mean"]) & (found["mean"] < found.high)).all()
    assert found.at["good", "gain_low"] > 0.7 and found.at["poor", "gain_high"] < -0.3
    assert found.at["good", "wins"] > 0.8 and found.at["random", "gain"] == 0 and found.at["random", "p"] == 1
    assert found.at["good", "p"] < 1e-6


def test_a_lower_is_better_metric_is_turned():
    found = leaderboard.standings(made_up(), "m", "sufficiency", "mask", 0).set_index("method")
    assert (
        next(iter(found.index)) == "good"
        and found.at["good", "gain"] == pytest.approx(1)
        and found.at["good", "wins"] == 1
    )


def test_no_answer_is_a_guess():
    table = made_up(missing=("good",))
    wide = leaderboard.matched(table, "m", "average_precision")
    failed = wide.index[[int(name[1:]) % 3 == 0 for name in wide.index]]
    assert len(wide) == 60 and (wide.loc[failed, "good"] == wide.loc[failed, "random"]).all()
    found = leaderboard.failures(table)
    assert found.method.tolist() == ["good"] and found.share.iloc[0] == pytest.approx(1 / 3) and found.n.iloc[0] == 60


def test_samples_that_not_every_method_saw_are_left_out():
    table = made_up()
    table = table[~((table.method == "poor") & (table["sample"] == "s7"))]
    assert "s7" not in leaderboard.matched(table, "m", "average_precision").index


def test_flips_are_counted_and_those_within_the_noise_are_told_apart():
    steady, turning = made_up(), made_up(flip=True)
    assert leaderboard.flips(steady, "m", "delta_af") == (0, 6)
    assert leaderboard.flips(turning, "m", "delta_af") == (6, 6)
    assert leaderboard.decided_flips(turning, "m", "delta_af", 0)[0] == 6
    assert leaderboard.decided_flips(steady, "m", "delta_af", 0) == (0, 6)


def test_metrics_that_say_the_same_correlate_and_opposite_ones_do_not():
    pairs = leaderboard.judges(made_up(flip=True), "m")
    assert pairs == [("delta_af", "delete"), ("delta_af", "mask"), ("sufficiency", "mask"), ("average_precision", "")]
    matrix = leaderboard.agreement_of(made_up(flip=True), "m", pairs)
    assert matrix[1, 2] == matrix[1, 3] == 1 and matrix[0, 1] == -1 and (np.diag(matrix) == 1).all()


def test_sweeps_become_one_small_file_that_says_what_made_it(tmp_path):
    table, half = made_up(), made_up().assign(model="other")
    for name, one in (("one", table), ("two", half)):
        parts.write(one, tmp_path / f"{name}.parquet", {"plan": name})
    out = tmp_path / "whole.parquet"
    leaderboard.bundle([tmp_path / "one.parquet", tmp_path / "two.parquet"], out)
    found = leaderboard.read(out)
    assert len(found) == 2 * len(table) and parts.provenance(out)["sweeps"]["two"]["plan"] == "two"
    one = leaderboard.standings(found, "m", "average_precision", "", 0)
    other = leaderboard.standings(table, "m", "average_precision", "", 0)
    assert one.method.tolist() == other.method.tolist()
    np.testing.assert_allclose(one["mean"].to_numpy(), other["mean"].to_numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="twice"):
        leaderboard.bundle([tmp_path / "one.parquet", tmp_path / "one.parquet"], out)


def test_a_file_that_is_cut_off_or_no_sweep_is_refused(tmp_path):
    file = tmp_path / "table.parquet"
    with pytest.raises(ValueError, match="missing or damaged"):
        leaderboard.read(file)
    parts.write(made_up(), file, {})
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="missing or damaged"):
        leaderboard.read(file)
    with pytest.raises(ValueError, match="no sweep"):
        leaderboard.bundle([file], tmp_path / "out.parquet")


def test_what_is_not_there_or_does_not_judge_is_refused():
    with pytest.raises(ValueError, match="no hit"):
        leaderboard.matched(made_up(), "m", "hit")
    with pytest.raises(ValueError, match="does not judge"):
        leaderboard.standings(made_up(), "m", "sparseness", "", 0)
