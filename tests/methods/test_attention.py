"""Attention, rollouts and gradients at tokens, each against a computation by hand."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.maths import diffusion, flow, rollout
from xai_utils.methods import attention, attribute, explain
from xai_utils.methods.observation import View, observe
from xai_utils.models.encoding import encode
from xai_utils.samples import Text


def same(left, right, atol=1e-10):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "method", ["attention", "rollout", "diffusion_rollout", "selective_rollout", "gradient_rollout", "flow"]
)
def test_the_first_row_of_a_causal_model_is_refused(method):
    model, sample = tiny.model("gpt2"), tiny.SENTENCES[1]
    with pytest.raises(ValueError, match=r"reads only itself .* GPT-2.*row=-1"):
        explain(method, model, sample, row=0)
    found = explain(method, model, sample)  # its classifier reads the last token
    assert found.scores.count_nonzero() > 1
    same(found.scores, explain(method, model, sample, row=-1).scores)
    explain(method, model, Text("film"))  # a single token reads all there is


def autograd(model, sample, target):
    """Return maps, their gradients, embeddings and their gradients by ``torch.autograd.grad``, without capture."""
    inputs = encode(model, [sample]).inputs
    module = tiny.module("bert")
    module.set_attn_implementation("eager")
    states = module.bert.embeddings(inputs["input_ids"]).detach().requires_grad_()
    handle = module.bert.embeddings.register_forward_hook(lambda *_: states)
    output = module(**inputs, output_attentions=True)
    handle.remove()
    *gradients, embedding = torch.autograd.grad(output.logits[0, target], [*output.attentions, states])
    return torch.cat(output.attentions).detach(), torch.cat(gradients), states[0].detach(), embedding[0]


@pytest.fixture(scope="module")
def by_hand():
    return autograd(tiny.model("bert"), tiny.SENTENCES[0], target=2)


def rolled_by_hand(maps, residual):
    total = np.eye(maps.shape[-1])
    for one in maps.numpy():
        mixed = (1 - residual) * one + residual * np.eye(len(one))
        total = (mixed / mixed.sum(1, keepdims=True)) @ total
    return torch.from_numpy(total)


def told(method, target=2, **options):
    return explain(method, tiny.model("bert"), tiny.SENTENCES[0], target, **options).scores


def test_attention_reads_layer_head_and_row(by_hand):
    maps = by_hand[0]
    same(told("attention"), maps[-1].mean(0)[0])
    same(told("attention", layer=0, head=2, row=3), maps[0, 2, 3])
    same(told("attention", layer=-2, row="max"), maps[1].mean(0).amax(0))
    same(told("attention", layer=1, head=-1, row="mean"), maps[1, -1].mean(0))


def test_rollout_is_the_product_of_mixed_maps(by_hand):
    maps = by_hand[0]
    for residual in (0.5, 0.2):
        same(told("rollout", residual=residual), rolled_by_hand(maps.mean(1), residual)[0])
        for layer in range(tiny.BLOCKS):
            whole = rollout.rollout(maps.mean(1), residual)[layer]
            same(told("rollout", residual=residual, layer=layer), whole[0])
            same(told("rollout", residual=residual, layer=layer - tiny.BLOCKS), whole[0])
            same(told("rollout", residual=residual, layer=layer, row=4), whole[4])
            same(told("rollout", residual=residual, layer=layer, row=-1), whole[-1])
            same(told("rollout", residual=residual, layer=layer, row="mean"), whole.mean(0))
            same(told("rollout", residual=residual, layer=layer, row="max"), whole.amax(0))
    assert (told("rollout", layer=0) - told("rollout")).abs().max() > 1e-3


def test_rollout_without_the_first_token_that_others_read(by_hand):
    left = rollout.without_key(by_hand[0].mean(1), 0)
    same(told("rollout", sink=False, row=3), rollout.rollout(left)[-1][3])
    assert told("rollout", sink=False, row=3)[0] == 0 < told("rollout", row=3)[0]


def test_rollout_fuses_and_discards(by_hand):
    maps = by_hand[0]
    same(told("rollout", fusion="max"), rolled_by_hand(maps.amax(1), 0.5)[0])
    fused, kept = maps.amin(1), []
    for one in fused:
        lowest = one.flatten().argsort()[: int(0.7 * one.numel())]
        dropped = one.flatten().clone()
        dropped[lowest] = 0
        dropped[0] = one[0, 0]
        kept.append(dropped.view_as(one))
    same(told("rollout", fusion="min", discard=0.7), rolled_by_hand(torch.stack(kept), 0.5)[0])


def test_rows_of_a_fusion_can_be_divided_by_their_sums_before_the_skip_is_added(by_hand):
    for fusion, fused in (("max", by_hand[0].amax(1)), ("min", by_hand[0].amin(1))):
        even = told("rollout", fusion=fusion, normalise=True)
        same(even, rolled_by_hand(rollout.renormalise(fused), 0.5)[0])
        assert (even - told("rollout", fusion=fusion)).abs().max() > 1e-3


@pytest.mark.parametrize("filter", diffusion.FILTERS)
def test_diffusion_rollout_filters_the_mean_of_the_heads(by_hand, filter):
    maps = by_hand[0]
    filtered = diffusion.diffuse(maps.mean(1), filter)
    same(told("diffusion_rollout", filter=filter), rolled_by_hand(filtered, 0.5)[0])
    same(told("diffusion_rollout", filter=filter, residual=0.2, layer=1, row="max"),
         rolled_by_hand(filtered[:2], 0.2).amax(0))  # fmt: skip
    strong = 2 if filter == "rank" else 0.3
    changed = rolled_by_hand(diffusion.diffuse(maps.mean(1), filter, strong), 0.5)[0]
    same(told("diffusion_rollout", filter=filter, strength=strong), changed)
    if filter == "identity":
        assert torch.equal(told("diffusion_rollout", filter=filter), told("rollout"))


def test_gradient_rollout_meets_its_own_layers_gradient(by_hand):
    maps, gradients, *_ = by_hand
    weighted = (maps * gradients).mean(1).clamp(min=0)
    same(told("gradient_rollout"), rolled_by_hand(weighted, 0.5)[0])
    same(told("gradient_rollout", residual=0.1, layer=1, row=3), rolled_by_hand(weighted[:2], 0.1)[3])
    reversed_order = (maps * gradients.flip(0)).mean(1).clamp(min=0)
    assert (told("gradient_rollout", residual=0.01) - rolled_by_hand(reversed_order, 0.01)[0]).abs().max() > 1e-2


def test_gradient_rollout_says_what_the_skip_counts_and_can_make_it_what_was_asked(by_hand):
    maps, gradient, *_ = by_hand
    weighted = (maps * gradient).amax(1).clamp(min=0)
    found = explain("gradient_rollout", tiny.model("bert"), tiny.SENTENCES[0], 2, residual=0.3, fusion="max")
    same(found.scores, rolled_by_hand(weighted, 0.3)[0])
    sums = weighted.sum(-1)
    assert found.details["skip"] == pytest.approx(float((0.3 / (0.7 * sums + 0.3)).median()))
    options = {"residual": 0.3, "fusion": "max", "normalise": True}
    even = explain("gradient_rollout", tiny.model("bert"), tiny.SENTENCES[0], 2, **options)
    same(even.scores, rolled_by_hand(rollout.renormalise(weighted), 0.3)[0])
    assert even.details["skip"] == pytest.approx(0.3) and (even.scores - found.scores).abs().max() > 1e-3


def test_a_flow_that_takes_minutes_is_refused():
    maps = torch.full((12, 1, 577, 577), 1 / 577)
    view = View(maps)
    with pytest.raises(ValueError, match=r"12 layers of 577 tokens from 1 of them has 4.0 million pipes.*Take rollout"):
        attention.attention_flow(view)
    assert len(attention.attention_flow(view, layer=1)[0]) == 577, "two layers have a formula"


def test_flow_is_the_share_of_the_maximum_flow(by_hand):
    steps = rollout.mix(by_hand[0].mean(1), 0.3)
    for layer, row in ((-1, 0), (1, 2), (0, -1)):
        amount = flow.flow(steps, layer)[row]
        same(told("flow", residual=0.3, layer=layer, row=row), amount / amount.sum())


def test_gradients_are_those_at_the_embedding_output(by_hand):
    _, _, embedding, gradient = by_hand
    same(told("gradient_norm"), (gradient**2).sum(-1).sqrt())
    same(told("gradient_x_input"), (gradient * embedding).sum(-1))
    assert (told("gradient_x_input") < 0).any()


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_attcat_reads_the_reader_or_the_column_mean(name):
    seen = observe(tiny.model(name), tiny.samples(name)[:1], target=1)
    view = seen.view(0)
    shares = (view.states[:-1] * view.state_gradients[:-1]).sum(-1)
    same(attribute("attcat", seen).scores, ((view.attention.mean(1)[:, 0] * shares).sum(0))[view.prefix :], 1e-6)
    columns = (view.attention.mean((1, 2)) * shares).sum(0)[view.prefix :]
    same(attribute("attcat", seen, weight="received").scores, columns, 1e-6)
