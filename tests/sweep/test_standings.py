"""The one rule by which a sweep is summed up: matched samples, guesses for no answer, intervals, and who reads them."""

import json

import numpy as np
import pandas as pd
import pytest
from places import ROOT

from tests.sweep.trial import made_up
from xai_utils import stats
from xai_utils.__main__ import main
from xai_utils.sweep import leaderboard, parts, standings, work

NOISE = np.random.default_rng(0).normal(size=40)


def rows(method, values, metric="aopc", error="", label="films"):
    return [
        {
            **dict.fromkeys(work.COLUMNS, ""), "model": "m", "method": method, "set": label, "sample": f"s{i:02}",
            "metric": "" if error else metric, "operator": "mask", "value": value, "seconds": 0.5, "error": error,
        }
        for i, value in enumerate(values)
    ]  # fmt: skip


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            *rows("random", NOISE),
            *rows("rollout", NOISE[:30] + 1),
            *rows("rollout", [np.nan] * 40, error="ValueError: an empty map")[30:],
            *rows("broken", [np.nan] * 40, error="ValueError: an empty map"),
            *rows("constant", [2.0] * 40),
            *rows("random", NOISE, metric="sufficiency"),
        ]
    )


def of(table, metric="aopc"):
    return standings.chosen(standings.standings(table), "m", metric, "mask").set_index("method")


def test_means_come_with_intervals_and_the_gain_over_a_guess(table):
    found = of(table)
    assert list(found.index) == ["constant", "rollout", "broken", "random"] and set(found.better) == {"higher"}
    expected, gain = stats.mean_interval(NOISE, 0), np.where(np.arange(40) < 30, 1.0, 0.0)
    random, rollout = found.loc["random"], found.loc["rollout"]
    assert tuple(random[["mean", "low", "high"]]) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (found.n == 40).all()
    assert rollout.gain == pytest.approx(0.75) and rollout.gain_low == pytest.approx(stats.mean_interval(gain, 0).low)
    assert tuple(found.loc["constant", ["mean", "low", "high"]]) == (2, 2, 2) and (found.seconds == 0.5).all()


def test_no_answer_is_a_guess_and_is_counted(table):
    found = of(table)
    assert found.failed.to_dict() == {"constant": 0, "rollout": 0.25, "broken": 1, "random": 0}
    same = ["mean", "low", "high", "gain", "gain_low", "gain_high", "wins", "p", "behind", "tied"]
    assert tuple(found.loc["broken", same]) == tuple(found.loc["random", same]), "it is worth what a guess is worth"
    assert found.at["broken", "wins"] == 0.5 and found.at["broken", "p"] == 1
    assert of(table, "sufficiency").failed.to_dict() == {"random": 0, "broken": 1, "constant": 1, "rollout": 1}


def test_without_a_random_map_nothing_is_summed_up(table):
    with pytest.raises(ValueError, match="no 'random' map to compare with; add it to the plan"):
        standings.standings(table[table.method != "random"])


def test_samples_that_not_every_method_was_tried_on_are_left_out(table):
    gone = (table.method == "rollout") & table["sample"].isin(["s07", "s08"])
    assert (of(table[~gone]).n == 38).all()


def test_a_lower_is_better_metric_is_turned():
    found = standings.chosen(standings.standings(made_up()), "m", "sufficiency", "mask").set_index("method")
    assert list(found.index) == ["good", "fair", "random", "poor"] and set(found.better) == {"lower"}
    assert found.at["good", "mean"] == -1 and found.at["good", "gain"] == 1 and found.at["good", "wins"] == 1


def test_standings_find_the_order_the_gain_and_its_certainty():
    found = standings.chosen(standings.standings(made_up()), "m", "average_precision").set_index("method")
    assert list(found.index) == ["good", "fair", "random", "poor"] and (found.n == 60).all()
    assert ((found.low < found["mean"]) & (found["mean"] < found.high)).all()
    assert found.at["good", "gain_low"] > 0.7 and found.at["poor", "gain_high"] < -0.3
    assert found.at["good", "wins"] > 0.8 and found.at["random", "gain"] == 0 and found.at["random", "p"] == 1
    assert found.at["good", "p"] < 0.01 and found.loc["good", ["behind", "p_behind"]].tolist() == [0, 1]
    assert found.tied.to_dict() == {"good": True, "fair": False, "random": False, "poor": False}
    assert found.behind.is_monotonic_increasing and found.at["fair", "behind_low"] > 0


def test_what_is_not_told_from_the_best_is_tied_with_it():
    values = np.random.default_rng(3).normal(size=200)
    twin = values + np.random.default_rng(4).normal(0, 0.5, 200) - 0.01
    found = of(pd.DataFrame([*rows("best", values + 1), *rows("twin", twin + 1), *rows("random", values - 1)]))
    assert found.tied.to_dict() == {"best": True, "twin": True, "random": False}


