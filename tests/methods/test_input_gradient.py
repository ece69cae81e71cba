"""The published input gradient: zero by construction before a LayerNorm, and not behind it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import transformers as hf
from places import GOLDEN
from safetensors.torch import load_file

from xai_utils.methods import explain
from xai_utils.methods.input_gradient import in_double, relative_sum, word_gradients
from xai_utils.methods.observation import observe

NORMED = ("bert", "roberta", "distilbert")  # embeddings of the model's width that enter a LayerNorm
same = torch.testing.assert_close


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("twice", [False, True])
def test_the_sum_over_the_width_is_rounding_noise(name, twice):
    for gradient in word_gradients(tiny.model(name), tiny.samples(name), 1, twice):
        assert relative_sum(gradient).max() < 1e-12


@pytest.mark.parametrize("name", NORMED)
def test_behind_the_layernorm_it_is_no_noise(name):
    seen = observe(tiny.model(name), tiny.samples(name), 1)
    assert relative_sum(seen.view(0).embedding_gradient).median() > 0.05


@pytest.mark.parametrize("name", NORMED)
def test_the_gradient_is_the_models_own(name):  # the chain rule through the embedding block gives the same
    model, (sample,) = tiny.model(name), tiny.samples(name, 1)
    (gradient,) = word_gradients(model, [sample], 2)
    step = 1e-6 * torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = model.module.get_input_embeddings()
    with torch.inference_mode():
        before = observe(model, [sample], 2, gradient=False).logits[0, 2]
        hook = table.register_forward_hook(lambda _module, _args, words: words + step)
        after = observe(model, [sample], 2, gradient=False).logits[0, 2]
        hook.remove()
    same(after - before, (gradient * step).sum(), rtol=1e-4, atol=1e-12)


def test_golden_numbers():
    numbers = np.load(GOLDEN / "nullity.npz")
    bert = hf.BertForSequenceClassification(hf.BertConfig(**json.loads(str(numbers["config"])))).double().eval()
    bert.load_state_dict(load_file(GOLDEN / "bert_seqcls.safetensors"))
    bert.requires_grad_(False)
    ids, mask = (torch.from_numpy(numbers[name][:1]) for name in ("input_ids", "attention_mask"))
    words = bert.get_input_embeddings()(ids).requires_grad_(True)
    logits = bert(inputs_embeds=words, attention_mask=mask).logits
    gradient = torch.stack([torch.autograd.grad(logits[0, c], words, retain_graph=True)[0][0] for c in range(3)])
    same(gradient, torch.from_numpy(numbers["grad_word"][0]), atol=1e-10, rtol=0)
    assert float((gradient.sum(-1).abs() / gradient.norm(dim=-1)).max()) < 1e-12


def test_a_batch_gives_what_a_loop_gives():
    model, samples = tiny.model("bert"), tiny.samples("bert")
    for sample, together in zip(samples, word_gradients(model, samples, 1), strict=True):
        same(together, word_gradients(model, [sample], 1)[0])


def test_doubling_leaves_the_model_alone():
    single = replace(tiny.model("bert"), module=tiny.module("bert", dtype=torch.float32))
    before = {name: tensor.clone() for name, tensor in single.module.state_dict().items()}
    double = in_double(single)
    assert next(double.module.parameters()).dtype == torch.float64
    assert all(torch.equal(tensor, before[name]) for name, tensor in single.module.state_dict().items())
    noise = [relative_sum(word_gradients(m, tiny.samples("bert"), 1)[2]).median() for m in (single, double)]
    assert noise[0] > 1e5 * noise[1]  # it follows the precision of the arithmetic, not the model


def test_the_gradient_norm_of_the_methods_is_no_noise_either():
    found = explain("gradient_norm", tiny.model("bert"), tiny.samples("bert")[2], 1)
    assert float(found.scores.min()) > 1e-6


def test_pictures_and_missing_gradients_are_refused():
    with pytest.raises(TypeError, match="reads pictures"):
        word_gradients(tiny.model("timm-vit"), tiny.samples("timm-vit"))
    with pytest.raises(ValueError, match="1 of 2 tokens have no gradient"):
        relative_sum(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
