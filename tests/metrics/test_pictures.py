"""Marks against a known truth: properties, numbers worked out by hand, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import normal, steady

from xai_utils.metrics import area, average_precision, cover, hit, keep_masks, lift, mass_inside, removal_curve

NAN = float("nan")
METRICS = [mass_inside, lift, hit, average_precision]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def marked(draw, max_tokens=12):
    """Draw scores, some of them positive, and a truth with tokens on both sides."""
    tokens = draw(st.integers(2, max_tokens))
    scores = normal(tokens, seed=draw(st.integers(0, 9999)))
    scores[draw(st.integers(0, tokens - 1))] = 2.5
    inside = torch.tensor(draw(st.permutations([True, False, *draw(st.lists(st.booleans(), max_size=tokens - 2))])))
    return scores, torch.cat([inside, torch.zeros(tokens - len(inside), dtype=torch.bool)])


# Properties


@steady
@given(given_=marked(), data=st.data())
def test_the_order_of_tokens_does_not_matter(given_, data):
    scores, inside = given_
    order = torch.tensor(data.draw(st.permutations(range(len(scores)))))
    for metric in METRICS:
        assert metric(scores[order], inside[order]) == pytest.approx(metric(scores, inside), abs=1e-12)


@steady
@given(given_=marked(), factor=st.floats(1e-6, 1e6))
def test_the_unit_of_the_scores_does_not_matter(given_, factor):
    scores, inside = given_
    for metric in METRICS:
        assert metric(factor * scores, inside) == pytest.approx(metric(scores, inside), abs=1e-9)


@steady
@given(given_=marked())
def test_mass_is_inside_or_outside_and_negative_scores_have_none(given_):
    scores, inside = given_
    assert 0 <= mass_inside(scores, inside) <= 1
    assert mass_inside(scores, inside) + mass_inside(scores, ~inside) == pytest.approx(1, abs=1e-12)
    assert mass_inside(scores, inside) == mass_inside(scores.clamp(min=0), inside)


@steady
@given(given_=marked())
def test_a_uniform_map_is_no_better_than_uniform(given_):
    scores, inside = given_
    assert lift(torch.ones_like(scores), inside) == pytest.approx(1, abs=1e-12)
    assert average_precision(torch.ones_like(scores), inside) == pytest.approx(inside.double().mean().item())


@steady
@given(given_=marked())
def test_the_truth_is_the_best_map_and_its_opposite_the_worst(given_):
    _, inside = given_
    truth, share = inside.double(), inside.double().mean().item()
    assert mass_inside(truth, inside) == 1 and lift(truth, inside) == pytest.approx(1 / share)
    assert hit(truth, inside) is True and average_precision(truth, inside) == 1
    assert mass_inside(1 - truth, inside) == 0 and hit(1 - truth, inside) is False


@steady
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), columns=st.integers(1, 4), side=st.integers(1, 5))
def test_covers_keep_the_area_of_the_mask(seed, rows, columns, side):
    mask = np.random.default_rng(seed).random((rows * side, columns * (side + 1))) < 0.4
    mask[0, 0] = True
    found = cover(mask, (rows, columns))
    assert found.dtype == torch.float64 and found.shape == (rows * columns,)
    assert float(found.sum()) * side * (side + 1) == pytest.approx(mask.sum(), abs=1e-9)


# By hand


def test_covers_are_row_by_row():
    mask = np.zeros((4, 6), dtype=bool)
    mask[0, 4:] = mask[2:, :2] = mask[3, 2] = True
    assert cover(mask, (2, 3)).tolist() == [0, 0, 0.5, 1, 0.25, 0]
    assert cover(mask, (1, 2)).tolist() == [5 / 12, 2 / 12]


def test_mass_and_lift():
    scores = vector(3, 1, -4, 1)
    assert mass_inside(scores, torch.tensor([True, False, True, False])) == pytest.approx(0.6)
    assert lift(scores, torch.tensor([True, False, True, False])) == pytest.approx(1.2)
    assert mass_inside(scores, vector(0.5, 1, 1, 0)) == pytest.approx((1.5 + 1) / 5)
    assert lift(scores, vector(0.5, 1, 1, 0)) == pytest.approx(0.5 / 0.625)


def test_a_hit_needs_more_than_the_least_share():
    scores, inside = vector(1, 3, 2), vector(1, 0.2, 0)
    assert hit(scores, inside) is True and hit(scores, inside, least=0.1) is True
    assert hit(scores, inside, least=0.2) is False and hit(scores, inside, least=0.5) is False
    assert hit(-scores, inside, least=0.9) is True


def test_average_precision_counts_how_early_the_inside_comes():
    assert average_precision(vector(4, 3, 2, 1), torch.tensor([True, False, True, False])) == pytest.approx(5 / 6)
    assert average_precision(vector(1, 2, 3, 4), torch.tensor([True, False, False, False])) == pytest.approx(1 / 4)
    assert average_precision(vector(4, 3, 2, 1), vector(0.4, 0.6, 0.5, 1)) == pytest.approx((1 / 2 + 2 / 4) / 2)


# Refusals


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scores", "inside", "what"),
    [
        (vector(1, NAN), vector(1, 0), r"scores holds 1 of 2 .*\(1,\)"),
        (vector(1, 2, 3), vector(1, 0), r"scores \(3,\) and truth \(2,\)"),
        (vector(1, 2)[None], vector(1, 0)[None], r"scores \(1, 2\) .* two \(token,\) vectors"),
    ],
)
def test_scores_that_do_not_fit_the_truth_are_refused(metric, scores, inside, what):
    with pytest.raises(ValueError, match=what):
        metric(scores, inside)


@pytest.mark.parametrize("metric", [mass_inside, lift])
def test_scores_without_mass_are_refused(metric):
    with pytest.raises(ValueError, match="no score is positive"):
        metric(vector(-1, 0), vector(1, 0))


@pytest.mark.parametrize("inside", [vector(1, 1), vector(0, 0), vector(0.5, 0.2)])
def test_a_ranking_needs_two_sides(inside):
    with pytest.raises(ValueError, match="inside and tokens outside"):
        average_precision(vector(1, 2), inside)


def test_a_lift_needs_something_inside():
    with pytest.raises(ValueError, match="inside"):
        lift(vector(1, 2), vector(0, 0))


@pytest.mark.parametrize(("shape", "grid"), [((10, 10), (3, 5)), ((10, 10), (5, 3)), ((4, 4), (8, 8))])
def test_a_mask_that_does_not_divide_is_refused(shape, grid):
    with pytest.raises(ValueError, match="does not divide into a grid"):
        cover(np.ones(shape, dtype=bool), grid)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        cover(np.zeros((4, 4), dtype=bool), (2, 2))


# Deletion and insertion


def equal_steps(steps):
    return [step / steps for step in range(steps + 1)]


def test_masks_written_out():
    order = torch.tensor([3, 0, 2])  # token 1 is never removed
    gone = [[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]]
    back = [[0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
    assert keep_masks(order, 4, equal_steps(3)).int().tolist() == gone
    assert keep_masks(order, 4, equal_steps(3), insert=True).int().tolist() == back
    assert keep_masks(order, 4, (0, 1)).int().tolist() == [gone[0], gone[-1]]
    assert keep_masks(order, 4, (0, 0.6, 1)).int().tolist() == [gone[0], gone[2], gone[-1]]
    assert keep_masks(torch.arange(5), 5, (0, 0.5, 1)).sum(-1).tolist() == [5, 3, 0]  # round(2.5) is 2
    assert keep_masks(torch.arange(20), 20).sum(-1).tolist() == list(range(20, -1, -2))


@steady
@given(tokens=st.integers(1, 12), steps=st.integers(1, 15), seed=st.integers(0, 999))
def test_each_step_removes_more_and_insertion_is_the_opposite(tokens, steps, seed):
    order = normal(2, 3, tokens, seed=seed).argsort(-1)
    gone = keep_masks(order, tokens, equal_steps(steps))
    assert gone.shape == (2, 3, steps + 1, tokens) and gone[..., 0, :].all() and not gone[..., -1, :].any()
    assert (gone[..., 1:, :] <= gone[..., :-1, :]).all()
    assert torch.equal(keep_masks(order, tokens, equal_steps(steps), insert=True), ~gone)


def test_curves_of_a_sum_are_known_and_each_mask_is_asked_for_once():
    weights, asked = vector(5, 3, 2, 0), []

    def score(keep):
        asked.append(keep)
        return keep.double() @ weights

    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    assert removal_curve(score, orders, 4, equal_steps(4)).tolist() == [[10, 5, 2, 0, 0], [10, 10, 8, 5, 0]]
    assert removal_curve(score, orders, 4, equal_steps(4), insert=True).tolist() == [
        [0, 5, 8, 10, 10],
        [0, 0, 2, 5, 10],
    ]
    assert [len(keep) for keep in asked] == [8, 8]  # 10 masks, the first and the last of them twice


def test_area_by_hand():
    assert area(vector(1, 1, 1), equal_steps(2)).item() == 1 and area(vector(1, 0), (0, 1)).item() == 0.5
    assert area(torch.stack([vector(4, 2, 0), vector(0, 0, 4)]), equal_steps(2)).tolist() == [2, 1]
    assert area(vector(4, 2, 0), (0, 0.25, 1)).item() == 0.25 * 3 + 0.75 * 1


@pytest.mark.parametrize(("order", "words"), [
    ([0, 0], "names a token twice"), ([0, 3], "tokens 0 to 2"), ([-1, 0], "tokens 0 to 2"), ([], "tokens 0 to 2"),
])  # fmt: skip
def test_unusable_orders_are_refused(order, words):
    with pytest.raises(ValueError, match=words):
        keep_masks(torch.tensor(order, dtype=torch.long), 3)


@pytest.mark.parametrize("fractions", [(0,), (0, 0.5), (0.1, 1), (0, 0.7, 0.2, 1), (0, 0.5, 0.5, 1), (0, NAN, 1), ()])
def test_unusable_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions should rise from 0 to 1"):
        keep_masks(torch.tensor([0, 1]), 2, fractions)
    with pytest.raises(ValueError, match="fractions should rise from 0 to 1"):
        area(vector(1, 1), fractions)


def test_scores_of_nan_and_curves_of_another_length_are_refused():
    with pytest.raises(ValueError, match="scores holds 2 of 2"):
        removal_curve(lambda keep: torch.full((len(keep),), NAN), torch.tensor([0]), 1, (0, 1))
    with pytest.raises(ValueError, match="1 points does not belong to 11 fractions"):
        area(vector(1))
