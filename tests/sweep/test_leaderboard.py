"""The table of a sweep as a leaderboard, on a table made up here whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from tests.sweep.trial import made_up
from xai_utils.__main__ import main
from xai_utils.sweep import leaderboard, parts, standings


def test_no_answer_is_a_guess():
    table = made_up(missing=("good",))
    wide = standings.matched(table, "m", "average_precision")
    failed = wide.index[[int(name[1:]) % 3 == 0 for name in wide.index]]
    assert len(wide) == 60 and (wide.loc[failed, "good"] == wide.loc[failed, "random"]).all()
    found = leaderboard.failures(table)
    assert found.method.tolist() == ["good"] and found.share.iloc[0] == pytest.approx(1 / 3) and found.n.iloc[0] == 60


def test_flips_are_counted_and_those_within_the_noise_are_told_apart():
    steady, turning = made_up(), made_up(flip=True)
    assert leaderboard.flips(steady, "m", "delta_af") == (0, 6)
    assert leaderboard.flips(turning, "m", "delta_af") == (6, 6)
    assert leaderboard.decided_flips(turning, "m", "delta_af", 0)[0] == 6
    assert leaderboard.decided_flips(steady, "m", "delta_af", 0) == (0, 6)


def test_metrics_that_say_the_same_correlate_and_opposite_ones_do_not():
    pairs = leaderboard.judges(made_up(flip=True), "m")
    assert pairs == [("delta_af", "delete"), ("delta_af", "mask"), ("sufficiency", "mask"), ("average_precision", "")]
    wanted = ["delta_af", "sufficiency", "average_precision"]
    matrix = leaderboard.agreement(made_up(flip=True), ["m"], wanted, nulls=True, least=3).to_numpy()
    assert matrix[1] == pytest.approx([-1, 1, 1, 1]) and np.diag(matrix) == pytest.approx(np.ones(4))


def test_an_overview_counts_methods_nulls_and_samples():
    table = pd.concat([made_up(), made_up(samples=9).assign(model="other")])
    found = leaderboard.overview(table, ["other", "m"])
    assert list(found.index) == ["other", "m"] and found.loc["m"].tolist() == [3, 1, 60, 60]
    assert found.at["other", "samples"] == 9


def test_what_is_tied_with_the_best_and_what_is_worse_than_a_guess():
    table = made_up(samples=300)
    twin = table[table.method == "good"].assign(method="twin")
    table = pd.concat([table, twin])
    tied, worse = leaderboard.outcome(table, standings.standings(table), "m")
    assert set(tied) == {"good", "twin"} and worse == ["poor"]


def test_ranks_by_operator_and_how_often_they_turn():
    table = made_up(flip=True)
    ranks = leaderboard.ranks(standings.standings(table), "m", "delta_af")
    assert list(ranks) == ["delete", "mask"] and min(ranks["mask"], key=ranks["mask"].get) == "good"
    assert max(ranks["delete"], key=ranks["delete"].get) == "good"
    table = table[table.metric != "sufficiency"]
    steady = table[table.operator == "mask"]
    ways = [steady.assign(metric="sufficiency", operator=way) for way in ("mask", "delete")]
    found = leaderboard.turned(pd.concat([table, *ways]), ["m"], 0)
    assert found.loc["m"].tolist() == [6, 1.0, 6, 6, 0.0]


def test_metrics_are_compared_on_models_that_are_removed_from_in_one_way():
    other = made_up(seed=1).assign(model="other")
    strange = made_up().assign(model="strange")
    strange["operator"] = strange.operator.replace("mask", "blank")
    few = made_up().assign(model="few")
    table = pd.concat([few[few.method.isin(["good", "random"])], made_up(), other, strange])
    wanted = ["delta_af", "average_precision"]
    found = leaderboard.agreement(table, ["few", "m", "other", "strange"], wanted, least=3)
    labels = ["delta_af delete", "delta_af mask", "average_precision"]
    assert list(found.index) == [(model, label) for model in ("m", "other") for label in labels]
    assert list(found.columns) == labels and found.to_numpy() == pytest.approx(np.ones((6, 3)))


def test_rows_of_the_bundled_table_are_scored_again():
    table, _ = leaderboard.read()
    mine = table[table.model == "attention-sst2"]
    compared, equal = leaderboard.again(mine, "attention-sst2", 2, 0)
    assert compared == equal > 40
    compared, equal = leaderboard.again(mine.assign(value=mine.value + 0.01), "attention-sst2", 2, 0)
    assert compared > 40 and equal == 0


def bundled(folder, table):
    """Write a table as a leaderboard with its standings, by the command."""
    parts.write(table, folder / "one.parquet", {"plan": "one"})
    parts.write(table.assign(model="other"), folder / "two.parquet", {"plan": "two"})
    sources, out = [str(folder / f"{name}.parquet") for name in ("one", "two")], folder / "whole.parquet"
    assert main(["leaderboard", *sources, "--out", str(out)]) == 0
    return out


def test_sweeps_become_one_small_file_that_says_what_made_it(tmp_path):
    table, out = made_up(), bundled(tmp_path, made_up())
    found, board = leaderboard.read(out)
    assert len(found) == 2 * len(table) and parts.provenance(out)["sweeps"]["two"]["plan"] == "two"
    own = standings.standings(table.drop(columns="set"))
    pd.testing.assert_frame_equal(
        board[board.model == "m"].reset_index(drop=True), own, check_dtype=False, rtol=1e-2, atol=1e-3
    )
    with pytest.raises(ValueError, match="twice"):
        leaderboard.bundle([tmp_path / "one.parquet", tmp_path / "one.parquet"], out)


def test_standings_of_another_table_are_refused_until_it_is_summed_up_again(tmp_path):
    out = bundled(tmp_path, made_up())
    parts.write(made_up(seed=1), out, {})
    with pytest.raises(ValueError, match=r"whole\.csv does not sum up whole\.parquet"):
        leaderboard.read(out)
    assert main(["leaderboard", "--out", str(out)]) == 0
    assert leaderboard.read(out)[1].model.unique().tolist() == ["m"]


def test_the_bundled_table_is_read_without_a_key_though_its_code_had_no_rooms():
    about = parts.provenance(leaderboard.FILE)
    assert "key" not in about and "scoring" in about["sweeps"]["leaderboard"]["code"]
    assert len(leaderboard.read()[0]) == about["rows"] > 1e6


def test_a_file_that_is_cut_off_or_no_sweep_is_refused(tmp_path):
    file = tmp_path / "table.parquet"
    with pytest.raises(ValueError, match="missing or damaged"):
        leaderboard.read(file)
    parts.write(made_up(), file, {})
    with pytest.raises(ValueError, match="does not sum up"):
        leaderboard.read(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="missing or damaged"):
        leaderboard.read(file)
    with pytest.raises(ValueError, match="no sweep"):
        leaderboard.bundle([file], tmp_path / "out.parquet")


def test_what_is_not_there_or_does_not_judge_is_refused():
    with pytest.raises(ValueError, match="no hit"):
        standings.matched(made_up(), "m", "hit")
    with pytest.raises(ValueError, match="does not judge"):
        leaderboard.ranked(made_up(), "m", "sparseness")


# Advice


def advice(table):
    return leaderboard.advice(table, standings.standings(table), "m", 0)


def test_the_best_is_named_with_how_sure_that_is():
    found = advice(made_up())
    assert found["best"] == "good" and found["choice"] == "good" and found["tied"] == ("good",) and found["n"] == 60
    assert found["stays"] == 1.0 and found["wins"] > 0.8 and found["removal"] == "2/2"
    assert found["low"] < found["mean"] < found["high"] and found["seconds"] == pytest.approx(0.01)


def test_among_equals_the_cheapest_is_taken():
    table = made_up()
    twin = table[table.method == "good"].assign(method="twin", seconds=0.001)
    noise = np.random.default_rng(1).normal(0, 0.01, len(twin))
    twin["value"] = twin.value.where(twin.metric == "fails", twin.value + noise)
    found = advice(pd.concat([table, twin]))
    assert found["choice"] == "twin" and set(found["tied"]) == {"good", "twin"} and 0 <= found["lost"] < 0.01


def test_a_choice_that_removal_speaks_against_shows():
    found = advice(made_up(flip=True))
    assert found["best"] == "good" and found["removal"] == "1/2"


def test_a_table_without_methods_is_refused():
    table = made_up()
    table["method"] = table.method.replace({"good": "uniform", "fair": "centre", "poor": "length"})
    with pytest.raises(ValueError, match="only null maps"):
        advice(table)


def test_lines_hold_every_model():
    rows = [advice(made_up())] * 2
    told = leaderboard.lines(rows).splitlines()
    assert len(told) == 3 and "good" in told[1] and "100%" in told[1] and max(map(len, told)) <= 135
