"""DensRay: golden numbers of the original class, the loop, exact identities, and bad input."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

from xai_utils.maths import densray

STORED = np.load(GOLDEN / "densray.npz")
SAME = torch.testing.assert_close


def golden(name):
    return torch.from_numpy(STORED[name])


def clouds(seed, p=7, q=5, width=4, dtype=torch.float64):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(p, width, generator=noise, dtype=dtype) + 0.7, torch.randn(
        q, width, generator=noise, dtype=dtype
    )


@pytest.mark.parametrize("sets", ["eq", "neq", "dup"])
@pytest.mark.parametrize("how", ["norm", "unnorm"])
def test_the_original_class_gives_the_same(sets, how):
    found = densray.densray(golden(f"{sets}_X"), golden(f"{sets}_Y"), how == "norm")
    SAME(found.matrix, golden(f"{sets}_{how}_A"), atol=1e-11, rtol=0)
    SAME(found.eigenvalues, golden(f"{sets}_{how}_eigvals"), atol=1e-11, rtol=0)
    SAME(found.vector, golden(f"{sets}_{how}_q1"), atol=1e-9, rtol=0)


@pytest.mark.parametrize("how", ["norm", "unnorm"])
def test_the_original_continuous_class_gives_the_same(how):
    found = densray.densray_continuous(golden("cont_X"), golden("cont_g_labels"), how == "norm")
    SAME(found.matrix, golden(f"cont_g_{how}_A"), atol=1e-11, rtol=1e-12)
    assert abs(float(found.vector @ golden(f"cont_g_{how}_q1_original"))) == pytest.approx(1, abs=1e-12)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), p=st.integers(1, 5), q=st.integers(1, 5), normalised=st.booleans())
def test_the_fast_form_is_the_loop(seed, p, q, normalised):
    x, y = clouds(seed, p, q)
    SAME(densray.densray(x, y, normalised).matrix, oracles.densray_matrix(x, y, normalised), atol=1e-10, rtol=1e-10)


def test_blocks_of_pairs_change_nothing(monkeypatch):
    x, y = clouds(3, 40, 30)
    whole = densray.densray(x, y).matrix
    monkeypatch.setattr(densray, "BLOCK", 7)
    SAME(densray.densray(x, y).matrix, whole, atol=1e-12, rtol=0)


@given(seed=st.integers(0, 10_000), normalised=st.booleans())
def test_the_sign_is_that_of_the_class_means_and_turns_with_the_sides(seed, normalised):
    x, y = clouds(seed, 8, 8)
    found = densray.densray(x, y, normalised).vector
    assert (x @ found).mean() > (y @ found).mean()
    SAME(densray.densray(y, x, normalised).vector, -found, atol=1e-8, rtol=0)


@given(seed=st.integers(0, 10_000))
def test_equal_sides_without_norm_give_the_mean_difference_and_nothing_else(seed):
    x, y = clouds(seed, 6, 6)
    found = densray.densray(x, y, normalised=False)
    SAME(found.vector, densray.mean_difference(x, y), atol=1e-9, rtol=0)
    difference = x.mean(0) - y.mean(0)
    SAME(found.matrix, torch.outer(difference, difference), atol=1e-12, rtol=0)
    assert found.explained == pytest.approx(1, abs=1e-9)


def test_normalised_directions_do_not_feel_scale_and_place():
    x, y = clouds(0, 30, 30)
    moved = densray.densray(5 * x + 3, 5 * y + 3)
    SAME(moved.matrix, densray.densray(x, y).matrix, atol=1e-10, rtol=0)


def test_identical_pairs_count_nothing_in_either_precision():
    x, y = clouds(1, 6, 6)
    x, y = torch.cat([x, x]), torch.cat([y, x[:2]])
    exact = oracles.densray_matrix(x, y, True)
    SAME(densray.densray(x, y).matrix, exact, atol=1e-10, rtol=0)
    SAME(densray.densray(x.float(), y.float()).matrix.double(), exact, atol=1e-4, rtol=0)


def test_a_continuous_label_of_two_values_finds_the_same_direction():
    x, y = clouds(2, 50, 50)
    labels = torch.cat([torch.ones(50), -torch.ones(50)]).double()
    found = densray.densray_continuous(torch.cat([x, y]), labels).vector
    assert float(found @ densray.densray(x, y).vector) > 0.999


def test_removing_is_rotating_zeroing_and_rotating_back():
    x, y = clouds(4, 20, 20)
    found = densray.densray(x, y)
    rotated = x @ found.rotation
    rotated[:, 0] = 0
    SAME(densray.remove(x, found.vector), rotated @ found.rotation.T, atol=1e-12, rtol=0)
    SAME(densray.project(densray.remove(x, found.vector), found.vector), torch.zeros(20).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (torch.ones(0, 3), torch.ones(2, 3), "first set has shape"),
        (torch.ones(2, 3), torch.ones(0, 3), "second set has shape"),
        (torch.ones(2, 3), torch.ones(2, 4), "widths 3 and 4"),
        (torch.ones(2, 3), torch.ones(4, 3), "identical"),
        (torch.tensor([[1.0, torch.nan]]), torch.ones(1, 2), "NaN"),
    ],
)
def test_bad_sets_are_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        densray.densray(x.double(), y.double())


def test_bad_labels_and_equal_means_are_refused():
    x, _ = clouds(0)
    with pytest.raises(ValueError, match="all labels are equal"):
        densray.densray_continuous(x, torch.ones(7).double())
    with pytest.raises(ValueError, match="do not fit"):
        densray.densray_continuous(x, torch.ones(3).double())
    with pytest.raises(ValueError, match="same mean"):
        densray.mean_difference(x, x)
