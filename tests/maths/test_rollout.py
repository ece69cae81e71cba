"""Rollout: properties, a sum over all paths, the numbers of two published programs, refusals."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import SAMPLES, SAMPLES_AND_HEADS, attention, attention_stacks, normal, steady

from xai_utils import methods
from xai_utils.maths.rollout import (
    FUSIONS,
    drop_smallest,
    fuse,
    gradient_weighted,
    mix,
    mixing_ratio,
    rank_collapse,
    renormalise,
    rollout,
    rollout_row,
    skip_share,
    untouched_share,
    without_key,
)

SHARES = st.floats(0, 1)
DISCARDS = st.sampled_from([0.0, 0.3, 0.5, 0.9])


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


def renamed(maps, order):
    return maps[..., order, :][..., order]


# Properties of a rollout


@steady
@given(maps=attention_stacks(axes=SAMPLES), residual=SHARES, rescale=st.booleans())
def test_rows_stay_probabilities(maps, residual, rescale):
    out = rollout(maps, residual, rescale)
    assert out.shape == maps.shape and (out >= 0).all()
    same(out.sum(-1), ones(out.shape[:-1]))


@steady
@given(maps=attention_stacks(), residual=st.floats(0, 0.9))
def test_two_halves_compose(maps, residual):  # catches the reversed product, whose rows sum to 1 as well
    cut = len(maps) // 2
    assume(cut > 0)
    below, above = rollout(maps[:cut], residual)[-1], rollout(maps[cut:], residual)[-1]
    same(rollout(maps, residual)[-1], above @ below)


@steady
@given(maps=attention_stacks(), data=st.data())
def test_renaming_tokens_renames_the_result(maps, data):
    order = torch.tensor(data.draw(st.permutations(range(maps.shape[-1]))))
    same(rollout(renamed(maps, order)), renamed(rollout(maps), order))


@steady
@given(layers=st.integers(1, 6), tokens=st.integers(1, 9), residual=SHARES)
def test_uniform_attention_has_a_closed_form(layers, tokens, residual):
    even = ones(tokens, tokens) / tokens
    kept = residual ** torch.arange(1, layers + 1, dtype=torch.float64)[:, None, None]
    wanted = kept * torch.eye(tokens, dtype=torch.float64) + (1 - kept) * even
    same(rollout(even.expand(layers, -1, -1), residual), wanted)


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS), residual=SHARES)
def test_a_batch_gives_what_a_loop_gives(maps, residual):
    out = rollout(maps, residual)
    for sample, head in np.ndindex(*maps.shape[1:3]):
        same(out[:, sample, head], rollout(maps[:, sample, head], residual), atol=1e-14)


@steady
@given(maps=attention_stacks(axes=SAMPLES), residual=SHARES, rescale=st.booleans(), data=st.data())
def test_one_row_is_a_row_of_the_whole(maps, residual, rescale, data):
    query = data.draw(st.integers(-maps.shape[-1], maps.shape[-1] - 1))
    same(rollout_row(maps, query, residual, rescale), rollout(maps, residual, rescale)[-1][..., query, :])


@steady
@given(maps=attention_stacks())
def test_the_residual_is_the_share_of_the_skip_connection(maps):
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype)
    same(rollout(maps, residual=1.0), identity.expand_as(maps))
    same(rollout(maps, residual=0.0)[0], maps[0])
    same(rollout(maps, residual=0.25)[0], 0.75 * maps[0] + 0.25 * identity)


@steady
@given(maps=attention_stacks(), residual=SHARES)
def test_layers_above_do_not_matter(maps, residual):
    for layer in range(len(maps)):
        assert torch.equal(rollout(maps, residual)[layer], rollout(maps[: layer + 1], residual)[-1])


def test_attention_to_the_first_token_moves_all_weight_there():
    maps = torch.zeros(3, 4, 4, dtype=torch.float64)
    maps[..., 0] = 1
    same(rollout(maps, 0.5)[:, 3], torch.tensor([[0.5, 0, 0, 0.5], [0.75, 0, 0, 0.25], [0.875, 0, 0, 0.125]]).double())


def test_the_order_of_layers_and_the_axis_of_rows_matter():
    maps = attention(4, 6, 6, sharpness=4.0)
    assert (rollout(maps)[-1] - rollout(maps.flip(0))[-1]).abs().max() > 0.05
    assert (rollout(maps)[-1] - rollout(renormalise(maps.mT))[-1]).abs().max() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_input_is_left_alone_and_its_type_kept(dtype):
    maps = attention(3, 4, 4).to(dtype)
    before = maps.clone()
    for function in (rollout, rollout_row, mix, renormalise):
        assert function(maps).dtype == dtype and torch.equal(function(maps), function(maps))
    fuse(maps[None], discard=0.9, keep=0)
    drop_smallest(maps, 0.9, keep=0)
    assert torch.equal(maps, before)


# Properties of rescaling


@steady
@given(maps=attention_stacks(axes=SAMPLES), seed=st.integers(0, 99))
def test_rescaling_divides_every_row_by_its_own_sum(maps, seed):
    weights = 0.1 + normal(*maps.shape[:-1], 1, seed=seed).abs()  # one factor a row
    same(renormalise(weights * maps), maps)
    same(rollout(weights * maps, 0.0, rescale=True), rollout(maps, 0.0))
    same(rollout(maps, 0.5, rescale=True), rollout(maps, 0.5))


def test_an_empty_row_becomes_its_own_token():
    maps = attention(2, 3, 3)
    maps[1, 2] = 0
    identity = torch.eye(3, dtype=torch.float64)
    same(renormalise(maps)[1], torch.cat([maps[1, :2], identity[2:]]))
    same(rollout(0 * maps, residual=0.0, rescale=True), identity.expand(2, -1, -1))


# Properties of fused heads


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS), data=st.data())
def test_fusions_are_ordered_and_blind_to_the_order_of_heads(maps, data):
    order = data.draw(st.permutations(range(maps.shape[-3])))
    low, middle, high = (fuse(maps, fusion) for fusion in ("min", "mean", "max"))
    assert (low <= middle + 1e-15).all() and (middle <= high + 1e-15).all()
    for fusion in FUSIONS:
        same(fuse(maps[..., order, :, :], fusion), fuse(maps, fusion))
    same(middle.sum(-1), ones(middle.shape[:-1]))
    same(fuse(maps[..., :1, :, :], "min"), maps[..., 0, :, :])


@steady
@given(samples=st.integers(1, 4), tokens=st.integers(1, 7), share=DISCARDS, keep=st.booleans(), seed=st.integers(0, 99))
def test_each_map_loses_its_own_smallest_entries(samples, tokens, share, keep, seed):
    maps = attention(3, samples, tokens, tokens, seed=seed)
    kept = drop_smallest(maps, share, 0 if keep else None).flatten(-2)
    whole, count = maps.flatten(-2), int(share * tokens**2)
    for values, left in zip(whole.view(-1, tokens**2), kept.view(-1, tokens**2), strict=True):
        assert torch.equal(left[left > 0], values[left > 0])
        spared = int(keep and count > 0 and bool(values.argsort()[:count].eq(0).any()))
        assert (left == 0).sum() == count - spared
        if keep:
            assert left[0] == values[0]
        if count > spared:
            rest = left[1:] if spared else left
            assert values[left == 0].max() <= rest[rest > 0].min()


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS), fusion=st.sampled_from(FUSIONS), discard=DISCARDS)
def test_fusing_a_batch_gives_what_a_loop_gives(maps, fusion, discard):  # catches item 0 deciding for all
    fused = fuse(maps, fusion, discard, keep=0)
    for sample in range(maps.shape[1]):
        assert torch.equal(fused[:, sample], fuse(maps[:, sample], fusion, discard, keep=0))


# Properties of the weighting by gradients


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS), seed=st.integers(0, 99), discard=DISCARDS)
def test_every_layer_and_sample_meets_its_own_gradient(maps, seed, discard):
    gradient = 0.5 + normal(*maps.shape, seed=seed).abs()
    whole = gradient_weighted(maps, gradient, discard)
    for layer, sample in np.ndindex(*maps.shape[:2]):
        place = np.s_[layer : layer + 1, sample : sample + 1]
        assert torch.equal(whole[place], gradient_weighted(maps[place], gradient[place], discard))


@steady
@given(maps=attention_stacks(axes=SAMPLES_AND_HEADS), seed=st.integers(0, 99))
def test_gradients_weigh_before_heads_are_averaged_and_only_their_positive_part_counts(maps, seed):
    same(gradient_weighted(maps, torch.ones_like(maps)), maps.mean(-3))
    gradient = normal(*maps.shape, seed=seed)
    gradient[..., 0, :, :] += 9 * maps.shape[2]  # some entry stays positive in every sample
    weighted = gradient_weighted(maps, gradient)
    assert (weighted >= 0).all()
    same(gradient_weighted(maps, 3 * gradient), 3 * weighted, atol=1e-11)
    one_head = torch.zeros_like(maps)
    one_head[..., 0, :, :] = 1
    same(gradient_weighted(maps, one_head), maps[..., 0, :, :] / maps.shape[-3])


def test_opposite_gradients_of_two_heads_cancel():
    maps, gradient = attention(1, 1, 3, 3).expand(1, 2, 3, 3), ones(1, 2, 3, 3)
    gradient[:, 1, 1:] = -1
    weighted = gradient_weighted(maps, gradient)
    same(weighted[0, 0], maps[0, 0, 0])
    assert (weighted[0, 1:] == 0).all()


# Properties of the collapse


def test_collapse_is_none_for_the_identity_and_whole_for_equal_rows():
    identity = torch.eye(4, dtype=torch.float64)
    same(
        rank_collapse(torch.stack([identity, attention(1, 4, sharpness=3.0).expand(4, 4)])),
        torch.tensor([1.0, 0.0]).double(),
    )
    same(rank_collapse(ones(2, 1, 1)), torch.zeros(2, dtype=torch.float64))
    same(rank_collapse(torch.diag(torch.tensor([0.25, 1.0, 0.5])).double()[None]), torch.tensor([0.5]).double())


@steady
@given(maps=attention_stacks(axes=SAMPLES))
def test_collapse_is_a_share_of_every_map(maps):
    found = rank_collapse(rollout(maps))
    assert found.shape == maps.shape[:2] and (found >= 0).all() and (found <= 1 + 1e-12).all()


def test_rollout_tends_to_equal_rows():
    found = rank_collapse(rollout(attention(12, 30, 30)))
    assert (found.diff() < 0).all() and found[-1] < 0.02 < 0.2 < found[0]


# Slow and literal


@steady
@given(maps=attention_stacks(max_layers=4, max_tokens=3), residual=SHARES, rescale=st.booleans())
def test_rollout_is_the_sum_over_all_paths(maps, residual, rescale):
    if rescale:
        maps = fuse(maps[:, None], discard=0.5)
    same(rollout(maps, residual, rescale), oracles.rollout(maps, residual, rescale))


@pytest.mark.parametrize("keep", [None, 0, 7])
@pytest.mark.parametrize("discard", [0.0, 0.34, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_fused_maps_equal_the_literal_ones(discard, keep, seed):
    maps, gradient = attention(2, 3, 4, 5, 5, seed=seed), normal(2, 3, 4, 5, 5, seed=seed + 9)
    for fusion in FUSIONS:
        same(fuse(maps, fusion, discard, keep), oracles.fuse(maps, fusion, discard, keep), atol=1e-15)
        wanted = oracles.gradient_weighted(maps, gradient, discard, keep, fusion)
        same(gradient_weighted(maps, gradient, discard, keep, fusion), wanted, atol=1e-15)


# Published numbers


def stored(name):
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file}


@pytest.fixture(scope="module")
def joint():
    """Give the rollouts of attention_flow (text) and of Chefer's baselines (vision)."""
    return stored("rollout.npz")


