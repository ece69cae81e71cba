"""Which row of a table of tests belongs to which claim, and what contradicts."""

import pandas as pd
import pytest

from xai_utils.workbook.report import build, findings
from xai_utils.workbook.report.sources import Claim

ROWS = [
    ("reviews", "rollout", "chance", 0.2, 0.01),
    ("reviews", "rollout, max", "chance", -0.3, 0.01),
    ("reviews", "attention", "rollout", 0.1, 0.2),
    ("scenes", "attention", "rollout", 0.4, 0.01),
    ("scenes", "rollout", "attention", -0.4, 0.01),
]


def saved(folder, **changes):
    table = pd.DataFrame(ROWS, columns=["task", "map", "against", "difference", "p (Holm)"])
    table.assign(**changes).to_csv(folder / "01_last_rule.csv", index=False)
    return findings.read_tests(folder, "01")


def measured(statement, verdict, tests):
    (claim,) = findings.measured([Claim(statement, verdict, "01_small", "cell-1")], tests)
    return claim.measured and (claim.measured.effect, claim.measured.p)


@pytest.mark.parametrize(
    ("statement", "verdict", "expected"),
    [
        ("reviews: rollout above chance", "holds", (0.2, 0.01)),
        ("reviews: rollout, max above chance", "does not hold", (-0.3, 0.01)),
        ("reviews: attention above rollout", "undecided", (0.1, 0.2)),
        ("reviews: gradient_rollout above chance", "holds", None),  # a part of a word is no word
        ("reviews: rollout is alike", "holds", None),
        ("scenes: rollout and attention", "holds", None),  # two rows fit: none is taken
        ("reviews: rollout, against chance ≥ 0.5", "holds", None),  # required, hence not tested
    ],
)
def test_a_claim_takes_the_row_that_it_says(tmp_path, statement, verdict, expected):
    assert measured(statement, verdict, saved(tmp_path)) == expected


def test_a_row_of_one_text_is_the_whole_statement(tmp_path):
    table = pd.DataFrame(
        {"claim": ["a beats b"], "effect": [1.5], "low": [1.0], "high": [2.0], "above": [2.5], "p": 0.02}
    )
    table.to_csv(tmp_path / "01_findings.csv", index=False)
    tests = findings.read_tests(tmp_path, "01")
    (claim,) = findings.measured([Claim("a beats b", "does not hold", "01_small", "cell-1")], tests)
    assert findings.told(claim.measured) == "1.500 [1.000, 2.000], p = 0.020" and claim.measured.table == "01_findings"
    assert measured("within 0.05 of none: a beats b", "holds", tests) is None


def test_a_column_that_the_others_determine_need_not_be_said(tmp_path):
    tests = saved(tmp_path, measure="precision")
    assert measured("reviews: rollout above chance", "holds", tests) == (0.2, 0.01)


def test_that_there_is_no_difference_is_not_what_a_test_of_one_says(tmp_path):
    tests = saved(tmp_path)
    assert measured("reviews, precision: rollout above chance", "holds", tests)
    assert measured("reviews, precision: rollout above chance is within 0.05 of none", "undecided", tests) is None


def test_other_tables_and_other_notebooks_are_left_alone(tmp_path):
    saved(tmp_path)
    (tmp_path / "01_last_rule.csv").rename(tmp_path / "01_ruled.csv")
    pd.DataFrame({"map": ["rollout"], "share": [0.1]}).to_csv(tmp_path / "01_tests.csv", index=False)
    assert not findings.read_tests(tmp_path, "01") and not findings.read_tests(tmp_path, "02")


def test_a_notebook_and_a_table_that_contradict_each_other_stop_the_report(project, tmp_path):
    pd.DataFrame({"claim": ["a < b"], "mean": [0.5], "p": [0.01]}).to_csv(project / "figures/01_tests.csv", index=False)
    with pytest.raises(
        ValueError, match=r"01_small printed 'does not hold' of 'a < b', and figures/01_tests\.csv has 0\.5"
    ):
        build.build(project, tmp_path / "site")
