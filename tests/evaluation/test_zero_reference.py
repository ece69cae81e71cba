"""The published reference in two precisions, and what random references say."""

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr

from xai_utils.evaluation import zero_reference
from xai_utils.methods.input_gradient import word_gradients
from xai_utils.models import state_sha256

TEXTS = list(tiny.SENTENCES)


@pytest.fixture(scope="module")
def model():
    """A BERT in single precision: what is zero in exact arithmetic is rounding there."""
    return tiny.wrap("bert", tiny.module("bert", dtype=torch.float32))


def test_the_sum_follows_the_arithmetic_and_the_length_the_model(model):
    before = state_sha256(model.module)
    found = zero_reference.in_both_precisions(model, TEXTS)
    medians = {kind: float(np.median(values)) for kind, values in found.relative.items()}
    assert medians["float64"] < 1e-12 < medians["float32"] < 1e-4 < 0.01 < medians["behind the LayerNorm"]
    assert (found.agreement["length and length"] > 0.99).all()
    tokens = sum(len(one) for one in word_gradients(model, TEXTS, -1, twice=True))
    assert {len(one) for one in found.relative.values()} == {tokens}
    assert state_sha256(model.module) == before and next(model.module.parameters()).dtype == torch.float32


def test_sums_and_lengths_are_compared_within_each_text(model):
    found = zero_reference.in_both_precisions(model, TEXTS)
    single = word_gradients(model, TEXTS, -1, twice=True)[0]
    double = word_gradients(zero_reference.in_double(model), TEXTS, -1, twice=True)[0]
    for pair, one, other in (
        ("|sum| and |sum|", single.sum(-1).abs(), double.sum(-1).abs()),
        ("|sum| and length", single.sum(-1).abs(), double.norm(dim=-1)),
    ):
        assert found.agreement[pair][0] == pytest.approx(spearmanr(one, other).statistic)
        assert found.agreement[pair].shape == (len(TEXTS),)


def test_ratios_by_chance_scatter_around_one_for_maps_of_one_kind():
    noise = torch.Generator().manual_seed(0)
    maps = [torch.rand(12, generator=noise) for _ in range(9)]
    others = [torch.rand(12, generator=noise) for _ in range(9)]
    assert (zero_reference.ratios_by_chance(maps, maps, 0, 50) == 1).all()
    found = zero_reference.ratios_by_chance(maps, others, 0, 400)
    assert found.shape == (400,) and (found >= 0).all() and 0.5 < np.median(found) < 2 and (found > 3).mean() > 0.1
    np.testing.assert_array_equal(found, zero_reference.ratios_by_chance(maps, others, 0, 400))
    assert (found != zero_reference.ratios_by_chance(maps, others, 1, 400)).any()
