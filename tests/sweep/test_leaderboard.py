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


def test_an_overview_counts_methods_nulls_and_samples():
    table = pd.concat([made_up(), made_up(samples=9).assign(model="other")])
    found = leaderboard.overview(table, ["other", "m"])
    assert list(found.index) == ["other", "m"] and found.loc["m"].tolist() == [3, 1, 60, 60]
    assert found.at["other", "samples"] == 9


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


def test_the_bundled_table_says_what_made_it():
    about, plans = parts.provenance(leaderboard.FILE), leaderboard.PLANS
    assert "key" not in about and set(about["sweeps"]) == set(plans)
    assert all("xai_utils.evaluation.scoring" in about["sweeps"][name]["code"] for name in plans)
    assert len(leaderboard.read()[0]) == about["rows"] > 1e5


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


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no hit"):
        standings.matched(made_up(), "m", "hit")


# Pairs and places


def test_every_pair_is_compared_in_the_direction_of_better_with_its_test():
    table = made_up()
    found = leaderboard.pairs(table, ["m"])
    assert len(found) == 6 and set(found.one) | set(found.other) == {"good", "fair", "poor", "random"}
    known = found.set_index(["one", "other"])
    wide = standings.matched(table, "m", "average_precision")
    for (one, other), row in known.iterrows():
        assert row.gap == pytest.approx((wide[one] - wide[other]).mean()) and row.low <= row.gap <= row.high
        assert (row.p < 0.05) == (not row.low < 0 < row.high)
    assert known.loc[("good", "poor")].p < 0.01


def test_pairs_of_equal_methods_are_not_told_apart():
    table = made_up()
    noise = table[table.method == "random"].sample(frac=1, random_state=1).value.to_numpy()
    twin = table[table.method == "random"].assign(method="twin", value=noise)
    found = leaderboard.pairs(pd.concat([table, twin]), ["m"]).set_index(["one", "other"])
    assert found.at[("random", "twin"), "p"] > 0.05 and found.at[("good", "twin"), "p"] < 0.05


def test_places_say_how_sure_they_are():
    found = leaderboard.places(made_up(), "m", 0).set_index("method")
    assert list(found.index) == ["good", "fair", "random", "poor"] and found.place.tolist() == [1, 2, 3, 4]
    assert found.loc["good", ["low", "high", "first"]].tolist() == [1, 1, 1]
    unsure = leaderboard.places(made_up(samples=4), "m", 0).set_index("method")
    assert unsure.loc["good", "high"] > 1 and unsure["first"].sum() == pytest.approx(1)
    assert unsure.at["random", "first"] == 0, "a null is never the answer"


def clustered(copies):
    """The made-up table on textures: every sample stands ``copies`` times on its background."""
    table = made_up(samples=12)
    same = [
        table.assign(sample=[f"ground:{int(one[1:]) + 44 * i}:2" for one in table["sample"]]) for i in range(copies)
    ]
    return pd.concat(same)


def test_copies_on_one_background_make_nothing_surer():
    one, many = (leaderboard.places(clustered(copies), "m", 0) for copies in (1, 20))
    pd.testing.assert_frame_equal(one, many)
    one, many = (leaderboard.pairs(clustered(copies), ["m"]) for copies in (1, 20))
    pd.testing.assert_frame_equal(one, many)


# Which method for which kind of model


@pytest.fixture
def two_of_a_kind(monkeypatch):
    kinds = {"m": ("text transformer", "human marks"), "n": ("text transformer", "human marks")}
    monkeypatch.setattr(leaderboard, "ABOUT", kinds | {"lone": ("Mamba of texts", "known cause")})
    other = made_up(seed=5).assign(model="n")
    lone = made_up(seed=6).assign(model="lone")
    swapped = lone.assign(method=lone.method.replace({"good": "poor", "poor": "good"}))
    return pd.concat([made_up(), other, swapped])


def test_a_kind_of_model_has_its_own_answer_with_its_certainty(two_of_a_kind):
    table = two_of_a_kind
    found = leaderboard.kinds(table, standings.standings(table), 0)
    assert set(found.method) == {"good", "fair", "poor"} and len(found) == 6
    text = found[found.kind == "text transformer"].set_index("method")
    assert list(text.index) == ["good", "fair", "poor"] and text.models.tolist() == [2, 2, 2]
    assert (text.low < text.skill).all() and (text.skill < text.high).all()
    assert text.at["good", "first"] == 1 and text.at["good", "tied"] == 2 and text.at["fair", "tied"] == 0
    told = leaderboard.for_kind(found).set_index("kind")
    assert told["take"].to_dict() == {"text transformer": "good", "Mamba of texts": "poor"}
    assert told["or"].tolist() == ["", ""] and told.models.to_dict() == {"text transformer": 2, "Mamba of texts": 1}


def test_the_unit_of_skill_is_the_way_from_random_to_perfect():
    wide = pd.DataFrame({"random": [0.2, 0.4], "good": [1.0, 1.0], "fair": [0.2, 0.4], "centre": [0.0, 0.0]})
    found = leaderboard._skill(wide)
    assert found.mean().to_dict() == pytest.approx({"good": 1.0, "fair": 0.0})


def test_a_kind_whose_models_disagree_is_unsure(two_of_a_kind):
    table = two_of_a_kind
    other = table.model == "n"
    table.loc[other, "method"] = table[other].method.replace({"good": "fair", "fair": "good"})
    found = leaderboard.kinds(table, standings.standings(table), 0)
    text = found[found.kind == "text transformer"].set_index("method")
    assert text.at["good", "first"] < 0.9 and text.at["good", "tied"] == 1
    assert text.at["good", "low"] < text.at["good", "worst"] + 0.2 < text.at["good", "skill"] + 0.2


def test_truths_are_kept_apart(two_of_a_kind):
    assert leaderboard.with_truth(two_of_a_kind, leaderboard.MARKS) == ["m", "n"]
    assert leaderboard.with_truth(two_of_a_kind, leaderboard.CAUSE) == ["lone"]
    with pytest.raises(ValueError, match="no model whose kind is known"):
        leaderboard.kinds(made_up().assign(model="another"), pd.DataFrame(), 0)


# Advice


def advice(table):
    return leaderboard.advice(table, standings.standings(table), "m", 0)


def test_the_best_is_named_with_how_sure_that_is():
    found = advice(made_up())
    assert found["best"] == "good" and found["choice"] == "good" and found["tied"] == ("good",) and found["n"] == 60
    assert found["first"] == 1.0 and found["wins"] > 0.8 and found["removal"] == "2/2"
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


def test_the_best_method_is_set_against_the_null_nearest_to_it():
    table = pd.concat([made_up(), made_up().query("method == 'good'").assign(method="length")])
    table.loc[table.method == "length", "value"] += np.random.default_rng(1).normal(
        0.4, 0.2, (table.method == "length").sum()
    )
    for one in (table, table.replace({"method": {"good": "zeal", "length": "position"}})):  # either order of names
        board = standings.standings(one)
        found = leaderboard.above_nulls(
            leaderboard.pairs(one, ["m"]), {"m": standings.chosen(board, "m", "average_precision")}
        )
        row = found.iloc[0]
        assert row.null in ("length", "position") and row.low < row.gap < row.high < 0 and row.p < 0.01
    found = leaderboard.above_nulls(
        leaderboard.pairs(made_up(), ["m"]),
        {"m": standings.chosen(standings.standings(made_up()), "m", "average_precision")},
    ).iloc[0]
    assert (
        (found.method, found.null) == ("good", "random") and found.gap == pytest.approx(1.0, abs=0.2) and found.p < 0.01
    )
