"""Class maps: properties, path-by-path oracle, published numbers, refusals."""

import json

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import attention, attention_stacks, normal, steady

from xai_utils.maths import class_maps
from xai_utils.maths.class_maps import TwoStreams, compose, normalise_residual, positive_mean


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "relevance.npz") as file:
        return {name: file[name] if file[name].dtype.kind == "U" else torch.from_numpy(file[name]) for name in file}


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


@steady
@given(maps=attention_stacks(max_layers=3, max_tokens=4), start=st.integers(0, 2))
def test_compose_adds_up_all_ways(maps, start):
    start = min(start, len(maps) - 1)
    same(compose(maps, start), oracles.compose(maps, start))
    same(compose(maps, start - len(maps)), compose(maps, start))


@steady
@given(maps=attention_stacks(axes=st.tuples(st.integers(1, 3))))
def test_compose_treats_samples_alone_and_tokens_alike(maps):
    same(compose(maps)[-1], compose(maps[:, -1]))
    order = torch.randperm(maps.shape[-1], generator=torch.Generator().manual_seed(3))
    same(compose(maps[..., order, :][..., order]), compose(maps)[..., order, :][..., order])


def test_a_row_is_a_row_of_the_product():
    maps = attention(4, 2, 6, 6)
    reader = torch.tensor([0.5, 0.5, 0, 0, 0, 0], dtype=torch.float64)
    for start in (0, 2, -1):
        same(class_maps.compose_row(maps, reader.expand(2, 6), start), compose(maps, start)[:, :2].mean(1))
    with pytest.raises(ValueError, match="the map would be empty"):
        class_maps.compose_row(0 * maps, reader.expand(2, 6))


def test_compose_is_not_normalised_and_depends_on_the_start():
    maps = attention(6, 5, 5)
    assert compose(maps).sum(-1).allclose(torch.tensor(2.0**6, dtype=torch.float64))
    assert compose(maps, 5).sum(-1).allclose(torch.tensor(2.0, dtype=torch.float64))


def test_positive_part_comes_before_the_mean_over_heads():
    maps, gradient = attention(2, 3, 4, 4), normal(2, 3, 4, 4)
    by_head = [(maps[:, h] * gradient[:, h]).clamp(min=0) for h in range(3)]
    same(positive_mean(maps, gradient), sum(by_head) / 3)
    same(positive_mean(gradient), gradient.clamp(min=0).mean(1))
    assert (positive_mean(maps, gradient) - (maps * gradient).mean(1).clamp(min=0)).abs().max() > 0.01


def test_a_row_of_zeros_stays_the_identitys_row(golden):
    same(normalise_residual(golden["mm/residual/M"]), golden["mm/residual/out"])
    same(normalise_residual(golden["mm/residual_zero/M"]), golden["mm/residual_zero/corrected"])
    same(normalise_residual(torch.eye(4)), torch.eye(4))


def streams(golden, zero=False):
    own = golden["mm/rule10/R_ss_zero_row" if zero else "mm/rule10/R_ss"]
    back = golden["mm/rule10/R_qs"]
    return TwoStreams(own, golden["mm/rule10/R_qq"], torch.zeros_like(back.T), back)


def test_golden_cross_attention(golden):
    weighted = golden["mm/rule10/cam"]
    found = streams(golden).attend_across(weighted)
    same(found.across, golden["mm/rule10/lxmert_sq"])
    same(found.own - streams(golden).own, golden["mm/rule10/lxmert_ss"])
    same(streams(golden).attend_across(weighted, normalise=False).across, golden["mm/rule10/lxmert_nonorm_sq"])
    same(streams(golden, zero=True).attend_across(weighted).across, golden["mm/rule10/corrected_zero_row_sq"])
    assert golden["mm/rule10/lxmert_zero_row_sq_nan"].isnan().all() and not golden["mm/rule10/detr_zero_row_sq"].any()


@pytest.mark.parametrize("normalise", [True, False])
def test_golden_two_streams(golden, normalise):
    state = TwoStreams.begin(6, 9, torch.float64)
    for step, kind in enumerate(json.loads(str(golden["mm/bimodal/schedule_json"]))):
        part = {k: golden[f"mm/bimodal/step{step}/{k}"] for k in ("attn_tt", "attn_ii", "attn_ti", "attn_it",
                "grad_tt", "grad_ii", "grad_ti", "grad_it") if f"mm/bimodal/step{step}/{k}" in golden}  # fmt: skip
        weighted = {k[-2:]: positive_mean(part[k], part[k.replace("attn", "grad")]) for k in part if k[:4] == "attn"}
        if kind == "tt":
            state = state.attend_own(weighted["tt"])
        elif kind == "ii":
            state = state.swap().attend_own(weighted["ii"]).swap()
        else:
            state = state.attend_both(weighted["ti"], weighted["it"], normalise)
    prefix = "mm/bimodal/step8/" if normalise else "mm/bimodal/final_nonorm/"
    for name, value in (("tt", state.own), ("ii", state.other), ("ti", state.across), ("it", state.back)):
        same(value, golden[f"{prefix}R_{name}"])


def test_gradcam_by_hand():
    activation, gradient = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    summed = sum(gradient[:, c].mean((1, 2))[:, None, None] * activation[:, c] for c in range(3))
    same(class_maps.gradcam(activation, gradient, signed=True), summed)
    same(class_maps.gradcam(activation, gradient), summed.clamp(min=0))
    rows, row_gradient = attention(3, 7), normal(3, 7)
    by_head = sum(row_gradient[h].mean() * rows[h] for h in range(3)) / 3
    same(class_maps.attention_gradcam(rows, row_gradient), by_head.clamp(min=0))


def test_a_grid_keeps_mass_when_it_is_coarser_and_shape_when_finer():
    fine = normal(2, 8, 8).abs()
    same(class_maps.onto_grid(fine, (4, 4)).sum((1, 2)) * 4, fine.sum((1, 2)))
    ramp = torch.arange(4.0).expand(1, 4, 4)
    assert (class_maps.onto_grid(ramp, (8, 8))[0].diff(dim=1) >= 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: positive_mean(attention(2, 3, 4, 4), normal(2, 3, 4, 5)), ValueError, "but their gradient"),
        (lambda: positive_mean(normal(3, 4, 4) * torch.nan), ValueError, "NaN or infinite"),
        (lambda: compose(torch.zeros(2, 4, 4)), ValueError, "the map would be empty"),
        (lambda: compose(-attention(2, 4, 4)), ValueError, "negative entries"),
        (lambda: compose(attention(2, 4, 4), 2), IndexError, "start is 2, but there are 2"),
        (lambda: compose(attention(4, 4)), ValueError, "as many queries"),
        (lambda: class_maps.gradcam(normal(3, 4, 4), normal(3, 4, 5)), ValueError, "expected two times"),
        (lambda: class_maps.attention_gradcam(normal(3, 4), normal(3, 5)), ValueError, "but their gradient"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
