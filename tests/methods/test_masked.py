"""Masked language models: golden AttCAT, batches, targets, specials, removed directions, and bad input."""

import json
from functools import cache

import numpy as np
import oracles
import pytest
import tiny
import torch
import transformers as hf
from places import GOLDEN
from safetensors.torch import load_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from xai_utils.capture import capture_attention
from xai_utils.maths import attcat
from xai_utils.methods import masked

STORED = np.load(GOLDEN / "attcat.npz")
SAME = torch.testing.assert_close
TEXTS = (
    "[MASK] is the very slow film .",
    "the plot is [MASK] .",
    "two friends and the [MASK] film of two dull friends .",
)
PAIR = ("warm", "dull")


def golden(name):
    return torch.from_numpy(STORED[name])


def words(vocabulary):
    """Build a tokenizer of whole words in the manner of BERT."""
    built = Tokenizer(tokenizer_models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="[PAD]"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=20,
    )  # fmt: skip


@cache
def original():
    """Return the model of the golden numbers."""
    module = hf.BertForMaskedLM(hf.BertConfig(**json.loads(str(STORED["mlm/config"])))).double().eval()
    module.load_state_dict(load_file(GOLDEN / "bert_mlm.safetensors"))
    module.requires_grad_(False)
    read = words(["[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(4, 57))])
    return tiny.masked("golden", module, read)


@cache
def small():
    """Return a tiny model of masked words with large random weights."""
    torch.manual_seed(0)
    module = hf.BertForMaskedLM(hf.BertConfig(**tiny.BERT)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    module.requires_grad_(False)
    return tiny.masked("tiny mlm", module, tiny.tokenizer())


@pytest.mark.parametrize("sentence", [0, 1])
@pytest.mark.parametrize("specials", masked.SPECIALS)
@pytest.mark.parametrize("target", masked.TARGETS)
def test_attcat_equals_the_golden_loops(sentence, specials, target):
    model = original()
    text = model.tokenizer.decode(STORED["mlm/input_ids"][sentence][1:-1].tolist())
    pair = tuple(f"w{int(STORED[f'mlm/id_{word}'])}" for word in ("he", "she"))
    seen = masked.observe(model, [text], pair, target=target, specials=specials)
    name = f"mlm/s{sentence}_{'full' if specials == 'kept' else 'special'}"
    asked = f"{name}_{'diff' if target == 'difference' else 'argmax'}"
    SAME(seen.attcat()[:, 0], golden(f"{asked}_AttCAT_row"), atol=1e-10, rtol=0)
    SAME(seen.attcat("column mean")[:, 0], golden(f"{asked}_AttCAT"), atol=1e-10, rtol=0)
    SAME(attcat.cat(seen.hidden[:-1], seen.gradient[:-1])[:, 0], golden(f"{asked}_CAT"), atol=1e-10, rtol=0)
    chances = golden(f"{name}_logits_mask").softmax(-1)
    SAME(seen.probabilities[0], chances[[int(word[1:]) for word in pair]], atol=1e-12, rtol=0)
    assert seen.likeliest[0] == model.tokenizer.convert_ids_to_tokens(int(STORED[f"{name}_argmax_token"]))


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
    SAME(activation[:, sentence, :n], golden(f"class/s{sentence}_c{target}_CAT"), atol=1e-10, rtol=0)
    own = golden(f"class/s{sentence}_c{target}_AttCAT")
    if n == int(real[sentence].sum()):  # of a padded sentence the original also averages over padding queries
        SAME(found[:, sentence, :n], own, atol=1e-10, rtol=0)


def test_a_batch_gives_every_sentence_what_it_gets_alone_and_the_loop_agrees():
    batch = masked.observe(small(), TEXTS, PAIR)
    for i, text in enumerate(TEXTS):
        alone = masked.observe(small(), [text], PAIR)
        n = batch.batch.length(i)
        SAME(batch.attcat()[:, i, :n], alone.attcat()[:, 0], atol=1e-12, rtol=0)
        slow = oracles.attcat(
            alone.attention[:, 0], alone.hidden[:-1, 0], alone.gradient[:-1, 0], int(alone.position[0])
        )
        SAME(alone.attcat()[:, 0], slow, atol=1e-12, rtol=0)
        assert not batch.attcat()[:, i, n:].any(), "padding has no gradient and is not attended"


def test_swapping_the_pair_turns_every_sign():
    one, other = (masked.observe(small(), TEXTS, pair) for pair in (PAIR, PAIR[::-1]))
    SAME(one.attcat(), -other.attcat(), atol=1e-12, rtol=0)
    SAME(one.score, -other.score, atol=1e-12, rtol=0)


def test_specials_and_mask_are_left_out_of_the_explanation_only():
    kept, hidden = (masked.observe(small(), TEXTS[:1], PAIR, specials=how) for how in masked.SPECIALS)
    assert kept.attention[..., 0].any() and not hidden.attention[..., 0].any()
    assert (kept.probabilities - hidden.probabilities).abs().max() > 1e-5
    assert not kept.explained[0, [0, 1, -1]].any() and kept.tokens(0) == tuple(range(1, kept.batch.length(0) - 1))


def test_scores_use_the_state_that_enters_the_block():
    seen = masked.observe(small(), TEXTS, PAIR)
    vectors = torch.nn.functional.normalize(torch.randn(tiny.BLOCKS + 1, tiny.WIDTH).double(), dim=-1)
    ray = seen.ray(vectors)
    SAME(ray[1], seen.hidden[1] @ vectors[1])
    SAME(seen.attdr(vectors), seen.paid() * ray)
    with pytest.raises(ValueError, match="do not fit"):
        seen.ray(vectors[:, :3])


def test_all_pieces_of_a_word_are_found_and_a_missing_word_is_refused():
    seen = masked.observe(small(), TEXTS[:1], PAIR)
    assert seen.covers(["film"], TEXTS[:1])[0].nonzero().flatten().tolist() == [6]
    with pytest.raises(ValueError, match="does not hold"):
        seen.covers(["plot"], TEXTS[:1])


@pytest.mark.parametrize("text", ["the film .", "[MASK] is a [MASK] .", "[mask] is slow ."])
def test_anything_but_one_mask_is_refused(text):
    with pytest.raises(ValueError, match=r"\d \[MASK\]; expected exactly one"):
        masked.observe(small(), [text], PAIR)


def test_words_models_and_names_are_checked():
    with pytest.raises(ValueError, match="not a single token"):
        small().class_index("warm film")
    with pytest.raises(ValueError, match="not a single token"):
        small().class_index("xylophone")
    with pytest.raises(ValueError, match="does not predict masked words"):
        masked.observe(tiny.model("bert"), TEXTS[:1], PAIR)
    with pytest.raises(ValueError, match="target is 'loud'"):
        masked.observe(small(), TEXTS[:1], PAIR, target="loud")


def test_losses_of_hidden_words_are_those_of_the_model_and_every_word_gets_its_turn():
    texts = ["the film is warm", "the film is warm"]
    losses, owner = masked.word_losses(small(), texts, every=2)
    assert owner.tolist() == [0, 0, 1, 1]
    hidden = small().tokenizer("[MASK] film [MASK] warm", return_tensors="pt")
    logits = small().module(input_ids=hidden["input_ids"], attention_mask=hidden["attention_mask"]).logits[0]
    truth = small().tokenizer.convert_tokens_to_ids(["the", "is"])
    expected = torch.nn.functional.cross_entropy(logits[[1, 3]], torch.tensor(truth), reduction="none")
    assert min(float((losses[:2] - expected).abs().max()), float((losses[2:] - expected).abs().max())) < 1e-9
