"""Probes observed: golden AttCAT, batches, targets, specials, scores of words, and bad input."""

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

from xai_utils.gender import probes
from xai_utils.samples.gender import Probe

STORED = np.load(GOLDEN / "attcat.npz")
SAME = torch.testing.assert_close
PAIR = ("warm", "dull")
PROBES = (
    Probe("[MASK] is the very slow film .", "film", pair=PAIR),
    Probe("the plot is [MASK] .", "plot", pair=PAIR),
    Probe("two friends and the [MASK] film of two dull friends .", "friends", other="film", pair=PAIR),
)


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
    return tiny.masked("golden", module, words(["[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(4, 57))]))


@pytest.mark.parametrize("sentence", [0, 1])
@pytest.mark.parametrize("specials", probes.SPECIALS)
@pytest.mark.parametrize("target", probes.TARGETS)
def test_attcat_equals_the_golden_loops(sentence, specials, target):
    model = original()
    text = model.tokenizer.decode(STORED["mlm/input_ids"][sentence][1:-1].tolist())
    pair = tuple(f"w{int(STORED[f'mlm/id_{word}'])}" for word in ("he", "she"))
    one = probes.observe(model, [Probe(text, pair=pair)], target, specials)
    name = f"mlm/s{sentence}_{'full' if specials == 'kept' else 'special'}"
    asked = f"{name}_{'diff' if target == 'difference' else 'argmax'}"
    for score, stored in (("AttCAT", "AttCAT_row"), ("AttCAT, column mean", "AttCAT"), ("CAT", "CAT")):
        SAME(one.scores(score)[:, 0], golden(f"{asked}_{stored}"), atol=1e-10, rtol=0)
    chances = golden(f"{name}_logits_mask").softmax(-1)
    SAME(one.probabilities[0], chances[[int(word[1:]) for word in pair]], atol=1e-12, rtol=0)
    assert one.likeliest[0] == model.tokenizer.convert_ids_to_tokens(int(STORED[f"{name}_argmax_token"]))


def test_a_batch_gives_every_sentence_what_it_gets_alone_and_the_loop_agrees():
    batch = probes.observe(tiny.mlm(), PROBES)
    for i, probe in enumerate(PROBES):
        alone = probes.observe(tiny.mlm(), [probe])
        n, seen = batch.seen.batch.length(i), alone.seen
        SAME(batch.scores("AttCAT")[:, i, :n], alone.scores("AttCAT")[:, 0], atol=1e-12, rtol=0)
        given = seen.attention[:, 0], seen.states[:-1, 0], seen.state_gradients[:-1, 0], int(seen.reading[0])
        SAME(alone.scores("AttCAT")[:, 0], oracles.attcat(*given), atol=1e-12, rtol=0)
        assert not batch.scores("AttCAT")[:, i, n:].any(), "padding has no gradient and is not attended"


def test_swapping_the_pair_turns_every_sign():
    one = probes.observe(tiny.mlm(), PROBES)
    other = probes.observe(tiny.mlm(), [Probe(probe.text, probe.word, pair=PAIR[::-1]) for probe in PROBES])
    SAME(one.scores("AttCAT"), -other.scores("AttCAT"), atol=1e-12, rtol=0)
    np.testing.assert_allclose(one.log_odds, -other.log_odds, atol=1e-12)
    np.testing.assert_allclose(one.log_odds, (one.probabilities[:, 0] / one.probabilities[:, 1]).log(), atol=1e-9)
    np.testing.assert_allclose(one.either, other.either, atol=1e-12)


def test_specials_and_mask_are_left_out_of_the_explanation_only():
    kept, hidden = (probes.observe(tiny.mlm(), PROBES[:1], specials=how) for how in probes.SPECIALS)
    assert kept.seen.attention[..., 0].any() and not hidden.seen.attention[..., 0].any()
    assert (kept.probabilities - hidden.probabilities).abs().max() > 1e-5
    assert not kept.explained[0, [0, 1, -1]].any() and kept.mask[0].nonzero().flatten().tolist() == [1]
    scores, labels = kept.shown("AttCAT")
    assert labels == ["[MASK]", "is", "the", "very", "slow", "film", "."]
    SAME(scores, kept.scores("AttCAT")[:, 0, 1:-1])


def test_scores_use_the_state_that_enters_the_block(rays):
    one = probes.observe(tiny.mlm(), PROBES)
    ray = one.scores("DensRay", rays)
    SAME(ray[1], one.seen.states[1] @ rays[1].double())
    SAME(one.scores("AttDR", rays), one.scores("attention of [MASK]") * ray)
    for wrong in (rays[:, :3], rays[:1], None):
        with pytest.raises(ValueError, match="do not fit"):
            one.scores("DensRay", wrong)
    with pytest.raises(ValueError, match="score is 'loud'"):
        one.scores("loud")


def test_a_word_gets_its_pieces_last_occurrence_and_a_missing_one_is_refused():
    one = probes.observe(tiny.mlm(), PROBES)
    assert [row.nonzero().flatten().tolist() for row in one.where()] == [[6], [2], [10]]
    SAME(one.of_word("AttCAT")[:, 2], one.scores("AttCAT")[:, 2, 10])
    np.testing.assert_allclose(one.sums("AttCAT"), one.of_word("AttCAT").sum(0))
    (two,) = probes.by_pair(tiny.mlm(), PROBES[2:])
    np.testing.assert_allclose(two.sums("CAT", other=True), two.scores("CAT")[:, 0, 6].sum(0, keepdim=True))
    assert not probes.observe(tiny.mlm(), [Probe("[MASK] .", pair=PAIR)]).where().any(), "no word, no token"
    with pytest.raises(ValueError, match="does not hold"):
        probes.observe(tiny.mlm(), [Probe("[MASK] .", "plot", pair=PAIR)]).where()


def test_probes_of_several_pairs_come_pair_by_pair_and_probabilities_in_their_own_order():
    mixed = [PROBES[0], Probe("the plot is [MASK] .", "plot", pair=("slow", "funny")), *PROBES[1:]]
    with pytest.raises(ValueError, match="one pair"):
        probes.observe(tiny.mlm(), mixed)
    found = list(probes.by_pair(tiny.mlm(), mixed, size=2))
    assert [one.probes for one in found] == [(mixed[0], mixed[2]), (mixed[3],), (mixed[1],)]
    both = probes.probabilities(tiny.mlm(), mixed, size=2)
    SAME(both[[0, 2]], found[0].probabilities)
    SAME(both[1], found[2].probabilities[0])
    assert not torch.allclose(both[1], both[2]), "the same text, another pair"


def test_a_summary_names_the_pair_and_its_chances():
    one = probes.observe(tiny.mlm(), PROBES)
    assert one.chances.startswith("P(warm) = 0.") and f"sum {one.either.mean():.3f}" in str(one)


@pytest.mark.parametrize("text", ["the film .", "[MASK] is a [MASK] .", "[mask] is slow ."])
def test_anything_but_one_mask_is_refused(text):
    with pytest.raises(ValueError, match=r"\d \[MASK\]; expected exactly one"):
        probes.observe(tiny.mlm(), [Probe(text, pair=PAIR)])


def test_words_models_and_names_are_checked():
    for word in ("warm film", "xylophone"):
        with pytest.raises(ValueError, match=r"not a single token|does not know"):
            probes.observe(tiny.mlm(), [Probe("[MASK] .", pair=("warm", word))])
    with pytest.raises(ValueError, match="does not predict masked words"):
        probes.observe(tiny.model("bert"), PROBES)
    with pytest.raises(ValueError, match="target is 'loud'"):
        probes.observe(tiny.mlm(), PROBES, "loud")
    with pytest.raises(ValueError, match="specials is 'loud'"):
        probes.observe(tiny.mlm(), PROBES, specials="loud")