def test_ten_pictures_on_each_background_are_no_more_than_their_backgrounds():
    def on_textures(copies):
        one, other = np.random.default_rng(5).normal(size=(2, 8))
        names = [f"ground:{i + 44 * copy}:1" for copy in range(copies) for i in range(8)]
        made = [*rows("one", [*one] * copies), *rows("random", [*other] * copies)]
        return of(pd.DataFrame(made).assign(sample=names * 2))

    columns = ["low", "high", "gain_low", "gain_high", "p", "p_behind"]
    pd.testing.assert_frame_equal(on_textures(1)[columns], on_textures(10)[columns])
    assert on_textures(10).n.tolist() == [80, 80]


def test_random_maps_do_not_win():
    noise = np.random.default_rng(1)
    found = of(pd.DataFrame([*rows("other", noise.random(400)), *rows("random", noise.random(400))]))
    assert 0.43 < found.at["other", "wins"] < 0.57 and found.at["other", "p"] > 0.05


def test_a_metric_that_does_not_judge_has_no_gain_and_one_sample_no_interval():
    found = of(
        pd.DataFrame([*rows("a", [1.0], metric="sparseness"), *rows("random", [2.0], "sparseness")]), "sparseness"
    )
    assert found["mean"].to_dict() == {"a": 1, "random": 2} and set(found.better) == {""}
    assert found[["low", "high", "gain", "wins", "p", "behind", "tied"]].isna().all(axis=None)


def test_nothing_scored_is_an_error():
    with pytest.raises(ValueError, match="no scores"):
        standings.standings(pd.DataFrame(rows("rollout", [np.nan], error="ValueError: no")))
    with pytest.raises(ValueError, match="no standings of m by hit"):
        standings.chosen(standings.standings(made_up()), "m", "hit")


def test_the_command_writes_numbers_tables_for_readers_and_what_made_them(table, tmp_path, capsys):
    file, out = tmp_path / "t.parquet", tmp_path / "real" / "v1.t"
    parts.write(table, file, {"plan": {"name": "t"}})
    assert main(["summary", str(file), "--out", str(out)]) == 0
    written, computed = standings.read(tmp_path / "real" / "v1.t.csv"), standings.standings(table)
    pd.testing.assert_frame_equal(written, computed, check_dtype=False, rtol=1e-4, atol=1e-6)
    about = json.loads((tmp_path / "real" / "v1.t.json").read_text())
    assert about["rows"] == len(table) and about["plan"] == {"name": "t"} and about["summed"]["seed"] == 0
    page = (tmp_path / "real" / "v1.t.md").read_text()
    assert "## m on films" in page and "Removal by mask:" in page
    assert "| method | sufficiency (n = 40) | aopc (n = 40) |" in page
    assert "| constant | " in page and "| 2.000 [2.000, 2.000] |" in page and ", no answer 25% |" in page
    file.write_bytes(file.read_bytes()[:-20])
    assert main(["summary", str(file), "--out", str(tmp_path / "u")]) == 2 and "damaged" in capsys.readouterr().err


def test_the_bundled_standings_are_what_the_bundled_table_gives():
    table, board = leaderboard.read()
    key = ["model", "metric", "operator", "method"]
    scored = table[table.metric != standings.FAILS][key].drop_duplicates().astype(str)
    assert len(board) == len(scored) and not board.merge(scored, on=key, how="outer").isna()["mean"].any()
    metrics = [standings.TRUTH, "sufficiency", standings.FAILS]
    some = table[table.model.isin(["bert12-sst2", "vit-shortcut"]) & table.metric.isin(metrics)]
    computed = standings.standings(some).set_index(key)
    assert computed.failed.max() > 0.4, "a method that fails is among them"
    stored = board.set_index(key).loc[computed.index]
    pd.testing.assert_frame_equal(stored, computed, check_dtype=False, rtol=1e-4, atol=1e-6)


def test_the_stored_table_of_real_models_is_told_as_its_page_tells_it():
    found = standings.read(ROOT / "figures/real/real.csv")
    assert (ROOT / "figures/real/real.md").read_text() == f"# real\n\n{standings.pages(found)}"
    random = found[found.method == "random"].set_index(["model", "set", "metric", "operator"])["mean"]
    sign = found.better.map({"higher": 1, "lower": -1})
    guess = random.loc[list(zip(found.model, found.set, found.metric, found.operator, strict=True))].to_numpy()
    np.testing.assert_allclose(found.gain, sign * (found["mean"] - guess), atol=2e-5)
    assert (found.failed == 0).all() and (found.gain_low <= found.gain).all() and (found.gain <= found.gain_high).all()
