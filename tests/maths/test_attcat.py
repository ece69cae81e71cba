"""AttCAT: golden numbers of a classifier, loops over samples, heads and tokens, the share of a word, refusals."""

import json

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from safetensors.torch import load_file
from strategies import attention, normal, steady

from xai_utils.capture import capture_attention
from xai_utils.maths import attcat

STORED = np.load(GOLDEN / "attcat.npz")


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def golden(name):
    return torch.from_numpy(STORED[name])


@pytest.mark.parametrize("sentence", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 2])
def test_attcat_of_a_class_equals_the_golden_loops(sentence, target):
    module = hf.BertForSequenceClassification(hf.BertConfig(**json.loads(str(STORED["class/config"])))).double().eval()
    module.load_state_dict(load_file(GOLDEN / "bert_seqcls.safetensors"))
    real = golden("class/mask_full")
    inputs = {"input_ids": golden("class/input_ids"), "token_type_ids": golden("class/token_type_ids")}
    with capture_attention(module, 4, hidden=True) as trace:
        module(**inputs, attention_mask=real).logits[:, target].sum().backward()
        gradient = torch.stack([trace.hidden_grad(i) for i in range(4)])
        activation = attcat.cat(torch.stack(trace.hidden[:4]).detach(), gradient)
    found = attcat.attcat(attcat.received(trace.stack(), real.bool()), activation)
    n = STORED[f"class/s{sentence}_c{target}_AttCAT"].shape[-1]
    assert n in (int(real[sentence].sum()), real.shape[1])
    same(activation[:, sentence, :n], golden(f"class/s{sentence}_c{target}_CAT"), atol=1e-10)
    own = golden(f"class/s{sentence}_c{target}_AttCAT")
    if n == int(real[sentence].sum()):  # of a padded sentence the original also averages over padding queries
        same(found[:, sentence, :n], own, atol=1e-10)


@steady
@given(seed=st.integers(0, 999), layers=st.integers(1, 3), samples=st.integers(1, 3), tokens=st.integers(1, 5))
def test_attcat_is_the_loop_over_layers_samples_and_tokens(seed, layers, samples, tokens):
    maps = attention(layers, samples, 2, tokens, tokens, seed=seed, sharpness=2.0)
    hidden, gradient = (normal(layers, samples, tokens, 4, seed=seed + i) for i in (1, 2))
    position = torch.randint(tokens, (samples,), generator=torch.Generator().manual_seed(seed))
    found = attcat.attcat(attcat.paid(maps, position), attcat.cat(hidden, gradient))
    for layer in range(layers):
        for sample in range(samples):
            row = maps[layer, sample, :, position[sample]].mean(0)
            for token in range(tokens):
                activation = hidden[layer, sample, token] @ gradient[layer, sample, token]
                same(found[layer, sample, token], row[token] * activation)


def test_what_a_token_receives_is_the_mean_over_real_queries():
    maps, real = attention(2, 2, 3, 4, 4), torch.tensor([[True] * 4, [True, True, False, False]])
    found = attcat.received(maps, real)
    same(found[:, 0], maps[:, 0].mean((1, 2)))
    same(found[:, 1], maps[:, 1, :, :2].mean((1, 2)))
    same(found.sum(-1), torch.ones(2, 2, dtype=torch.float64))


def test_impact_counts_all_pieces_and_leaves_mask_out():
    scores = torch.tensor([[0.0, 9.0, -3.0, 1.0, 2.0]])
    mask = torch.tensor([[False, True, False, False, False]])
    where = torch.tensor([[False, False, True, True, False]])
    share, strongest = attcat.impact(scores, where, mask)
    assert share.item() == pytest.approx(4 / 6) and strongest.item()
    with pytest.raises(ValueError, match="does not hold the word"):
        attcat.impact(scores, torch.zeros_like(where), mask)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        attcat.cat(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        attcat.attcat(torch.ones(1, 1, 2), torch.ones(1, 1, 3))


def test_a_gradient_of_nan_is_refused():
    with pytest.raises(ValueError, match="gradient holds 6 of 6"):
        attcat.cat(torch.ones(1, 1, 2, 3), torch.full((1, 1, 2, 3), torch.nan))
