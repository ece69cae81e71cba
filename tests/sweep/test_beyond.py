"""Where the closed form ends: in a block it is exact with the block's own slope, and in deep models block by block."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr

from xai_utils import models
from xai_utils.maths import attention_layer
from xai_utils.methods.observation import observe
from xai_utils.models.attention_classifier import build
from xai_utils.models.encoding import encode
from xai_utils.samples import Text
from xai_utils.sweep import beyond

TEXTS = [
    Text("the plot is slow and the film is very , very dull"),
    Text("a warm funny film of friends"),
    Text("not a dull plot , but slow"),
    Text("the film is the plot"),
]
EXACT = [[1, 1, 0]] * len(TEXTS)  # cosine, rank, error


@pytest.fixture(scope="module")
def plain():
    return tiny.attention_classifier()


@pytest.fixture(scope="module")
def block(plain):
    torch.manual_seed(1)
    module = build(replace(plain.module.config, feed_forward=6)).double().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.7)
    return replace(plain, name="tiny block", module=module)


def test_the_formula_is_the_gradient_of_attention_alone_and_another_texts_is_not(plain):
    found = beyond.predicted(plain, TEXTS, 0)
    measures = ("cosine", "rank", "error")
    assert list(found) == [(name, what) for name in (beyond.FORMULA, beyond.ANOTHER) for what in measures]
    np.testing.assert_allclose(found[beyond.FORMULA], EXACT, atol=1e-12)
    assert (found[beyond.ANOTHER, "cosine"] < 0.99).all()


def test_an_mlp_breaks_it_and_the_slope_of_the_text_itself_mends_it(block):
    found = beyond.predicted(block, TEXTS, 0)
    np.testing.assert_allclose(found[beyond.OWN_SLOPE], EXACT, atol=1e-12)
    assert (found[[(name, "cosine") for name in (beyond.FORMULA, beyond.ONE_SLOPE)]] < 0.999).all(axis=None)


def test_without_what_the_mlp_adds_a_residual_connection_alone_changes_no_word(block):
    linear = replace(block, module=build(block.module.config).double().eval().requires_grad_(False))
    linear.module.load_state_dict(block.module.state_dict())
    for name in ("weight", "bias"):
        getattr(linear.module.mlp[2], name).zero_()
    found = beyond.predicted(linear, TEXTS, 0)
    for name in (beyond.FORMULA, beyond.ONE_SLOPE, beyond.OWN_SLOPE):
        np.testing.assert_allclose(found[name], EXACT, atol=1e-12)


def test_every_prediction_is_what_it_says(block):
    found, module = beyond.predicted(block, TEXTS, 3), block.module
    tokens = [module.embed(encode(block, [one]).inputs["input_ids"])[0].requires_grad_() for one in TEXTS]
    right = [torch.autograd.grad(module.read(one[None])[0, 1], one)[0][1:] for one in tokens]
    slopes = []
    for one in tokens:
        state = module.state(one.detach()[None]).requires_grad_()
        slopes.append(torch.autograd.grad(module.answer(state)[0, 1], state)[0][0])
    mean = torch.stack([slopes[0], slopes[2], slopes[3]]).mean(0)
    closed = [attention_layer.gradient(module.layer(1), one.detach()).mean(0)[1:] for one in tokens]
    one_slope = attention_layer.gradient(module.layer(1, mean), tokens[1].detach()).mean(0)[1:]
    for name, map_ in ((beyond.FORMULA, closed[1]), (beyond.ONE_SLOPE, one_slope)):
        assert found[name, "cosine"][1] == pytest.approx(cosine(right[1], map_))
        assert found[name, "error"][1] == pytest.approx(float((right[1] - map_).norm() / right[1].norm()))
        assert found[name, "rank"][1] == pytest.approx(spearmanr(right[1].norm(dim=1), map_.norm(dim=1)).statistic)
    others = [cosine(right[1], one) for place, one in enumerate(closed) if place != 1]
    assert min(abs(found[beyond.ANOTHER, "cosine"][1] - one) for one in others) < 1e-12


def cosine(one, other):
    count = min(len(one), len(other))
    a, b = one[:count].flatten(), other[:count].flatten()
    return float(a @ b / a.norm() / b.norm())


def test_every_text_is_held_against_another(plain, monkeypatch):
    monkeypatch.setattr(beyond, "_alike", lambda right, found: {"same": float(torch.equal(right, found))})
    monkeypatch.setattr(beyond, "_gradient", beyond._formula)
    found = beyond.predicted(plain, TEXTS, 0)["another text's formula", "same"]
    assert beyond.predicted(plain, TEXTS, 0)[beyond.FORMULA, "same"].all() and not found.any()


def test_untrained_weights_are_fresh_and_come_of_the_seed(block):
    one, same, other = (beyond.untrained(block, seed).module.state_dict() for seed in (0, 0, 1))
    assert torch.equal(one["query"], same["query"]) and not torch.equal(one["query"], other["query"])
    assert one.keys() == block.module.state_dict().keys() and one["query"].abs().max() <= 0.1


def test_another_model_is_refused():
    with pytest.raises(TypeError, match="no attention classifier; try attention-sst2 or attention-mlp-sst2"):
        beyond.predicted(tiny.model("bert"), TEXTS, 0)


def test_attention_tells_the_gradient_where_the_class_token_reads_tokens_directly():
    deep = tiny.model("bert")
    some = [replace(text, label=1) for text in TEXTS]
    found = beyond.by_block(deep, some * 3, batch=5)
    assert found.shape == (12, tiny.BLOCKS) and np.allclose(found[:4], found[4:8], atol=0.05)
    view = observe(deep, some[:1], [1]).view(0)
    weights = view.attention[-1].mean(0)[0, 1:-1]
    slopes = view.state_gradients[-2, 1:-1].norm(dim=-1)
    assert found.iloc[0, -1] == pytest.approx(spearmanr(weights, slopes).statistic)
    with pytest.raises(ValueError, match="no class token in front"):
        beyond.by_block(models.load("mamba-sst2", "cpu"), some[:1])
