"""Claims: the printed line names the claim and not the digits; a failure speaks."""

import pytest

from xai_utils import claims

NAN = float("nan")

HELD = [
    (claims.near, ("row sums", 1.0000004, 1.0, 1e-6), "holds  row sums = 1 ± 1e-06\n"),
    (claims.near, ("gap", 0.5, 0.0, 0.5), "holds  gap = 0 ± 0.5\n"),
    (claims.equal, ("layers", 12, 12), "holds  layers = 12\n"),
    (claims.equal, ("top token", ("good",), ("good",)), "holds  top token = ('good',)\n"),
    (claims.at_least, ("lift", 3.25, 2.0), "holds  lift ≥ 2\n"),
    (claims.at_least, ("lift", 2.0, 2.0), "holds  lift ≥ 2\n"),
    (claims.at_most, ("error", 1e-9, 1e-7), "holds  error ≤ 1e-07\n"),
    (claims.at_most, ("error", 0.5, 0.5), "holds  error ≤ 0.5\n"),
]
BROKEN = [
    (claims.near, ("row sums", 1.1, 1.0, 0.01), "row sums = 1 ± 0.01; measured 1.1"),
    (claims.near, ("row sums", 0.9, 1.0, 0.01), "row sums = 1 ± 0.01; measured 0.9"),
    (claims.near, ("row sums", NAN, 1.0, 0.01), "row sums = 1 ± 0.01; measured nan"),
    (claims.equal, ("layers", 11, 12), "layers = 12; measured 11"),
    (claims.at_least, ("lift", 1.9, 2.0), "lift ≥ 2; measured 1.9"),
    (claims.at_least, ("lift", NAN, 2.0), "lift ≥ 2; measured nan"),
    (claims.at_most, ("error", 0.6, 0.5), "error ≤ 0.5; measured 0.6"),
    (claims.at_most, ("error", NAN, 0.5), "error ≤ 0.5; measured nan"),
]


@pytest.mark.parametrize(("claim", "arguments", "line"), HELD)
def test_a_claim_that_holds_prints_one_line(claim, arguments, line, capsys):
    claim(*arguments)
    assert capsys.readouterr().out == line


def test_the_line_does_not_depend_on_the_measured_value(capsys):
    claims.near("row sums", 1.0, 1.0, 1e-6)
    claims.near("row sums", 1.0 - 7e-7, 1.0, 1e-6)
    one, other = capsys.readouterr().out.splitlines()
    assert one == other


@pytest.mark.parametrize(("claim", "arguments", "error"), BROKEN)
def test_a_claim_that_fails_raises_and_prints_nothing(claim, arguments, error, capsys):
    with pytest.raises(AssertionError) as raised:
        claim(*arguments)
    assert str(raised.value) == f"claim does not hold: {error}"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("interval", "line"),
    [
        ((0.1, 0.2), "holds  better than chance\n"),
        ((-0.2, -0.1), "does not hold  better than chance\n"),
        ((-0.1, 0.2), "undecided  better than chance\n"),
        ((0.0, 0.2), "undecided  better than chance\n"),
        ((0.4, 0.6, 0.5), "undecided  better than chance\n"),
        ((0.4, 0.6, 0.3), "holds  better than chance\n"),
        ((0.4, 0.6, 0.7), "does not hold  better than chance\n"),
    ],
)
def test_a_finding_is_decided_by_the_whole_interval(interval, line, capsys):
    claims.finding("better than chance", *interval)
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("interval", [(-0.1, 0.0), (0.0, 0.0), (0.5, 0.5, 0.5)])
def test_an_interval_that_ends_at_the_bound_decides_nothing(interval, capsys):
    claims.finding("better than chance", *interval)
    assert capsys.readouterr().out == "undecided  better than chance\n"


@pytest.mark.parametrize(("low", "high"), [(NAN, 1.0), (0.0, NAN), (NAN, NAN), (0.2, 0.1)])
def test_what_is_no_interval_is_refused(low, high, capsys):
    with pytest.raises(ValueError, match=r"is no interval; claim: better than chance"):
        claims.finding("better than chance", low, high)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0.2, 0.01), "holds"), ((-0.2, 0.01), "does not hold"), ((0.2, 0.05), "undecided"), ((-0.2, 0.5), "undecided"),
        ((0.6, 0.01, 0.5), "holds"), ((0.4, 0.01, 0.5), "does not hold"), ((0.2, 0.03, 0.0, 0.01), "undecided"),
    ],
)  # fmt: skip
def test_a_test_decides_by_its_p_value_and_the_side(arguments, line, capsys):
    claims.tested("better than chance", *arguments)
    assert capsys.readouterr().out == f"{line}  better than chance\n"


@pytest.mark.parametrize("arguments", [(NAN, 0.1), (0.1, NAN), (0.1, 1.1), (0.1, -0.1)])
def test_a_test_without_numbers_is_refused(arguments, capsys):
    with pytest.raises(ValueError, match="claim: better"):
        claims.tested("better", *arguments)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("interval", "line"),
    [
        ((-0.01, 0.02), "holds"), ((-0.05, 0.02), "undecided"), ((0.0, 0.05), "undecided"), ((0.04, 0.2), "undecided"),
        ((0.06, 0.2), "does not hold"), ((-0.2, -0.06), "does not hold"), ((-0.2, 0.2), "undecided"),
    ],
)  # fmt: skip
def test_absence_needs_the_whole_interval_within_the_bound(interval, line, capsys):
    claims.equivalent("no difference", *interval, bound=0.05)
    assert capsys.readouterr().out == f"{line}  no difference\n"


@pytest.mark.parametrize("bound", [0.0, -1.0, NAN])
def test_a_bound_that_is_no_difference_is_refused(bound):
    with pytest.raises(ValueError, match="expected a difference above 0"):
        claims.equivalent("no difference", -0.1, 0.1, bound)
