"""What removal says of a map: numbers of the original codes, properties, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import normal, steady

from xai_utils.metrics import removal_curves
from xai_utils.metrics.rankings import ranking
from xai_utils.metrics.removal_curves import QUARTERS, area, keep_masks, removal_curve

STORED = {name: torch.from_numpy(np.asarray(values)) for name, values in np.load(GOLDEN / "metrics.npz").items()}
NAN = float("nan")


def same(left, right, atol=1e-12):
    left, right = (torch.as_tensor(one, dtype=torch.float64) for one in (left, right))
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def of_prediction(name):
    """Read ``(sample, ...)`` probabilities of each sample's predicted class."""
    return torch.stack([row[..., c] for row, c in zip(STORED[name], STORED["er_pred"].tolist(), strict=True)])


# Golden numbers


def test_comprehensiveness_and_sufficiency_are_erasers():
    full = of_prediction("er_prob_full")
    for name, short, of in (
        ("comprehensiveness", "comp", removal_curves.comprehensiveness),
        ("sufficiency", "suff", removal_curves.sufficiency),
    ):
        same(of(full, of_prediction(f"er_prob_{short}_hard")).mean(), STORED[f"er_{name}"])
        bins = of_prediction(f"er_prob_{short}")
        same(of(full, bins).mean(), STORED[f"er_{name}_aopc"])
        same((full[:, None] - bins).mean(0), STORED[f"er_{name}_aopc_points"])


def test_aopc_is_the_signed_one_and_log_odds_the_ratio_of_probabilities():
    full, steps = STORED["ac_p0"], STORED["ac_pk"]
    same(removal_curves.aopc(full, steps).mean(), STORED["ac_aopc_signed"])
    same((full[:, None] - steps).abs().mean(), STORED["ac_aopc_original_abs"])  # the defect: another number
    assert abs(STORED["ac_aopc_signed"] - STORED["ac_aopc_original_abs"]) > 0.04
    same(removal_curves.log_odds(full, steps).mean(), STORED["ac_lodds"])


def asked(keep):
    """Answer from the table of all subsets of six tokens."""
    return STORED["tb_probs"][(keep.long() << torch.arange(keep.shape[1])).sum(1)]


def test_curves_and_their_areas_are_those_of_the_table():
    order, sixths = STORED["tb_order"], tuple(STORED["tb_x"].tolist())
    same(ranking(STORED["tb_scores"], 0), order)
    both = torch.stack([order, order.flip(0)])
    morf, lerf = removal_curve(asked, both, 6, sixths)
    same(morf, STORED["tb_deletion_curve"])
    same(lerf, STORED["tb_deletion_curve_lerf"])
    same(lerf.flip(0), STORED["tb_insertion_curve"])
    same(removal_curves.deletion(morf, sixths), STORED["tb_deletion_auc"])
    same(removal_curves.insertion(lerf, sixths), STORED["tb_insertion_auc"])
    same(removal_curves.delta_af(morf, lerf, sixths), STORED["tb_lerf_minus_morf_auc"])
    full = morf[0]
    same(removal_curves.comprehensiveness(full, morf[1:]), STORED["tb_comprehensiveness_mean"])
    same(full - morf, STORED["tb_comprehensiveness_k"])
    same(full - lerf.flip(0), STORED["tb_sufficiency_k"])
    same(removal_curves.sufficiency(full, lerf[:-1]), STORED["tb_sufficiency_mean"])


@pytest.mark.parametrize("kind", ["eq", "uneq"])
def test_areas_are_trapezoids_over_the_fractions(kind):
    x, y = STORED[f"cv_{kind}_x"], STORED[f"cv_{kind}_y"]
    same(removal_curves.deletion(y, tuple(x.tolist())), STORED[f"cv_{kind}_auc"])
    assert abs(STORED[f"cv_{kind}_auc_dx1"] - STORED[f"cv_{kind}_auc"]) > 1  # Quantus: steps of length one


# Properties


@pytest.mark.parametrize("seed", range(4))
def test_insertion_is_the_curve_of_removal_read_backwards(seed):
    weights, scores = normal(8, seed=seed), normal(8, seed=seed + 50)
    ask = lambda keep: torch.sigmoid(keep.double() @ weights)  # noqa: E731
    order = ranking(scores, 0)
    inserted = removal_curve(ask, order, 8, QUARTERS, insert=True)
    lerf = removal_curve(ask, order.flip(0), 8, QUARTERS)
    same(area(inserted, QUARTERS), removal_curves.insertion(lerf))


