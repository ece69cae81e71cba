"""Network diffusion: properties of every filter, slow literal forms, stored numbers, the pole, refusals."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import SAMPLES, attention, attention_stacks, normal, steady

from xai_utils.maths import diffusion, rollout
from xai_utils.maths.diffusion import FILTERS, diffuse

STORED = np.load(GOLDEN / "diffusion.npz")
KINDS = ("mild", "sink", "aug", "signed")
EACH = pytest.mark.parametrize("name", FILTERS)
WHOLE = {"rank": 1}  # the one parameter that has to fit a map of a single token


def golden(name):
    return torch.from_numpy(STORED[name])


def same(left, right, atol=1e-11):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def strength(name, tokens):
    return min(3, tokens) if name == "rank" else None


# Properties of every filter


@EACH
@steady
@given(maps=attention_stacks(axes=SAMPLES))
def test_rows_stay_probabilities(name, maps):
    if name == "rank":  # one-hot maps have equal singular values
        maps = 0.9 * maps + 0.1 * attention(*maps.shape, seed=5, sharpness=2.0)
    out = diffuse(maps, name, strength(name, maps.shape[-1]))
    assert out.shape == maps.shape and (out >= 0).all()
    same(out.sum(-1), torch.ones(out.shape[:-1], dtype=out.dtype))


@EACH
def test_renaming_tokens_renames_the_result(name):
    maps = attention(2, 3, 7, 7, sharpness=3.0)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    renamed = maps[..., order, :][..., order]
    same(diffuse(renamed, name), diffuse(maps, name)[..., order, :][..., order], 1e-10)


@EACH
def test_a_batch_gives_what_a_loop_gives(name):
    maps = attention(3, 4, 9, 9, seed=2, sharpness=4.0)
    out = diffuse(maps, name)
    for layer in range(3):
        for sample in range(4):
            same(out[layer, sample], diffuse(maps[layer, sample][None], name)[0], 1e-12)


@EACH
def test_one_layer_and_one_token_are_taken(name):
    assert diffuse(attention(1, 6, 6), name).shape == (1, 6, 6)
    same(diffuse(torch.ones(2, 1, 1, dtype=torch.float64), name, WHOLE.get(name)), torch.ones(2, 1, 1).double(), 0)


@EACH
def test_maps_are_left_alone(name):
    maps = attention(2, 8, 8)
    kept = maps.clone()
    diffuse(maps, name)
    assert torch.equal(maps, kept)


def test_identity_is_plain_rollout_to_the_last_bit():
    maps = attention(5, 2, 9, 9).float()
    assert torch.equal(rollout.rollout(diffuse(maps, "identity")), rollout.rollout(maps))


@EACH
def test_every_other_filter_changes_the_rollout(name):
    maps = attention(4, 12, 12, sharpness=2.0)
    moved = (rollout.rollout(diffuse(maps, name)) - rollout.rollout(maps)).abs().max()
    assert moved == 0 if name == "identity" else moved > 1e-2


@pytest.mark.parametrize(("name", "weak"), [("spectral", 0.0), ("pagerank", 1.0), ("heat", 0.0), ("rank", 9)])
def test_the_weakest_setting_of_a_filter_is_known(name, weak):
    maps = attention(3, 9, 9, sharpness=2.0)
    still = torch.eye(9, dtype=torch.float64).expand_as(maps)
    same(diffuse(maps, name, weak), still if name in ("pagerank", "heat") else maps)


@pytest.mark.parametrize(("name", "strong"), [("spectral", 1 - 1e-9), ("rank", 1)])
def test_the_strongest_setting_makes_all_rows_equal(name, strong):
    """Every row becomes the first right singular vector."""
    maps = attention(2, 8, 8, sharpness=2.0)
    first = torch.linalg.svd(maps)[2][..., 0, :].abs()
    expected = (first / first.sum(-1, keepdim=True))[..., None, :].expand_as(maps)
    same(diffuse(maps, name, strong), expected, 1e-7)


# Slow and literal


@given(
    maps=attention_stacks(max_layers=2, axes=SAMPLES),
    alpha=st.sampled_from([0.0, 0.3, 0.8, 0.95]),
)
@steady
def test_the_spectral_filter_is_its_map_of_the_singular_values(maps, alpha):
    left, values, right = torch.linalg.svd(maps)
    by_hand = left * diffusion.spectral_map(values / values[..., :1], alpha)[..., None, :] @ right
    same(diffusion.spectral(maps, alpha), by_hand, 1e-10)


def test_the_spectral_filter_adds_up_walks_and_stays_positive():
    maps = attention(2, 6, 6, sharpness=5.0)
    same(diffusion.spectral(maps, 0.7), oracles.back_and_forth(maps, 0.7), 1e-10)
    assert diffusion.spectral(maps, 0.99).min() >= -1e-15


def test_pagerank_and_heat_add_up_walks_of_every_length():
    maps = attention(2, 6, 6, sharpness=3.0)
    restart = [0.3 * 0.7**k for k in range(120)]
    poisson = [math.exp(-2.5) * 2.5**k / math.factorial(k) for k in range(60)]
    same(diffusion.pagerank(maps, 0.3), oracles.walks(maps, restart), 1e-12)
    same(diffusion.heat(maps, 2.5), oracles.walks(maps, poisson), 1e-12)


def test_walks_keep_who_reads_and_who_is_read():
    chain = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [0, 1, 0]]], dtype=torch.float64)  # 2 reads 1 reads 0
    for name in ("pagerank", "heat"):
        out = diffuse(chain, name)[0]
        assert out[2, 0] > 0 and out[0, 2] == 0 and out[1, 2] == 0


@pytest.mark.parametrize("neighbours", [1, 2, 4])
def test_enhancement_link_by_link(neighbours):
    maps = attention(1, 7, 7, seed=3, sharpness=2.0)
    by_hand = oracles.network_enhancement(maps[0].tolist(), 0.9, neighbours)
    same(diffusion.enhancement(maps, 0.9, neighbours)[0], by_hand, 1e-10)


def test_the_transition_field_is_symmetric_and_doubly_stochastic():
    field = diffusion.transition_field(attention(3, 9, 9, sharpness=4.0))
    same(field, field.mT)
    same(field.sum(-1), torch.ones(3, 9, dtype=torch.float64))
    values = torch.linalg.eigvalsh(field)
    assert values.min() > -1e-12 and values.max() < 1 + 1e-12


def test_tokens_that_read_only_themselves_keep_themselves():
    maps = torch.eye(6, dtype=torch.float64)[None]
    for name in ("enhancement", "pagerank", "heat", "spectral"):
        same(diffuse(maps, name), maps)
    maps = torch.block_diag(attention(5, 5), torch.ones(1, 1, dtype=torch.float64))[None]
    same(diffuse(maps, "enhancement")[0, 5], torch.eye(6, dtype=torch.float64)[5])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_rank_is_a_rank(count):
    kept = diffusion.rank(attention(2, 9, 9, sharpness=2.0), count)
    values = torch.linalg.svdvals(kept)
    assert (values[..., :count] > 1e-3).all() and (values[..., count:] < 1e-12).all()


# Stored numbers


@pytest.mark.parametrize("kind", KINDS)
def test_stored_spectral_maps(kind):
    maps = golden(f"{kind}_A")[None]
    filtered = diffusion.spectral(maps, 0.8)
    same(filtered[0], golden(f"{kind}_norm_map"))
    same(rollout.renormalise(filtered[0].clamp(min=0)), golden(f"{kind}_norm_clip_rowstoch"))
    same(diffusion.unguarded(maps, 0.8)[0], golden(f"{kind}_raw_map"))
    if kind != "signed":
        same(diffuse(maps, "spectral", 0.8)[0], golden(f"{kind}_norm_clip_rowstoch"))


@pytest.mark.parametrize(("field", "alpha", "fixed"), [
    ("sym_T", 0.8, "sym_fixed_point"), ("psd_T", 0.5, "psd_fixed_point_a50"), ("psd_T", 0.8, "psd_fixed_point_a80"),
    ("psd_T", 0.95, "psd_fixed_point_a95"),
])  # fmt: skip
def test_the_fixed_point_of_network_enhancement(field, alpha, fixed):
    found = diffusion.spectral(golden(field)[None], alpha)[0]  # doubly stochastic: its largest singular value is 1
    same(found, golden(fixed))
    same(alpha * golden(field) @ found @ golden(field) + (1 - alpha) * golden(field), found)


# The pole


@steady
@given(maps=attention_stacks(axes=SAMPLES))
def test_the_largest_singular_value_lies_between_1_and_the_root_of_the_tokens(maps):
    top = torch.linalg.matrix_norm(maps, 2)
    assert (top >= 1 - 1e-12).all() and (top <= maps.shape[-1] ** 0.5 + 1e-12).all()


def test_a_sink_reaches_the_root_of_the_tokens_and_turns_the_unguarded_map_round():
    sink = torch.zeros(1, 16, 16, dtype=torch.float64)
    sink[..., 0] = 1
    assert torch.linalg.matrix_norm(sink, 2).item() == pytest.approx(4)
    same(diffusion.unguarded(sink, 0.8), sink * 0.2 / (1 - 0.8 * 16))
    same(diffuse(sink, "spectral", 0.8), sink)


def test_close_to_the_pole_the_unguarded_map_blows_up():
    maps = golden("mild_A")[None]
    pole = float(torch.linalg.matrix_norm(maps, 2)) ** -2
    below, above = (diffusion.unguarded(maps, pole * factor) for factor in (1 - 1e-6, 1 + 1e-6))
    assert below.min() > 0 and above.max() < 0 and below.max() > 1e3
    assert (diffuse(maps, "spectral", pole * (1 + 1e-6)) - diffuse(maps, "spectral", pole)).abs().max() < 1e-5


# Single precision


@EACH
def test_single_precision_is_close(name):
    maps = attention(3, 40, 40, sharpness=3.0)
    same(diffuse(maps.float(), name).double(), diffuse(maps, name), 2e-5)


# Refusals


@EACH
def test_unusable_maps_are_refused(name):
    maps = attention(2, 5, 5)
    holed = maps.clone()
    holed[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match="holds 1 of 50 values that are NaN"):
        diffuse(holed, name)
    with pytest.raises(ValueError, match="as many queries as keys"):
        diffuse(maps[:, :4], name)
    with pytest.raises(ValueError, match="as many queries"):
        diffuse(maps[0], name)
    with pytest.raises(ValueError, match=r"rows miss 1 by up to 0.5"):
        diffuse(maps / 2, name)
    with pytest.raises(ValueError, match="smallest entry is -"):
        diffuse(normal(2, 5, 5), name)


@pytest.mark.parametrize(("name", "bad", "words"), [
    ("spectral", 1.0, "alpha is 1.0, expected a share from 0 to below 1"),
    ("spectral", -0.1, "alpha is -0.1"),
    ("spectral", float("nan"), "alpha is nan"),
    ("enhancement", 1.2, "alpha is 1.2"),
    ("pagerank", 0.0, "restart is 0, expected more"),
    ("pagerank", 1.5, "restart is 1.5, expected a share between 0 and 1"),
    ("heat", -1.0, "time is -1.0, expected a number of steps"),
    ("heat", float("inf"), "time is inf"),
    ("rank", 0, "rank is 0, expected a whole number from 1 to the 6 tokens"),
    ("rank", 7, "rank is 7, expected a whole number from 1 to the 6 tokens"),
    ("rank", 2.5, "rank is 2.5, expected a whole number"),
    ("diffusion", 1, "filter is 'diffusion', expected one of: identity, spectral, enhancement, pagerank, heat, rank"),
])  # fmt: skip
def test_parameters_outside_their_range_are_refused(name, bad, words):
    with pytest.raises(ValueError, match=words):
        diffuse(attention(2, 6, 6), name, bad)


def test_ambiguous_ranks_and_lost_tokens_are_refused():
    with pytest.raises(ValueError, match="singular values 2 and 3 of a map are equal"):
        diffuse(torch.eye(4, dtype=torch.float64)[None], "rank", 2)
    apart = torch.block_diag(torch.full((3, 3), 1 / 3), attention(1, 2, 2, sharpness=3.0)[0].float())[None].double()
    with pytest.raises(ValueError, match="a token reads nothing any more"):
        diffuse(rollout.renormalise(apart), "rank", 1)
    with pytest.raises(ValueError, match="neighbours is 0"):
        diffusion.enhancement(attention(1, 4, 4), 0.9, 0)
    with pytest.raises(ValueError, match="zero everywhere"):
        diffusion.spectral(torch.zeros(1, 3, 3))


def test_a_grid_is_rollout_after_every_filter_at_every_skip():
    maps = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    maps = maps / maps.sum(-1, keepdim=True)
    found = diffusion.grid(maps, {"identity": 0.0, "heat": 2.0}, (0.3, 0.9), query=2)
    assert found.shape == (2, 2, 9)
    for i, one in enumerate((maps, diffusion.diffuse(maps, "heat", 2.0))):
        for j, skip in enumerate((0.3, 0.9)):
            expected = rollout.rollout(one, skip, rescale=True)[-1, 2]
            torch.testing.assert_close(found[i, j], expected, rtol=0, atol=1e-12)


def test_the_largest_singular_value_is_that_of_a_decomposition():
    maps = torch.rand(4, 7, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(diffusion.largest_value(maps), torch.linalg.svdvals(maps)[..., 0])
    assert not diffusion.largest_value(torch.zeros(2, 3, 3)).any()


def test_a_skip_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"skip is 1\.5"):
        diffusion.grid(attention(1, 3, 3), {"identity": 0.0}, (0.5, 1.5))
