"""Erasing what a linear reader finds: the means meet, the least is moved, and nothing else changes."""

import numpy as np
import pytest
import torch

from xai_utils.gender import erasure

SAME = torch.testing.assert_close


def sides(seed=0, count=400, width=5):
    """Return two sets of correlated points around different means."""
    noise = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=noise, dtype=torch.float64)
    first, second = torch.randn(2, count, width, generator=noise, dtype=torch.float64) @ mixing
    first[:, 0] += 3
    return first, second


def test_a_projection_zeroes_one_coordinate_and_keeps_what_is_across():
    vector, states = torch.tensor([3.0, 4.0]).double(), torch.tensor([[[3.0, 4.0], [-4.0, 3.0]]]).double()
    SAME(erasure.projection(vector)(states), torch.tensor([[[0.0, 0.0], [-4.0, 3.0]]]).double())
    for bad in (torch.zeros(2), torch.full((2,), torch.nan)):
        with pytest.raises(ValueError, match="zero or NaN"):
            erasure.projection(bad)


def test_leace_makes_the_means_meet_and_is_the_least_change_that_does():
    first, second = sides()
    both, change = torch.cat([first, second]), erasure.leace(first, second)
    after = change(both)
    SAME(after[: len(first)].mean(0), after[len(first) :].mean(0), atol=1e-9, rtol=0)
    SAME(after.mean(0), both.mean(0), atol=1e-9, rtol=0)
    SAME(change(after), after, atol=1e-9, rtol=0)
    moved = (after - both).square().sum()
    assert moved < (erasure.projection(first.mean(0) - second.mean(0))(both) - both).square().sum()
    noise = np.random.default_rng(0)
    for _ in range(20):  # any other reader of the same difference moves more
        reader = change.reader + torch.from_numpy(0.2 * noise.normal(size=5))
        other = erasure.Erasure(change.along, reader / (reader @ change.along), change.centre)
        assert (other(both) - both).square().sum() > moved


def test_leace_is_that_of_the_paper():
    """Theorem 4.3: x - W⁺ P W (x - μ), W the whitening matrix and P the projection on W's image of the difference."""
    first, second = sides(1)
    both = torch.cat([first, second])
    values, vectors = torch.linalg.eigh(both.T.cov())
    whiten, back = (vectors @ torch.diag(values**power) @ vectors.T for power in (-0.5, 0.5))
    across = whiten @ (first.mean(0) - second.mean(0))
    project = torch.outer(across, across) / (across @ across)
    expected = both - (both - both.mean(0)) @ (back @ project @ whiten).T
    SAME(erasure.leace(first, second)(both), expected, atol=1e-9, rtol=0)


def test_the_states_around_decide_what_is_least():
    first, second = sides()
    around = sides(2)[0] * torch.tensor([5.0, 1, 1, 1, 1]).double() + 1
    change = erasure.leace(first, second, around)
    SAME(change(first).mean(0), change(second).mean(0), atol=1e-9, rtol=0)
    SAME(change.centre, around.mean(0))
    least = (change(around) - around).square().sum()
    assert least < (erasure.leace(first, second)(around) - around).square().sum()


def test_sets_that_cannot_be_compared_are_refused():
    first, second = sides()
    with pytest.raises(ValueError, match="expected one of both"):
        erasure.leace(first, second[:3])
    with pytest.raises(ValueError, match="nothing to erase"):
        erasure.leace(first, first.clone())
    with pytest.raises(ValueError, match="finite"):
        erasure.leace(first, second * torch.nan)
