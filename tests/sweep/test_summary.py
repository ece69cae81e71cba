"""A sweep summed up."""

import json

import numpy as np
import pandas as pd
import pytest

from xai_utils import stats
from xai_utils.__main__ import main
from xai_utils.sweep import parts, summary, work

NOISE = np.random.default_rng(0).normal(size=40)


def rows(method, values, metric="aopc", error="", label="films"):
    return [
        {
            **dict.fromkeys(work.COLUMNS, ""), "model": "m", "method": method, "set": label, "sample": f"s{i}",
            "metric": metric, "operator": "mask", "value": value, "seconds": 0.5, "error": error,
        }
        for i, value in enumerate(values)
    ]  # fmt: skip


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            *rows("random", NOISE),
            *rows("rollout", NOISE[:30] + 1),  # ten samples failed
            *rows("rollout", [np.nan] * 10, error="ValueError: an empty map"),
            *rows("constant", [2.0] * 40),
            *rows("random", NOISE, metric="lift"),
        ]
    )


def test_means_come_with_intervals_and_the_null_taken_off(table):
    found = summary.summary(table).set_index(["metric", "method"])
    assert list(found.index) == [("aopc", "random"), ("aopc", "rollout"), ("aopc", "constant"), ("lift", "random")]
    random, rollout = found.loc["aopc", "random"], found.loc["aopc", "rollout"]
    expected = stats.mean_interval(NOISE, summary.SEED)
    assert (random["mean"], random.low, random.high, random.n) == (expected.mean, expected.low, expected.high, 40)
    assert np.isnan(random.gain) and random.gain_n == 0
    assert rollout.gain == pytest.approx(1) and rollout.gain_low == pytest.approx(1) and rollout.gain_n == 30
    assert tuple(found.loc["aopc", "constant"][["mean", "low", "high"]]) == (2, 2, 2) and rollout.seconds == 0.5


def test_a_table_for_readers(table):
    lines = summary.markdown(summary.summary(table), [("aopc", "mask"), ("lift", "mask")]).splitlines()
    assert lines[0] == "| method | aopc mask | lift mask |" and len(lines) == 5
    assert lines[4] == "| constant | 2.000 [2.000, 2.000] | – |"
    two = pd.concat([table, pd.DataFrame(rows("random", NOISE, label="plots"))])
    with pytest.raises(ValueError, match="one model on one set"):
        summary.markdown(summary.summary(two), [("aopc", "mask")])


def test_nothing_scored_is_an_error():
    with pytest.raises(ValueError, match="no scores"):
        summary.summary(pd.DataFrame(rows("rollout", [np.nan], error="ValueError: no")))


def test_the_command_writes_numbers_and_what_made_them(table, tmp_path, capsys):
    file = tmp_path / "t.parquet"
    parts.write(table, file, {"plan": {"name": "t"}})
    assert main(["summary", str(file), "--out", str(tmp_path / "real" / "t")]) == 0
    written = pd.read_csv(tmp_path / "real" / "t.csv")
    assert len(written) == 4 and json.loads((tmp_path / "real" / "t.json").read_text())["rows"] == len(table)
    page = (tmp_path / "real" / "t.md").read_text()
    assert "## m on films, n ≤ 40" in page and "Removal by mask:" in page and "Fewer samples: rollout aopc 30." in page
    file.write_bytes(file.read_bytes()[:-20])
    assert main(["summary", str(file), "--out", str(tmp_path / "u")]) == 2 and "damaged" in capsys.readouterr().err