@pytest.mark.parametrize("seed", range(3))
def test_the_right_map_of_an_additive_model_is_best_by_every_metric(seed):
    weights = normal(8, seed=seed)
    ask = lambda keep: torch.sigmoid(keep.double() @ weights)  # noqa: E731

    def marks(scores):
        keep = removal_curves.keep_both(scores, torch.arange(8), 8, QUARTERS, 0)
        morf, lerf = (ask(one) for one in keep)
        drops = removal_curves.random_removals(torch.arange(8), 8, 40, seed)
        gone = removal_curves.infidelity(scores, ~drops, weights.sum() - drops.double() @ weights)
        return (
            float(removal_curves.delta_af(morf, lerf)), float(removal_curves.aopc(morf[0], morf[1:])),
            -float(removal_curves.deletion(morf)), -float(removal_curves.log_odds(morf[0], morf[1:])), -gone,
        )  # fmt: skip

    right = marks(weights)
    assert right[-1] == pytest.approx(0, abs=1e-12)
    for other in range(20):
        assert all(one >= two - 1e-12 for one, two in zip(right, marks(normal(8, seed=100 + other)), strict=True))
    assert marks(-weights)[-1] == -1 and marks(-weights)[0] == pytest.approx(-right[0])


def test_sparseness_of_known_maps():
    same(removal_curves.sparseness(torch.ones(7)), 0.0)
    one = torch.zeros(10)
    one[3] = -2
    same(removal_curves.sparseness(one), 0.9)
    values = normal(9, seed=1)
    pairwise = (values.abs()[:, None] - values.abs()).abs().sum() / (2 * 9 * values.abs().sum())
    same(removal_curves.sparseness(values), pairwise)  # half the mean difference of two tokens, over the mean


def test_max_sensitivity_is_the_largest_relative_change():
    scores = torch.tensor([3.0, 4.0])
    same(removal_curves.max_sensitivity(scores, torch.tensor([[3.0, 4.0], [3.0, 5.0], [0.0, 4.0]])), 0.6)


def test_random_removals_leave_other_tokens_alone():
    places = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    keep = removal_curves.random_removals(places, 10, 60, 3)
    assert keep[:, [0, 9]].all()
    gone = (~keep).sum(1)
    assert gone.min() >= 1 and gone.max() <= 4 and len(set(gone.tolist())) > 2


# Steps of removal


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


# Refusals


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: removal_curves.log_odds(torch.ones(2), torch.zeros(2, 3)), "above 0"),
        (lambda: removal_curves.aopc(torch.ones(2), torch.ones(3, 4)), "expected the same"),
        (lambda: removal_curves.aopc(torch.ones(2), torch.full((2, 3), NAN)), "NaN"),
        (
            lambda: removal_curves.infidelity(torch.ones(3), torch.ones(4, 3).bool(), torch.zeros(4)),
            "nothing to explain",
        ),
        (lambda: removal_curves.max_sensitivity(torch.zeros(3), torch.ones(2, 3)), "zero"),
        (lambda: removal_curves.sparseness(torch.zeros(3)), "zero"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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


def weighted(keep):
    return (keep * torch.arange(1.0, 9.0, dtype=torch.float64)).sum(-1)


def test_the_best_order_is_rarely_met_at_random_and_the_worst_always():
    best, steps = torch.arange(1.0, 9.0), tuple(n / 8 for n in range(9))
    maps = torch.stack([best, -best])
    found = removal_curves.beside_random(weighted, maps, torch.arange(8), 8, steps, draws=199, seed=1)
    assert found.p.tolist() == pytest.approx([1 / 200, 1]) and found.random.shape == (199, 9)
    own = removal_curve(weighted, torch.arange(8).flip(0), 8, steps)
    assert torch.equal(found.curves[0], own) and (found.random[:, 0] == 36).all()
    assert (found.random.mean(0) - torch.linspace(36, 0, 9)).abs().max() < 1  # on average a straight line


def test_a_constant_map_is_as_good_as_a_random_order():
    found = [removal_curves.beside_random(weighted, torch.ones(1, 8), torch.arange(8), 8, seed=n).p for n in range(60)]
    assert 0.35 < torch.cat(found).mean() < 0.65


def test_no_random_order_compares_nothing():
    with pytest.raises(ValueError, match="draws"):
        removal_curves.beside_random(weighted, torch.ones(1, 8), torch.arange(8), 8, draws=0)
