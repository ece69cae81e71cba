"""AttCAT: loops over samples, heads and tokens, padding, the share of a word, refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import attention, normal, steady

from xai_utils.maths import attcat


def same(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@steady
@given(seed=st.integers(0, 999), layers=st.integers(1, 3), samples=st.integers(1, 3), tokens=st.integers(1, 5))
def test_attcat_is_the_loop_over_layers_samples_and_tokens(seed, layers, samples, tokens):
    maps = attention(layers, samples, 2, tokens, tokens, seed=seed, sharpness=2.0)
    hidden, gradient = (normal(layers, samples, tokens, 4, seed=seed + i) for i in (1, 2))
    position = torch.randint(tokens, (samples,), generator=torch.Generator().manual_seed(seed))
    found = attcat.attcat(attcat.paid(maps, position), attcat.cat(hidden, gradient))
    for layer in range(layers):
        for sample in range(samples):
            row = maps[layer, sample, :, position[sample]].mean(0)
            for token in range(tokens):
                activation = hidden[layer, sample, token] @ gradient[layer, sample, token]
                same(found[layer, sample, token], row[token] * activation)


def test_what_a_token_receives_is_the_mean_over_real_queries():
    maps, real = attention(2, 2, 3, 4, 4), torch.tensor([[True] * 4, [True, True, False, False]])
    found = attcat.received(maps, real)
    same(found[:, 0], maps[:, 0].mean((1, 2)))
    same(found[:, 1], maps[:, 1, :, :2].mean((1, 2)))
    same(found.sum(-1), torch.ones(2, 2, dtype=torch.float64))


def test_impact_counts_all_pieces_and_leaves_mask_out():
    scores = torch.tensor([[0.0, 9.0, -3.0, 1.0, 2.0]])
    mask = torch.tensor([[False, True, False, False, False]])
    where = torch.tensor([[False, False, True, True, False]])
    share, strongest = attcat.impact(scores, where, mask)
    assert share.item() == pytest.approx(4 / 6) and strongest.item()
    with pytest.raises(ValueError, match="does not hold the word"):
        attcat.impact(scores, torch.zeros_like(where), mask)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        attcat.cat(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        attcat.attcat(torch.ones(1, 1, 2), torch.ones(1, 1, 3))


def test_a_gradient_of_nan_is_refused():
    with pytest.raises(ValueError, match="gradient holds 6 of 6"):
        attcat.cat(torch.ones(1, 1, 2, 3), torch.full((1, 1, 2, 3), torch.nan))
