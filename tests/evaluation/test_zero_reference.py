"""The published reference in two precisions, and what random references say."""

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr

from xai_utils.evaluation import depth, zero_reference
from xai_utils.maths import rollout, selective
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


def drawn(count=9, tokens=12, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [torch.rand(tokens, generator=noise, dtype=torch.float64) for _ in range(count)]


def test_what_is_published_is_the_maximum_over_rows_after_the_layer_before_the_last(model):
    maps = [one.double() for one in depth.head_means(model, TEXTS)]
    found = zero_reference.published(maps, threshold=0.2)
    torch.testing.assert_close(found["rollout"][1], rollout.rollout(maps[1])[-2].max(0).values)
    taken = selective.selective_rollout(maps[1], 0.2, "frobenius").rolled[-2].max(0).values
    torch.testing.assert_close(found["selective"][1], taken)
    sums, lengths = zero_reference.summed(model, TEXTS)
    gradient = word_gradients(model, TEXTS, -1, twice=True)[2].double()
    torch.testing.assert_close(sums[2], gradient.sum(-1).abs())
    torch.testing.assert_close(lengths[2], gradient.norm(dim=-1))


def test_a_reference_of_noise_lies_within_noise_and_a_real_one_does_not():
    lengths, real = drawn(60, seed=7), drawn(60, seed=8)
    pair = {"rollout": [one + 0.3 * two for one, two in zip(lengths, real, strict=True)],
            "selective": [one + real_one for one, real_one in zip(lengths, real, strict=True)]}  # fmt: skip
    rounding = [one[0] for one in zero_reference.noise(lengths, 99, 1)]
    found = zero_reference.against_noise(pair, rounding, lengths, seed=0, draws=200)
    assert found.index.tolist() == ["rollout", "selective", "ratio"]
    assert ((found["low"] < found["sums"]) & (found["sums"] < found["high"])).all()
    assert found["sums"]["ratio"] == pytest.approx(found["sums"]["selective"] / found["sums"]["rollout"])
    assert (found["flat high"] < found["lengths"]).iloc[:2].all()
    planted = zero_reference.against_noise(pair, real, lengths, seed=0, draws=200)
    assert planted["sums"]["selective"] > planted["high"]["selective"] and planted["p"]["selective"] == 1 / 201
    assert found["p"].min() > 0.02 and ((found["low"] <= found["noise"]) & (found["noise"] <= found["high"])).all()


def test_medians_are_of_the_correlation_of_every_text():
    one, other, references = drawn(seed=1), drawn(seed=2), drawn(seed=3)
    found = zero_reference.medians([one, other], references)
    wanted = [np.median([spearmanr(a, b).statistic for a, b in zip(some, references, strict=True)])
              for some in (one, other)]  # fmt: skip
    assert found == pytest.approx(np.array(wanted))


def test_noise_that_inherits_its_size_agrees_with_what_agrees_with_the_size():
    sizes = drawn(40)
    like, unlike = [one + 0.1 for one in sizes], drawn(40, seed=5)
    sized = zero_reference.medians([like, unlike], zero_reference.noise(sizes, 0, 50))
    flat = zero_reference.medians([like, unlike], zero_reference.noise([torch.ones(12)] * 40, 0, 50))
    assert sized.shape == flat.shape == (2, 50)
    assert sized[0].min() > 0.2 and np.abs(sized[1].mean()) < 0.1 and np.abs(flat.mean(1)).max() < 0.05
    again = zero_reference.noise(sizes, 0, 50)
    assert all(map(torch.equal, again, zero_reference.noise(sizes, 0, 50)))
    assert not torch.equal(again[0], zero_reference.noise(sizes, 1, 50)[0])