@pytest.fixture(scope="module")
def vit_explain():
    return stored("vit_explain.npz")


@pytest.mark.parametrize("kind", ["mod", "peak"])
def test_rollout_equals_attention_flow(joint, kind):
    maps = fuse(joint[f"{kind}_att"])
    for residual, name in ((0.5, "joint"), (0.0, "joint_nores")):
        rolled = rollout(maps, residual)
        same(rolled, joint[f"{kind}_{name.replace('joint', 'joint_res') if residual else name}"])
        same(torch.stack([methods.read_row(r, "max") for r in rolled]), joint[f"{kind}_{name}_rel_max"])
    same(torch.stack([methods.read_row(m, "max") for m in maps]), joint[f"{kind}_raw_max"], atol=1e-14)


def test_rollout_equals_the_baseline_for_pictures(joint):
    maps = fuse(joint["vit_attn"])
    same(rollout(maps)[-1], joint["vit_rollout_joint"])
    same(rollout_row(maps)[1:], joint["vit_rollout_row"])


def patches(rolled):
    return rolled[0, 1:] / rolled[0, 1:].max()


@pytest.mark.parametrize("discard", ["d00", "d50", "d90"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_rollout_equals_vit_explain_with_rows_rescaled(vit_explain, fusion, discard):
    name, share = f"rollout/{fusion}/{discard}", int(discard[1:]) / 100
    rolled = rollout(fuse(vit_explain["attn"], fusion, share, keep=0), rescale=True)[-1]
    same(rolled, vit_explain[f"{name}/corrected_joint"])
    same(patches(rolled), vit_explain[f"{name}/corrected"].flatten())
    published = vit_explain[f"{name}/orig"].flatten()
    same(oracles.vit_explain(vit_explain["attn"], None, fusion, share), published)
    if name == "rollout/mean/d00":  # rows already sum to 1
        same(patches(rolled), published)
    else:
        assert (patches(rolled) - published).abs().max() > 1e-3


@pytest.mark.parametrize("discard", ["d00", "d50", "d90"])
def test_gradient_rollout_equals_vit_explain_with_both_mistakes_undone(vit_explain, discard):
    inputs, share = (vit_explain["attn"], vit_explain["grad"]), int(discard[1:]) / 100
    rolled = rollout(gradient_weighted(*inputs, share), rescale=True)[-1]
    same(rolled, vit_explain[f"grad/{discard}/corrected_joint"])
    same(patches(rolled), vit_explain[f"grad/{discard}/corrected"].flatten())
    for name, by_row, own_layer in (
        ("orig_mispaired", False, False),
        ("orig_paired", False, True),
        ("keepdim_mispaired", True, False),
    ):
        published = vit_explain[f"grad/{discard}/{name}"].flatten()
        same(oracles.vit_explain(*inputs, None, share, by_row, own_layer), published)
        assert (patches(rolled) - published).abs().max() > 1e-3


# Refusals


def test_one_row_of_a_single_map_is_refused():
    with pytest.raises(ValueError, match=r"needs maps\[None\]"):
        rollout_row(attention(4, 4))


@pytest.mark.parametrize("function", [rollout, rollout_row, mix])
@pytest.mark.parametrize(
    ("maps", "options", "what"),
    [
        (attention(2, 3, 4), {}, "as many queries"),
        (2 * attention(2, 4, 4), {}, r"maps\[0\] is not a probability map"),
        (attention(2, 4, 4).log(), {"rescale": True}, "negative entries"),
        (attention(2, 4, 4) / 0, {"rescale": True}, "NaN or infinite"),
        (attention(2, 4, 4), {"residual": 1.5}, "residual is 1.5"),
        (attention(2, 4, 4), {"residual": -0.1}, "residual is -0.1"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(function, maps, options, what):
    with pytest.raises(ValueError, match=what):
        function(maps, **options)


@pytest.mark.parametrize("function", [rollout, mix])
def test_a_single_map_is_refused(function):
    with pytest.raises(ValueError, match=r"needs maps\[None\]"):
        function(attention(4, 4))


def test_a_map_with_dropped_entries_needs_rescaling():
    with pytest.raises(ValueError, match="renormalised with keepdim=True"):
        rollout(fuse(attention(2, 3, 4, 4), discard=0.5))


def test_rows_too_small_to_be_rescaled_are_refused():
    tiny = torch.full((2, 3, 3), 1e-42)
    with pytest.raises(ValueError, match="row holds"):
        rollout_row(tiny, residual=0.0, rescale=True)


@pytest.mark.parametrize("query", [4, -5])
def test_a_query_outside_is_refused(query):
    with pytest.raises(IndexError, match=f"query is {query}, but there are 4"):
        rollout_row(attention(2, 4, 4), query)


@pytest.mark.parametrize(
    ("maps", "options", "what"),
    [
        (attention(2, 3, 4, 4), {"fusion": "median"}, "expected one of: mean, max, min"),
        (attention(2, 3, 4, 4), {"discard": 1.0}, "discard is 1.0"),
        (attention(2, 3, 4, 4), {"discard": -0.1}, "discard is -0.1"),
        (attention(2, 4, 4), {}, "head, query, key"),
        (attention(2, 3, 4, 4) / 0, {}, "NaN or infinite"),
    ],
)
def test_heads_that_cannot_be_fused_are_refused(maps, options, what):
    with pytest.raises(ValueError, match=what):
        fuse(maps, **options)


def test_gradients_that_do_not_fit_are_refused():
    maps = attention(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) but its gradient \(1, 3, 4, 4\)"):
        gradient_weighted(maps, maps[:1])
    with pytest.raises(ValueError, match="discard is 1"):
        gradient_weighted(maps, maps, discard=1)
    with pytest.raises(ValueError, match="gradient holds"):
        gradient_weighted(maps, maps / 0)


def test_attention_that_is_not_finite_is_refused_before_it_is_weighted():
    maps = attention(2, 3, 4, 4)
    with pytest.raises(ValueError, match="attention holds"):
        gradient_weighted(torch.full_like(maps, float("nan")), maps)


def test_a_sample_without_any_positive_gradient_is_refused():
    maps, gradient = attention(2, 2, 3, 4, 4), ones(2, 2, 3, 4, 4)
    gradient[:, 1] = -1
    with pytest.raises(ValueError, match="no attention entry has a positive gradient"):
        gradient_weighted(maps, gradient)
    gradient[0, 1] = 1  # one layer is enough
    gradient_weighted(maps, gradient)


def test_a_broken_rollout_has_no_rank():
    with pytest.raises(ValueError, match="rolled holds"):
        rank_collapse(attention(1, 2, 2) / 0)


def parts(*axes, tokens=5, heads=3, width=4, seed=0):
    """Draw attention, values and hidden states that belong together."""
    return (
        attention(*axes, heads, tokens, tokens, seed=seed, sharpness=2.0),
        normal(*axes, heads, tokens, width, seed=seed + 1),
        normal(*axes, tokens, width, seed=seed + 2),
    )


# The mixing ratio


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


def test_the_ratio_of_a_batch_is_that_of_a_loop():
    batch = parts(3, 4)
    found = mixing_ratio(*batch)
    for sample in range(4):
        same(found[:, sample], mixing_ratio(*(part[:, sample] for part in batch)), atol=1e-15)


# The effective skip


@steady
@given(maps=attention_stacks(axes=SAMPLES), residual=SHARES, weight=st.sampled_from([1e-6, 0.01, 0.5, 1.0, 3.0]))
def test_the_skip_is_what_a_rescaled_diagonal_has_beyond_attention(maps, residual, weight):
    light = weight * maps
    found = skip_share(light, residual)
    sums = (1 - residual) * weight + residual
    same(found, torch.full_like(found, residual / sums))
    own = (1 - residual) * light.diagonal(dim1=-2, dim2=-1) / sums
    same(mix(light, residual, rescale=True).diagonal(dim1=-2, dim2=-1), own + found)
    if weight == 1:
        same(found, torch.full_like(found, residual))


def test_an_empty_row_is_all_skip():
    maps = ones(1, 2, 2) / 2
    maps[0, 1] = 0
    assert skip_share(maps, 0.2).tolist() == pytest.approx(np.array([[0.2, 1.0]]))
    assert skip_share(maps, 0.0).tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match="negative entries"):
        skip_share(-maps)


# The untouched share


@steady
@given(maps=attention_stacks(axes=SAMPLES), residual=st.floats(0.01, 1))
def test_the_untouched_share_is_a_share_and_cannot_exceed_the_walk(maps, residual):
    found = untouched_share(rollout(maps, residual), residual)
    assert found.shape == maps.shape[:-1] and (found > 0).all() and (found <= 1 + 1e-12).all()


@steady
@given(layers=st.integers(1, 6), tokens=st.integers(1, 9), residual=st.floats(0.01, 1))
def test_the_untouched_share_of_uniform_attention_has_a_closed_form(layers, tokens, residual):
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


def test_a_key_that_nobody_reads():
    maps = attention(2, 3, 4)
    left = without_key(maps, 1)
    assert (left[..., 1] == 0).all() and maps[..., 1].all()
    same(left.sum(-1), ones(*left.shape[:-1]))
    same(left[..., 0] * maps[..., 2], left[..., 2] * maps[..., 0])  # the others share as before
    own = torch.eye(3, dtype=torch.float64)[None]
    same(without_key(own, 0)[0, 0], own[0, 0])  # who reads nothing else becomes its own token
    with pytest.raises(IndexError, match="key is 4"):
        without_key(maps, 4)
