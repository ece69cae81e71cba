"""Words held out: areas, their null, and what is left when a direction is removed."""

import numpy as np
import pytest
import torch

from xai_utils import claims
from xai_utils.gender import held_out
from xai_utils.gender.vectors import Vectors


def sides(apart, seed=0, groups=12):
    """Return vectors of 12 pairs of words, 5 sentences each, whose sides are ``apart`` along the first axis."""
    noise = torch.Generator().manual_seed(seed)
    male, female = torch.randn(2, 1, 60, 4, generator=noise)
    male[..., 0] += apart
    return Vectors(male, female, np.arange(60) % groups)


def test_the_area_is_that_of_scikit_learn_and_its_null_changes_whole_pairs():
    from sklearn.metrics import roc_auc_score

    noise = np.random.default_rng(0)
    male, female, group = noise.normal(0.5, 1, 60), noise.normal(size=60), np.arange(60) % 12
    one = held_out.separation(male, female, group, 0, 400)
    area = one.found
    assert area.mean == pytest.approx(roc_auc_score([1] * 60 + [0] * 60, [*male, *female])) and area.n == 12
    swapped = group % 2 == 1
    turned = held_out.separation(np.where(swapped, female, male), np.where(swapped, male, female), group, 0, 400)
    assert (turned.low, turned.high) == pytest.approx((one.low, one.high), abs=0.05), "the null depends on the sides"
    assert one.low < 0.5 < one.high and area.low < area.mean < area.high
    assert one.p < 0.05 < held_out.separation(male, male[::-1].copy(), group, 0, 400).p
    with pytest.raises(ValueError, match="two groups"):
        held_out.separation(male, female, np.zeros(60), 0)


def test_a_direction_carries_over_where_there_is_one_and_not_where_there_is_none():
    one = held_out.carries_over(sides(5.0), 0, 0, 200)
    assert one.found.mean > 0.98 and one.found.low > one.high
    assert held_out.carries_over(sides(0.0), 0, 0, 200).found.mean < 0.75
    with pytest.raises(ValueError, match="nothing can be held out"):
        held_out.carries_over(sides(5.0, groups=1), 0, 0)


def test_what_is_left_is_nothing_of_a_shift_and_something_of_a_ring():
    nothing = held_out.left_over(sides(5.0), 0, 0, 200)
    assert nothing.found.low < nothing.high and nothing.found.n == 6
    ring = sides(0.5)
    ring.female[..., 1:] *= 0.1  # the sides differ in their spread, which no direction shows
    one = held_out.left_over(ring, 0, 0, 200)
    assert one.found.mean > 0.9 and one.found.low > one.high


def test_a_wrong_extraction_is_compared_with_the_right_one_layer_by_layer():
    right = sides(5.0)
    wrong = Vectors(right.male.roll(1, -1), right.female.roll(1, -1), right.group)
    rays, wrong_rays = right.rays()[0], wrong.rays()[0]
    table = held_out.reenacted(right, wrong, rays, wrong_rays, 0)
    assert table.index.tolist() == [0] and table["angle"][0] > 60
    assert table["held-out area"][0] == pytest.approx(held_out.carries_over(right, 0, 0, 9).found.mean)
    assert table["area, as published"][0] < 0.8 and table["gap"][0] > 4 > table["gap, as published"][0]
    same = held_out.reenacted(right, right, rays, rays, 0)
    assert same["angle"][0] < 0.1 and same["area, as published"][0] == same["held-out area"][0]


@pytest.mark.parametrize(
    ("fault", "said"), [("none", "holds"), ("swapped", "does not hold"), ("shuffled", "undecided")]
)
def test_held_out_words_on_the_wrong_side_are_seen(capsys, fault, said):
    given = sides(5.0, groups=20)
    wrong = {"none": (), "swapped": range(1, 20, 2), "shuffled": (1, 5, 9, 13, 17)}[fault]
    bad = torch.from_numpy(np.isin(given.group, list(wrong)))[:, None]
    turned = Vectors(
        torch.where(bad, given.female, given.male), torch.where(bad, given.male, given.female), given.group
    )
    one = held_out.carries_over(turned, 0, 0, 999)
    claims.tested("held-out words are apart", one.found.mean, one.p, 0.5)
    assert capsys.readouterr().out.startswith(said)
