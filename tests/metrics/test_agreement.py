"""Agreement of two rankings: SciPy's numbers, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from scipy.stats import spearmanr
from strategies import steady

from xai_utils.metrics import agreement
from xai_utils.metrics.agreement import dense_spearman, kendall, spearman, top_overlap

STORED = np.load(GOLDEN / "selective.npz")
CASES = ("ties5", "ties3", "mild", "cont", "binary_vs_cont")
NAN = float("nan")


def drawn(seed, *shape, levels=0):
    noise = np.random.default_rng(seed)
    return noise.integers(0, levels, shape).astype(float) if levels else noise.normal(size=shape)


@pytest.mark.parametrize("case", CASES)
def test_golden_numbers(case):
    one, other = STORED[f"sp_{case}_x"], STORED[f"sp_{case}_y"]
    assert float(spearman(one, other)) == pytest.approx(float(STORED[f"sp_{case}_scipy"]), abs=1e-12)
    assert dense_spearman(one, other) == pytest.approx(float(STORED[f"sp_{case}_dense"]), abs=1e-12)
    assert kendall(one, other) == pytest.approx(float(STORED[f"kt_{case}_scores"]), abs=1e-12)


@steady
@given(seed=st.integers(0, 999), levels=st.sampled_from([0, 4, 9]))
def test_many_at_once_are_scipys_one_by_one(seed, levels):
    one, other = drawn(seed, 5, 30, levels=levels), drawn(seed + 1, 30, levels=levels)
    wanted = [spearmanr(row, other).statistic for row in one]
    np.testing.assert_allclose(spearman(one, other), wanted, atol=1e-12)


@steady
@given(seed=st.integers(0, 999))
def test_only_the_order_matters(seed):
    one, other = drawn(seed, 2, 12)
    found = spearman(one, other)
    assert -1 <= found <= 1 and spearman(other, one) == pytest.approx(found)
    np.testing.assert_allclose(spearman(np.exp(one), -other), -found, atol=1e-12)
    assert spearman(one, 3 * one + 1) == pytest.approx(1)
    assert top_overlap(one, np.exp(one), 4) == 1


def test_overlap_by_hand():
    assert top_overlap([4, 3, 2, 1], [1, 4, 3, 2], 2) == 0.5
    assert top_overlap([4, 3, 2, 1], [1, 2, 3, 4], 2) == 0
    assert top_overlap([1, 1, 1, 1], [4, 3, 2, 1], 2) == 1  # of equal scores the earlier
    np.testing.assert_array_equal(top_overlap([[4, 3, 2, 1], [1, 2, 3, 4]], [4, 3, 2, 1], 1), [1, 0])


def test_the_overlap_of_unrelated_rankings_is_chance():
    found = top_overlap(drawn(0, 4000, 10), drawn(1, 4000, 10), 3)
    assert found.mean() == pytest.approx(0.3, abs=0.02)


# Over sentences


def test_agreement_is_found_where_it_is_and_not_where_it_is_not():
    noise = np.random.default_rng(0)
    one = [noise.normal(size=n) for n in (5, 6, 7) * 10]
    same = agreement.matched(one, [x + 0.1 * noise.normal(size=len(x)) for x in one], 0, 199)
    other = agreement.matched(one, [noise.normal(size=len(x)) for x in one], 0, 199)
    assert same.found.low > 0.8 and same.p == pytest.approx(1 / 200)
    assert other.low < other.found.mean < other.high and other.p > 0.05
    alike = [np.arange(6.0) + 0.1 * noise.normal(size=6) for _ in range(30)]
    own, shared = (agreement.matched(alike, [-x for x in alike], 0, 199, together) for together in (False, True))
    assert shared.high > 3 * own.high, "sentences of one template passed for independent ones"
    turned = agreement.matched(one, [-x for x in one], 0, 199)
    assert turned.found.mean == pytest.approx(-1) and turned.p == pytest.approx(1 / 200)


def test_a_rank_correlation_has_an_interval():
    x = np.arange(30.0)
    found = agreement.rank_interval(x, x + np.random.default_rng(0).normal(scale=8, size=30), 0, 300)
    assert 0 < found.low < found.mean < found.high <= 1 and found.n == 30


def test_groups_differ_where_they_do():
    noise = np.random.default_rng(0)
    one, other = noise.normal(1.5, 1, 20), noise.normal(size=12)
    found, p = agreement.group_difference(one, other, 0)
    assert found.mean == pytest.approx(one.mean() - other.mean()) and found.n == 32
    assert 0 < found.low < found.mean < found.high and p < 0.01
    null, chance = agreement.group_difference(other, -other + 2 * other.mean(), 0)
    assert null.low < 0 < null.high and chance > 0.05


# Refusals


@pytest.mark.parametrize("function", [spearman, kendall])
@pytest.mark.parametrize(
    ("one", "what"),
    [([1.0, NAN], "finite scores"), ([2.0], "at least two tokens"), ([3.0, 3.0], "all scores of a sample are equal")],
)
def test_what_ranks_nothing_is_refused(function, one, what):
    with pytest.raises(ValueError, match=what):
        function(one, np.arange(float(len(one))) if len(one) > 1 else one)


def test_other_tokens_are_refused():
    with pytest.raises(ValueError, match="one has 3 tokens, the other 4"):
        spearman([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="count is 4, expected 1 to 3"):
        top_overlap([1, 2, 3], [1, 2, 3], 4)


def test_the_published_formula_is_right_without_ties_and_wrong_with_them():
    one, other = drawn(0, 2, 20)
    assert dense_spearman(one, other) == pytest.approx(float(spearman(one, other)), abs=1e-12)
    assert abs(float(STORED["sp_ties5_dense"] - STORED["sp_ties5_scipy"])) > 0.5
