"""LIME without a model: enumeration of all masks, golden numbers, what the package's regression gives, refusals."""

from itertools import product
from math import comb, inf, sqrt

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import normal, steady

from xai_utils.maths import lime, mask_ratio

STORED = np.load(GOLDEN / "attention_meets.npz")
WIDTHS = {"nu025": 0.25, "nuinf": inf}
BOTH = pytest.mark.parametrize("width", WIDTHS)


def golden(name):
    return torch.from_numpy(np.atleast_1d(STORED[name]))


def same(left, right, atol=1e-12, rtol=0.0):
    torch.testing.assert_close(left, right, rtol=rtol, atol=atol)


def drawn(words=6, heads=3, seed=0, spread=1.0):
    """Draw a ratio with uneven attention."""
    kept, dropped = (normal(heads, words, seed=seed + i).mul(spread).exp() for i in (0, 1))
    votes, hidden = normal(heads, words, seed=seed + 2), normal(heads, words, seed=seed + 3)
    fixed = normal(heads, seed=seed + 4).exp()
    return mask_ratio.Ratio(kept, kept * votes, dropped, dropped * hidden, fixed, fixed * normal(heads, seed=seed + 5))


def from_golden(prefix, synthetic=False):
    if not synthetic:
        return mask_ratio.Ratio(*(golden(f"{prefix}_L2_{name}") for name in ("g", "gu", "h", "hu", "Dfix", "Nfix")))
    kept, dropped, vote, hidden = (golden(f"{prefix}_{name}")[None] for name in ("g", "h", "u", "uprime"))
    fixed = golden(f"{prefix}_Dfix"), golden(f"{prefix}_Nfix")
    return mask_ratio.Ratio(kept, kept * vote, dropped, dropped * hidden, *fixed)


def masks(words):
    """All masks but the one that keeps everything, which LIME's sampler never draws."""
    return torch.tensor([row for row in product((0, 1), repeat=words) if sum(row) < words])


# Properties


@steady
@given(seed=st.integers(0, 999), words=st.integers(2, 7), width=st.sampled_from([0.25, 0.7, inf]))
def test_the_exact_solution_is_the_regression_on_all_masks(seed, words, width):
    parts = drawn(words, 2, seed)
    values = mask_ratio.outputs(parts, masks(words))
    right = torch.stack([oracles.lime_population(masks(words), values[:, head], width) for head in (0, 1)])
    same(lime.exact(parts, width), right, 1e-9 * float(right.abs().max() + 1))


@pytest.mark.parametrize("spread", [3.0, 6.0])
def test_the_exact_solution_bears_attention_on_one_word(spread):
    parts = drawn(8, 2, 5, spread)
    values = mask_ratio.outputs(parts, masks(8))
    right = torch.stack([oracles.lime_population(masks(8), values[:, head], 0.25) for head in (0, 1)])
    same(lime.exact(parts), right, 1e-10 * float(right.abs().max()))


@BOTH
def test_an_affine_score_gets_back_its_slopes_for_any_number_of_words(width):
    for words in (2, 9, 60):
        said, hidden = normal(2, words), normal(2, words, seed=1)
        ones = torch.ones(2, words, dtype=torch.float64)
        parts = mask_ratio.Ratio(ones, said, ones, hidden, ones[:, 0], ones[:, 0])
        slopes = (said - hidden) / (words + 1)
        same(lime.exact(parts, WIDTHS[width]), slopes)
        same(lime.published(parts), 1.5 * slopes)
        same(lime.large_limit(parts, WIDTHS[width]), slopes)


def test_several_kernels_at_once_are_each_of_them():
    parts = drawn(9)
    same(lime.exact_each(parts, (0.25, inf, 0.7)), torch.stack([lime.exact(parts, w) for w in (0.25, inf, 0.7)]))


def test_scaling_a_head_changes_nothing():
    parts = drawn()
    scaled = mask_ratio.Ratio(*(getattr(parts, name) * 37.5 for name in mask_ratio.Ratio.__dataclass_fields__))
    for found in (lime.exact, lime.large_limit, lime.published):
        same(found(parts), found(scaled))
    same(mask_ratio.outputs(parts, masks(6)), mask_ratio.outputs(scaled, masks(6)))


def test_words_in_another_order_take_their_slopes_with_them():
    parts, order = drawn(7), torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = mask_ratio.Ratio(*(v[:, order] if (v := getattr(parts, n)).ndim == 2 else v for n in vars(parts)))
    same(lime.exact(moved), lime.exact(parts)[:, order])


def test_what_is_fixed_but_silent_still_counts():
    parts = drawn()
    more = mask_ratio.Ratio(**{**vars(parts), "fixed": parts.fixed + 1.0})
    assert (lime.exact(more) - lime.exact(parts)).abs().max() > 1e-3
    left = mask_ratio.outputs(parts, masks(6)) * (parts.fixed + 1.0 + 0.0) / (parts.fixed + 1.0)
    same(left, mask_ratio.outputs(parts, masks(6)))


