"""The standings of the leaderboard as the report reads them, and what it refuses."""

import pytest

from tests.workbook.made_up import scores
from xai_utils.workbook.report import tables


@pytest.fixture
def file(tmp_path):
    return tmp_path / "leaderboard.csv"


def test_the_standings_are_shown_as_they_stand(file):
    table = scores()
    table.to_csv(file, index=False)
    rows = tables.leaderboard(file)
    assert [(row["model"], row["metric"], row["method"], row["mean"]) for row in rows] == list(
        zip(table.model, table.metric, table.method, table["mean"], strict=True)
    )
    assert {row["operator"] for row in rows} == {"zero", "blur", tables.NONE} and {row["n"] for row in rows} == {1200}


def test_what_does_not_judge_has_no_gain(file):
    scores().assign(better="", gain=None, gain_low=None, gain_high=None).to_csv(file, index=False)
    assert {(row["better"], row["gain"]) for row in tables.leaderboard(file)} == {("–", None)}


def test_the_leaderboard_opens_on_the_truth_where_it_holds_that(file):
    scores().to_csv(file, index=False)
    assert tables.opened(tables.leaderboard(file)) == {"model": "tiny", "metric": "deletion"}
    scores().replace({"tiny": "vit-scenes", "lift": "average_precision"}).to_csv(file, index=False)
    assert tables.opened(tables.leaderboard(file)) == {"model": "vit-scenes", "metric": "average_precision"}


def test_no_leaderboard_is_no_error(file):
    assert tables.leaderboard(file) is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns=["operator", "failed"]), "lacks the columns operator, failed"),
        (lambda table: table.head(0), "has no row"),
        (lambda table: table.assign(gain="high"), "holds texts in 'gain'"),
    ],
)
def test_a_bad_leaderboard_is_refused(file, edit, message):
    edit(scores()).to_csv(file, index=False)
    with pytest.raises(ValueError, match=rf"leaderboard\.csv {message}"):
        tables.leaderboard(file)


@pytest.mark.parametrize("content", [b"", b'a,b\n"1,2\n3', b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"leaderboard\.csv cannot be read as a table"):
        tables.leaderboard(file)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (1234, "1,234"), (-0.5, "−0.500"), (0.00012, "1.20e−04"), (0.0, "0.000"), (2.5e7, "2.50e+07")],
)
def test_numbers_are_written_for_people(value, shown):
    assert tables.number(value) == shown
