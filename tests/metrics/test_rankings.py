"""Rankings: ties, shares, average precision against scikit-learn, the pointing game, refusals."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from strategies import normal

from xai_utils.evaluation.judged import chance
from xai_utils.metrics import rankings
from xai_utils.metrics.rankings import average_precision, hit, top, top_share

NOISE = torch.Generator().manual_seed(5)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


# Order and ties


def test_equal_scores_come_in_random_order_that_the_seed_fixes():
    flat = torch.ones(50)
    orders = [rankings.ranking(flat, seed).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(50))
    assert orders[0] != list(range(50))
    first = rankings.ranking(torch.tensor([0.0, 3.0, 0.0, 1.0]), 5).tolist()
    assert first[:2] == [1, 3]


def test_without_a_seed_the_earlier_of_equal_tokens_comes_first_and_rows_are_ranked_apart():
    scores = torch.stack([vector(1, 1, 1, 1), vector(1, 2, 3, 4)])
    assert rankings.ranking(scores, None).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert top(scores, 2).tolist() == [[True, True, False, False], [False, False, True, True]]
    many = normal(3, 20)
    assert torch.equal(rankings.ranking(many, 7), many.argsort(-1, descending=True))


def test_a_share_is_of_the_tokens_and_one_is_always_marked():
    scores = vector(3, 1, 2, -1)
    assert top_share(scores, 0.75, 0).tolist() == [True, True, True, False]
    assert top_share(scores, 0.01, 0).tolist() == [True, False, False, False]


def test_ties_are_broken_by_the_seed():
    flat = torch.zeros(40)
    marks = [top_share(flat, 0.25, seed) for seed in (0, 0, 1)]
    assert torch.equal(marks[0], marks[1]) and not torch.equal(marks[0], marks[2])
    assert {int(one.sum()) for one in marks} == {10} and top_share(flat, 0.001, 0).sum() == 1


# Average precision and pointing


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_is_scikit_learns_ties_included(levels):
    scores = torch.randint(levels, (30, 80), generator=NOISE).double()
    truth = torch.rand(30, 80, generator=NOISE) > 0.6
    expected = [average_precision_score(t, s) for s, t in zip(scores, truth, strict=True)]
    np.testing.assert_allclose(rankings.average_precisions(scores, truth), expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=5))
def test_equal_scores_count_as_the_mean_over_all_their_orders(drawn):
    scores, inside = torch.tensor([one for one, _ in drawn]).double(), torch.tensor([one for _, one in drawn])
    assume(inside.any() and not inside.all())
    orders = {tuple(sorted(one, key=lambda i: -scores[i])) for one in permutations(range(len(scores)))}
    every = [average_precision_score(inside[list(one)], -np.arange(len(one))) for one in orders]
    assert average_precision(scores, inside) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_many_rankings_of_the_same_tokens_are_single_ones(levels):
    scores, inside = torch.randint(levels, (6, 30), generator=NOISE), torch.rand(30, generator=NOISE)
    each = [average_precision(one, inside) for one in scores]
    assert rankings.precision_of_rows(scores, inside).tolist() == pytest.approx(each)
    with pytest.raises(ValueError, match="NaN"):
        rankings.precision_of_rows(torch.stack([torch.ones(30), torch.full((30,), float("nan"))]), inside)


def test_a_constant_map_gets_what_chance_gives():
    inside = torch.arange(40) % 5 == 0
    assert average_precision(torch.ones(40), inside) == pytest.approx(chance(40, 8))
    assert average_precision(torch.ones(40), inside) > inside.double().mean()


def test_a_ranking_of_one_kind_only_is_not_judged():
    truth = torch.tensor([[True, True], [False, False], [True, False]])
    assert rankings.average_precisions(torch.rand(3, 2), truth).isnan().tolist() == [True, True, False]


def test_average_precision_counts_how_early_the_inside_comes():
    assert average_precision(vector(4, 3, 2, 1), torch.tensor([True, False, True, False])) == pytest.approx(5 / 6)
    assert average_precision(vector(1, 2, 3, 4), torch.tensor([True, False, False, False])) == pytest.approx(1 / 4)
    assert average_precision(vector(4, 3, 2, 1), vector(0.4, 0.6, 0.5, 1)) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_a_hit_needs_more_than_the_least_share():
    scores, inside = vector(1, 3, 2), vector(1, 0.2, 0)
    assert hit(scores, inside) is True and hit(scores, inside, least=0.1) is True
    assert hit(scores, inside, least=0.2) is False and hit(scores, inside, least=0.5) is False
    assert hit(-scores, inside, least=0.9) is True


def test_many_hits_are_single_ones():
    scores, inside = normal(6, 9), normal(6, 9, seed=1) > 0.3
    assert rankings.hits(scores, inside).tolist() == [hit(*one) for one in zip(scores, inside, strict=True)]


# Refusals


@pytest.mark.parametrize("inside", [vector(1, 1), vector(0, 0), vector(0.5, 0.2)])
def test_a_ranking_needs_two_sides(inside):
    with pytest.raises(ValueError, match="inside and tokens outside"):
        average_precision(vector(1, 2), inside)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rankings.ranking(vector(1, float("nan")), 0), "NaN"),
        (lambda: rankings.ranking(torch.ones(0), 0), "at least one"),
        (lambda: top(torch.ones(3), 4), "count is 4, expected 1 to 3"),
        (lambda: top_share(torch.ones(3), 0.0, 0), "share is 0"),
        (lambda: top_share(torch.ones(3), 1.5, 0), "share is 1.5"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