def test_the_limit_is_approached_with_the_number_of_words():
    def gap(words):
        noise = torch.Generator().manual_seed(words)
        kept, dropped = (0.5 + torch.rand(1, words, generator=noise, dtype=torch.float64) for _ in range(2))
        votes, hidden = (torch.randn(1, words, generator=noise, dtype=torch.float64) for _ in range(2))
        one = torch.ones(1, dtype=torch.float64)
        parts = mask_ratio.Ratio(kept, kept * votes, dropped, dropped * hidden, one, one)
        right = lime.exact(parts, inf)
        return float((lime.large_limit(parts) - right).norm() / right.norm())

    gaps = [gap(words) for words in (10, 40, 160)]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < 0.01


def test_sampling_tends_to_the_exact_solution():
    parts = drawn(10, 2)
    errors = []
    for count in (1000, 100_000):
        chosen = lime.sample(10, count, seed=1)
        found = lime.regress(chosen, mask_ratio.outputs(parts, chosen), ridge=0).T
        errors.append(float((found - lime.exact(parts)).norm() / lime.exact(parts).norm()))
    assert errors[1] < errors[0] / 4 and errors[1] < 0.02


def test_masks_drop_every_number_of_words_equally_often():
    chosen = lime.sample(5, 20_000, seed=3)
    dropped = 5 - chosen.sum(1)
    assert dropped.min() == 1 and dropped.max() == 5
    counts = torch.bincount(dropped, minlength=6)[1:] / 20_000
    same(counts, torch.full((5,), 0.2), 0.015)
    same(chosen.double().mean(0), torch.full((5,), 0.4, dtype=torch.float64), 0.015)
    assert torch.equal(chosen, lime.sample(5, 20_000, seed=3))
    assert not torch.equal(chosen, lime.sample(5, 20_000, seed=4))


# Golden numbers


@pytest.mark.parametrize("document", ["doc0", "doc1"])
def test_documents_of_the_original_network(document):
    parts = from_golden(document)
    same(mask_ratio.outputs(parts, golden(f"{document}_masks")), golden(f"{document}_f_masks_per_head"), 1e-11)
    same(lime.published(parts).mean(0), golden(f"{document}_L4_published"), 1e-10)
    for name, width in WIDTHS.items():
        found = lime.exact(parts, width)
        same(found, golden(f"{document}_{name}_beta_wls_per_head"), 1e-10)
        same(found.mean(0), golden(f"{document}_{name}_beta"), 1e-10)
        same(lime.large_limit(parts, width), golden(f"{document}_{name}_L3_per_head"), 1e-10)


@pytest.mark.parametrize("words", [6, 10])
def test_synthetic_scores(words):
    parts = from_golden(f"syn{words}", synthetic=True)
    for name, width in WIDTHS.items():
        same(lime.exact(parts, width)[0], golden(f"syn{words}_{name}_beta"), 1e-10)
        same(lime.large_limit(parts, width)[0], golden(f"syn{words}_{name}_L3"), 1e-10)


def test_many_words():
    parts = from_golden("big400", synthetic=True)
    same(lime.large_limit(parts)[0], golden("big400_nuinf_L3"), 1e-10)


@BOTH
def test_moments_of_the_masks(width):
    for words, row in zip(STORED["a_table_d"], STORED[f"a_table_{width}"], strict=True):
        share = torch.arange(int(words) + 1, dtype=torch.float64) / int(words)
        weights = lime.kernel(share, WIDTHS[width]) / int(words)
        weights[0] = 0
        same(torch.stack(lime.mask_moments(weights)), torch.from_numpy(row), 1e-12)


def test_the_regression_of_the_package():
    chosen = golden("lib_data")
    same(lime.kernel(1 - chosen.double().mean(1)), golden("lib_weights"), 1e-12)
    found = lime.regress(chosen, golden("lib_y"))
    same(found, golden("lib_coef"), 1e-9)


# Refusals


def test_one_word_is_refused():
    for refused in (lambda: lime.sample(1, 10, 0), lambda: lime.exact(drawn(1))):
        with pytest.raises(ValueError, match="needs at least two"):
            refused()


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_a_kernel_without_width_is_refused(width):
    with pytest.raises(ValueError, match="expected a number above 0"):
        lime.exact(drawn(), width)


def test_too_few_masks_are_refused():
    chosen = lime.sample(6, 3, 0)
    with pytest.raises(ValueError, match="cannot tell 6 words apart"):
        lime.regress(chosen, normal(3), ridge=0)
    assert lime.regress(chosen, normal(3), ridge=1.0).isfinite().all()
    with pytest.raises(ValueError, match="3 masks, 4 values"):
        lime.regress(chosen, normal(4))
    with pytest.raises(ValueError, match="NaN"):
        lime.regress(chosen, torch.tensor([0.0, 1.0, float("nan")]))


def test_weights_by_hand():
    share = torch.tensor([0.0, 0.75, 1.0], dtype=torch.float64)
    same(lime.kernel(share, inf), torch.ones(3, dtype=torch.float64))
    right = [1.0, np.exp(-((1 - sqrt(0.25)) ** 2) / (2 * 0.0625)), np.exp(-8.0)]
    same(lime.kernel(share), torch.tensor(right, dtype=torch.float64))
    assert comb(4, 2) == len([row for row in masks(4).tolist() if sum(row) == 2])
