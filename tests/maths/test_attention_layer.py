"""The attention layer in closed form: autograd, corollaries, golden numbers of the original, refusals."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import normal, steady

from xai_utils.maths import attention_layer as theory
from xai_utils.maths.attention_layer import Layer

STORED = np.load(GOLDEN / "attention_meets.npz")
DOCUMENTS = pytest.mark.parametrize("document", ["doc0", "doc1"])


def golden(name):
    return torch.from_numpy(np.atleast_1d(STORED[name]))


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def layer(heads=3, width=6, keys=4, values=5, seed=0):
    parts = normal(heads, keys, width, seed=seed), normal(heads, keys, width, seed=seed + 1)
    return Layer(*parts, normal(heads, values, width, seed=seed + 2), normal(heads, values, seed=seed + 3))


def original(target=1):
    """Build the layer of the golden numbers."""
    parts = [
        torch.stack([golden(f"w_heads.{head}.{name}.weight") for head in range(3)])
        for name in ("query", "key", "value", "classifier")
    ]
    return Layer(*parts[:3], parts[3][:, target])


def autograd(own, tokens):
    def heads(embeddings):
        return theory.output(own, embeddings)

    return torch.autograd.functional.jacobian(heads, tokens)


# Properties


@steady
@given(seed=st.integers(0, 999), tokens=st.integers(1, 7), heads=st.integers(1, 4), width=st.sampled_from([2, 6, 9]))
def test_the_gradient_is_the_derivative(seed, tokens, heads, width):
    own, embeddings = layer(heads, width, seed=seed), normal(tokens, width, seed=seed + 9)
    right = autograd(own, embeddings)
    same(theory.gradient(own, embeddings), right, 1e-12 * float(right.abs().max() + 1))


def test_in_single_precision_too():
    own, embeddings = layer(), normal(8, 6)
    single = Layer(*(part.float() for part in (own.query, own.key, own.value, own.readout)))
    same(theory.gradient(single, embeddings.float()), autograd(single, embeddings.float()), 2e-6)


def test_the_published_gradient_errs_for_the_class_token_alone():
    own, embeddings = layer(), normal(7, 6)
    gap = theory.gradient(own, embeddings, query_term=False) - autograd(own, embeddings)
    same(gap[:, 1:], torch.zeros(3, 6, 6, dtype=torch.float64))
    same(gap[:, 0], -theory.asked(own, embeddings))
    assert gap[:, 0].norm(dim=-1).max() > 1e-2


def test_the_gradients_of_all_tokens_add_up_to_the_vote():
    own, embeddings = layer(), normal(7, 6)
    same(theory.gradient(own, embeddings).sum(1), own.voting() + theory.asked(own, embeddings))


def test_without_keys_attention_is_uniform():
    own, embeddings = layer(), normal(7, 6)
    blind = Layer(own.query, torch.zeros_like(own.key), own.value, own.readout)
    same(theory.attention(blind, embeddings), torch.full((3, 7), 1 / 7, dtype=torch.float64))
    same(theory.gradient(blind, embeddings), (own.voting() / 7)[:, None].expand(-1, 7, -1))


def test_a_head_has_two_directions():
    own, embeddings = layer(width=9), normal(12, 9)
    found = theory.gradient(own, embeddings)[:, 1:]
    assert torch.linalg.matrix_rank(found).tolist() == [2, 2, 2]
    assert torch.linalg.matrix_rank(found.mean(0)) == 6


def test_attention_cannot_tell_a_score_from_its_opposite():
    own, embeddings = layer(), normal(7, 6)
    assert torch.equal(theory.attention(own.against(), embeddings), theory.attention(own, embeddings))
    same(theory.gradient(own.against(), embeddings), -theory.gradient(own, embeddings))


def test_a_vector_added_to_all_keys_changes_nothing():
    own, embeddings, shift = layer(), normal(7, 6), normal(7)
    embeddings[:, -1] = 1.0  # a constant feature, by which a vector can be added to the keys
    key = own.key.clone()
    key[:, :, -1] += shift[0]
    moved = Layer(own.query, key, own.value, own.readout)
    same(theory.attention(moved, embeddings), theory.attention(own, embeddings))
    same(theory.output(moved, embeddings), theory.output(own, embeddings))


def test_scores_grow_with_the_readout():
    own, embeddings = layer(), normal(7, 6)
    larger = Layer(own.query, own.key, own.value, -2.5 * own.readout)
    same(theory.gradient(larger, embeddings), -2.5 * theory.gradient(own, embeddings))


def test_the_length_bounds_the_mean():
    own, embeddings = layer(), normal(7, 6)
    found = theory.summaries(theory.gradient(own, embeddings).mean(0), embeddings)
    assert (found["gradient L2"] >= found["gradient mean"].abs() * 6**0.5 - 1e-12).all()
    assert (found["gradient L1"] >= found["gradient L2"]).all()


def test_the_first_row_of_the_matrix_is_what_the_model_uses():
    own, embeddings = layer(), normal(7, 6)
    same(theory.attention_matrix(own, embeddings)[:, 0], theory.attention(own, embeddings))
    same(theory.attention_matrix(own, embeddings).sum(-1), torch.ones(3, 7, dtype=torch.float64))


def test_one_head_is_a_layer():
    own, embeddings = layer(), normal(7, 6)
    for head in range(3):
        same(theory.output(own.head(head), embeddings), theory.output(own, embeddings)[[head]])
        same(theory.gradient(own.head(head), embeddings), theory.gradient(own, embeddings)[[head]])


def test_the_output_is_the_one_written_out():
    own, embeddings = layer(), normal(5, 6)
    right = [oracles.attention_output(embeddings, *weights) for weights in zip(*vars(own).values(), strict=True)]
    same(theory.output(own, embeddings), torch.tensor(right, dtype=torch.float64))


def test_integrated_gradients_are_complete():
    own, embeddings, baseline = layer(), normal(7, 6), normal(7, 6, seed=4)
    found = theory.integrated_gradients(own, embeddings, baseline, 200)
    difference = theory.output(own, embeddings).mean() - theory.output(own, baseline).mean()
    same(found.sum(), difference, 1e-8)
    same(theory.integrated_gradients(own, embeddings, embeddings), torch.zeros(7, dtype=torch.float64))


# Golden numbers


@DOCUMENTS
def test_the_original_network(document):
    own, embeddings = original(), golden(f"{document}_e")
    same(theory.attention(own, embeddings), golden(f"{document}_attention")[:, 0])
    same(theory.attention_matrix(own, embeddings), golden(f"{document}_attention"))
    same(theory.votes(own, embeddings), golden(f"{document}_u"))
    same(theory.output(own, embeddings), golden(f"{document}_head_logits")[:, 1])
    for target in (0, 1):
        same(theory.output(original(target), embeddings).mean(), golden(f"{document}_logits")[target])


@DOCUMENTS
def test_gradients_of_the_original(document):
    own, embeddings = original(), golden(f"{document}_e")
    found = theory.gradient(own, embeddings)
    same(found, golden(f"{document}_grad_autograd_per_head"))
    same(found, golden(f"{document}_grad_corrected_per_head"))
    same(theory.gradient(own, embeddings, False), golden(f"{document}_grad_theory_original_per_head"))
    same(theory.asked(own, embeddings), golden(f"{document}_cls_query_term_per_head"))
    reduced = theory.summaries(found.mean(0), embeddings)
    for name, key in (("mean", "mean"), ("L1", "l1"), ("L2", "l2"), ("× input", "xinput")):
        same(reduced[f"gradient {name}"], golden(f"{document}_G_{key}"))


# Refusals


def test_weights_that_do_not_belong_together_are_refused():
    own = layer()
    for parts in (
        (own.query, own.key[:, :3], own.value, own.readout),
        (own.query, own.key, own.value, own.readout[:, :2]),
        (own.query[0], own.key[0], own.value, own.readout),
        (own.query, own.key, own.value[:2], own.readout[:2]),
    ):
        with pytest.raises(ValueError, match="expected two of"):
            Layer(*parts)


@pytest.mark.parametrize("shape", [(5,), (5, 7), (0, 6), (2, 5, 7)])
def test_tokens_of_another_width_are_refused(shape):
    with pytest.raises(ValueError, match="with a width of 6"):
        theory.gradient(layer(), torch.zeros(shape, dtype=torch.float64))


def test_nan_and_an_unknown_head_are_refused():
    embeddings = normal(5, 6)
    with pytest.raises(IndexError, match="head is 3"):
        layer().head(3)
    with pytest.raises(ValueError, match="the baseline is"):
        theory.integrated_gradients(layer(), embeddings, embeddings[:4])
    embeddings[2, 1] = float("nan")
    with pytest.raises(ValueError, match="embeddings holds 1"):
        theory.gradient(layer(), embeddings)


def test_several_texts_at_once_give_what_each_gives_alone():
    own, some = layer(), normal(4, 5, 6)
    for function in (theory.gradient, theory.output, theory.asked, theory.attention_matrix, theory.votes):
        same(function(own, some), torch.stack([function(own, one) for one in some]))
