"""Mixing: properties, loops over tokens and heads, refusals."""

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SAMPLES, attention, attention_stacks, normal, steady

from xai_utils.maths.rollout import mixing_ratio, rollout, untouched_share


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def parts(*axes, tokens=5, heads=3, width=4, seed=0):
    """Draw attention, values and hidden states that belong together."""
    return (
        attention(*axes, heads, tokens, tokens, seed=seed, sharpness=2.0),
        normal(*axes, heads, tokens, width, seed=seed + 1),
        normal(*axes, tokens, width, seed=seed + 2),
    )


# Properties of the mixing ratio


@steady
@given(seed=st.integers(0, 999), tokens=st.integers(1, 6), heads=st.integers(1, 3), width=st.integers(1, 5))
def test_the_ratio_is_a_share(seed, tokens, heads, width):
    found = mixing_ratio(*parts(2, 3, tokens=tokens, heads=heads, width=width, seed=seed))
    assert found.shape == (2, 3, tokens) and (found >= 0).all() and (found <= 1).all()
    if tokens == 1:
        same(found, torch.zeros_like(found))


def test_a_token_that_reads_only_itself_is_not_mixed():
    _, values, hidden = parts(2)
    identity = torch.eye(5, dtype=torch.float64).expand(2, 3, 5, 5)
    same(mixing_ratio(identity, values, hidden), torch.zeros(2, 5, dtype=torch.float64))


def test_a_token_that_keeps_nothing_of_itself_is_replaced():
    maps, values, _ = parts(2, tokens=2)
    maps = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).expand_as(maps)
    same(mixing_ratio(maps, values, torch.zeros(2, 2, 4, dtype=torch.float64)), torch.ones(2, 2, dtype=torch.float64))


def test_one_head_by_hand():
    maps = torch.tensor([[[[0.25, 0.75], [0.5, 0.5]]]], dtype=torch.float64)
    values = torch.tensor([[[[4.0, 0.0], [0.0, 8.0]]]], dtype=torch.float64)
    hidden = torch.tensor([[[2.0, 4.0], [0.0, 1.0]]], dtype=torch.float64)
    # context of token 0: .75 (0, 8), length 6; kept (2, 4) + .25 (4, 0) = (3, 4), length 5; of token 1: 2 and 5
    same(mixing_ratio(maps, values, hidden), torch.tensor([[6 / 11, 2 / 7]], dtype=torch.float64))


@steady
@given(seed=st.integers(0, 999), factor=st.floats(0.01, 100), data=st.data())
def test_units_directions_and_names_do_not_matter(seed, factor, data):
    maps, values, hidden = parts(2, seed=seed)
    found = mixing_ratio(maps, values, hidden)
    same(mixing_ratio(maps, factor * values, factor * hidden), found)
    turn = torch.linalg.qr(normal(4, 4, seed=seed)).Q
    same(mixing_ratio(maps, values @ turn, hidden @ turn), found)
    order = torch.tensor(data.draw(st.permutations(range(5))))
    same(mixing_ratio(maps[..., order, :][..., order], values[..., order, :], hidden[..., order, :]), found[..., order])
    heads = data.draw(st.permutations(range(3)))
    same(mixing_ratio(maps[:, heads], values[:, heads], hidden), found)


def test_a_batch_gives_what_a_loop_gives():
    batch = parts(3, 4)
    found = mixing_ratio(*batch)
    for sample in range(4):
        same(found[:, sample], mixing_ratio(*(part[:, sample] for part in batch)), atol=1e-15)


# Properties of the untouched share


@steady
@given(maps=attention_stacks(axes=SAMPLES), residual=st.floats(0.01, 1))
def test_the_untouched_share_is_a_share_and_cannot_exceed_the_walk(maps, residual):
    found = untouched_share(rollout(maps, residual), residual)
    assert found.shape == maps.shape[:-1] and (found > 0).all() and (found <= 1 + 1e-12).all()


@steady
@given(layers=st.integers(1, 6), tokens=st.integers(1, 9), residual=st.floats(0.01, 1))
def test_uniform_attention_has_a_closed_form(layers, tokens, residual):
    even = torch.full((layers, 2, tokens, tokens), 1 / tokens, dtype=torch.float64)
    kept = residual ** torch.arange(1, layers + 1, dtype=torch.float64)[:, None, None].expand(-1, 2, tokens)
    same(untouched_share(rollout(even, residual), residual), kept / (kept + (1 - kept) / tokens))


def test_attention_that_never_looks_at_itself_leaves_one_path():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)[None]
    same(untouched_share(rollout(swap)), torch.ones(1, 2, dtype=torch.float64))


def test_without_a_skip_connection_nothing_is_untouched():
    same(untouched_share(rollout(attention(3, 4, 4), 0.0), 0.0), torch.zeros(3, 4, dtype=torch.float64))


def test_without_a_skip_connection_nothing_is_untouched_even_of_a_swap():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)[None]
    same(untouched_share(rollout(swap, 0.0), 0.0), torch.zeros(1, 2, dtype=torch.float64))


def test_what_is_no_rollout_has_no_untouched_share():
    for wrong, what in ((float("nan"), "NaN or infinite"), (-0.5, "negative entries")):
        with pytest.raises(ValueError, match=what):
            untouched_share(torch.full((1, 2, 2), wrong))


# Slow and literal


@pytest.mark.parametrize("seed", range(5))
def test_the_ratio_equals_loops_over_tokens_and_heads(seed):
    maps, values, hidden = parts(2, tokens=4, heads=2, width=3, seed=seed)
    same(mixing_ratio(maps, values, hidden), oracles.mixing_ratio(maps, values, hidden))


@pytest.mark.parametrize("residual", [0.2, 0.5, 1.0])
def test_the_untouched_share_is_the_one_path_without_attention(residual):
    maps = attention(3, 3, 3)
    rolled, identity = oracles.rollout(maps, residual), torch.eye(3, dtype=torch.float64)
    step = residual * identity
    only = torch.stack([step, step @ step, step @ step @ step])
    same(untouched_share(rolled, residual), (only / rolled).diagonal(dim1=-2, dim2=-1))


# Refusals


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_parts_of_different_models_are_refused(wrong):
    mixed = list(parts(2))
    mixed[wrong] = parts(2, tokens=6)[wrong]
    with pytest.raises(ValueError, match="do not belong together: expected"):
        mixing_ratio(*mixed)


def test_values_that_are_not_finite_are_refused():
    maps, values, hidden = parts(2)
    values[1, 2, 3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"values holds 1 .*\(1, 2, 3, 0\)"):
        mixing_ratio(maps, values, hidden)


@pytest.mark.parametrize("wrong", [0, 2])
def test_maps_and_states_that_are_not_finite_are_refused(wrong):
    broken = list(parts(2))
    broken[wrong][0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        mixing_ratio(*broken)


def test_maps_with_another_number_of_keys_are_refused():
    maps, values, hidden = parts(2)
    with pytest.raises(ValueError, match="do not belong together"):
        mixing_ratio(maps[..., :4], values, hidden)


def test_a_share_outside_and_a_single_map_are_refused():
    with pytest.raises(ValueError, match=r"residual is 1\.5"):
        untouched_share(rollout(attention(2, 3, 3)), 1.5)
    with pytest.raises(ValueError, match=r"maps\[None\]"):
        untouched_share(attention(3, 3))
