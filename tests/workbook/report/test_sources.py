"""What the report reads, and what it refuses by name."""

import json

import pytest

from tests.workbook.made_up import picture, record
from xai_utils import claims
from xai_utils.workbook.report import build, sources


def test_bad_files_are_named(project, tmp_path):
    def refused(message):
        with pytest.raises(ValueError, match=message):
            build.build(project, tmp_path / "site")
        assert not (tmp_path / "site").exists()

    own = project / "figures/01_rows.json"
    whole = own.read_text()
    for text, message in (
        (whole[:-20], r"figures/01_rows\.json is no JSON"),
        ("[]", r"01_rows\.json holds a list"),
        (json.dumps({"figure": "01_rows"}), r"01_rows\.json lacks caption, notebook, parameters"),
        (json.dumps(json.loads(whole) | {"figure": "01_other"}), r"01_rows\.json is the record of '01_other'"),
    ):
        own.write_text(text)
        refused(message)
    own.unlink()
    refused(r"figures/01_rows\.png has no record")
    own.write_text(whole)
    (project / "figures/deit/01_rows.png").unlink()
    refused(r"figures/deit/01_rows\.json records a figure or table that is not there")
    (project / "figures/deit/01_rows.png").write_text("no picture")
    refused(r"01_rows\.png is no picture")
    picture(project / "figures/deit/01_rows.png")
    (project / "data/models/tiny/card.json").write_text("{")
    refused(r"tiny/card\.json is no JSON")
    (project / "data/models/tiny/card.json").write_text("{}")
    (project / "notebooks/02_other.ipynb").write_text("{")
    refused(r"02_other\.ipynb cannot be read")
    for path in (project / "notebooks").iterdir():
        path.unlink()
    refused("no notebook")


def test_verdicts_are_read_as_claims_prints_them(capsys):
    claims.equal("sign", 1, 1)
    claims.finding("better", -1.0, -0.5)
    claims.finding("larger", -1.0, 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert [sources.verdict_of(line) for line in [*lines, "holdsno", "the sum holds  x"]] == [
        ("holds", "sign = 1"), ("does not hold", "better"), ("undecided", "larger"), None, None,
    ]  # fmt: skip


def test_claims_that_stop_a_notebook_are_told_from_findings(capsys):
    claims.near("sum", 1.0, 1.0, 1e-5)
    claims.equal("order", ["a b", 1], ["a b", 1])
    claims.equal("name", "a b.", "a b.")
    claims.at_least("share", 0.9, 0.5)
    claims.at_most("gap", 1e-9, 5e6)
    claims.finding("Spearman > 0.5, at skip = 0.5 of all", 0.6, 0.7, above=0.5)
    claims.finding("a = b", -2.0, -1.0)
    told = [sources.verdict_of(line) for line in capsys.readouterr().out.splitlines()]
    required = [sources.Claim(statement, verdict, "01_small", "cell-1").required for verdict, statement in told]
    assert required == [True] * 5 + [False] * 2


def test_a_picture_parted_from_its_record_is_named(project):
    record(project / "figures/01_rows.png", files={"01_rows.png": "0" * 64})
    with pytest.raises(ValueError, match=r"01_rows\.png is not the picture that 01_rows\.json describes"):
        sources.read_figures(project / "figures")
