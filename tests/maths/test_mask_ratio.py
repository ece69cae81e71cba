"""Scores as ratios of affine functions of a mask: softmax written out, moments by going through all masks, refusals."""

from itertools import product
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import normal, steady

from xai_utils.maths import mask_ratio


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def drawn(words=6, heads=3, seed=0):
    """Draw a ratio with uneven attention."""
    kept, dropped = (normal(heads, words, seed=seed + i).exp() for i in (0, 1))
    votes, hidden = normal(heads, words, seed=seed + 2), normal(heads, words, seed=seed + 3)
    fixed = normal(heads, seed=seed + 4).exp()
    return mask_ratio.Ratio(kept, kept * votes, dropped, dropped * hidden, fixed, fixed * normal(heads, seed=seed + 5))


def masks(words):
    """Every mask there is."""
    return torch.tensor(list(product((0, 1), repeat=words)))


# The ratio


def test_the_ratio_is_the_softmax_written_out():
    scores, votes, hidden, silent = (normal(3, 7, seed=i) for i in range(4))
    word_of = torch.tensor([-1, 0, 1, 0, 2, 3, 1])
    parts = mask_ratio.ratio(scores, votes, hidden, silent, word_of)
    for mask in masks(4):
        kept = torch.cat([torch.tensor([True]), mask[word_of[1:]].bool()])
        weights = torch.where(kept, scores, hidden).softmax(-1)
        same(mask_ratio.outputs(parts, mask[None])[0], (weights * torch.where(kept, votes, silent)).sum(-1))


def test_the_ratio_bears_large_scores():
    scores, votes = 500 * normal(2, 4), normal(2, 4, seed=1)
    parts = mask_ratio.ratio(scores, votes, scores, votes, torch.tensor([-1, 0, 1, 2]))
    found = mask_ratio.outputs(parts, torch.ones(1, 3))[0]
    same(found, (scores.softmax(-1) * votes).sum(-1))


def test_a_mask_of_shares_keeps_every_word_to_that_share():
    parts, share = drawn(), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    above, below = mask_ratio.both(parts, share[:, None].expand(-1, 6))
    whole, bare = parts.totals()
    same(below[[0, 2]], torch.stack([bare, whole]))
    same(below[1], 0.3 * whole + 0.7 * bare)
    same(mask_ratio.outputs(parts, share[:, None].expand(-1, 6)), above / below)


# Moments


@steady
@given(seed=st.integers(0, 999), words=st.integers(1, 7), heads=st.integers(1, 3))
def test_moments_are_the_means_over_all_masks(seed, words, heads):
    parts, weights = drawn(words, heads, seed), normal(2, words + 1, seed=seed).exp()
    every = masks(words)
    dropped = words - every.sum(1)
    chance = torch.tensor([1 / comb(words, int(size)) for size in dropped], dtype=torch.float64)
    psi = weights[:, dropped] * chance  # each size's weight, shared by its masks
    values = mask_ratio.outputs(parts, every)
    whole, single = mask_ratio.moments(parts, weights)
    same(whole, psi @ values, 1e-9 * float(values.abs().max() + 1) * float(psi.sum()))
    right = torch.einsum("km,mh,mj->khj", psi, values, every.double())
    same(single, right, 1e-9 * float(values.abs().max() + 1) * float(psi.sum()))


def test_heads_in_several_batches_give_the_same_moments():
    parts, weights = drawn(150, 3), torch.ones(1, 151, dtype=torch.float64)  # 20,000 / 150² is less than one head
    alone = [mask_ratio.Ratio(*(getattr(parts, n)[h : h + 1] for n in vars(parts))) for h in range(3)]
    whole, single = mask_ratio.moments(parts, weights)
    found = [mask_ratio.moments(one, weights) for one in alone]
    same(whole, torch.cat([one for one, _ in found], 1), 1e-10 * float(whole.abs().max()))
    same(single, torch.cat([one for _, one in found], 1), 1e-10 * float(single.abs().max()))


# Refusals


def test_a_ratio_needs_what_belongs_together():
    scores = normal(2, 4)
    with pytest.raises(ValueError, match="four of"):
        mask_ratio.ratio(scores, scores[:, :3], scores, scores, torch.tensor([-1, 0, 1, 2]))
    with pytest.raises(ValueError, match="one word at least"):
        mask_ratio.ratio(scores, scores, scores, scores, torch.tensor([-1, -1, -1, -1]))
    with pytest.raises(ValueError, match="NaN"):
        mask_ratio.ratio(scores * float("nan"), scores, scores, scores, torch.tensor([-1, 0, 1, 2]))
