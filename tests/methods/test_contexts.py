"""Spans of a prompt: exact on additive and interacting models, Lasso against the truth, the real model, refusals."""

from itertools import product

import decoders
import numpy as np
import pytest
import tiny
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from xai_utils import models, samples
from xai_utils.methods import contexts
from xai_utils.models import answers, language
from xai_utils.models.kinds import Model

SHORT = "the film is dull . a plot is warm . two friends and a film . the plot is"
SPANS = samples.spans.parts(SHORT)[:-1]
WORDS = tiny.WORDS


class Told(nn.Module):
    """A language model whose logits are a sum over the words so far, and a product for words that come together."""

    main_input_name = "input_ids"

    def __init__(self, together=0.0):
        super().__init__()
        noise = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(
            torch.randn(tiny.BERT["vocab_size"], tiny.BERT["vocab_size"], generator=noise).double()
        )
        self.together, self.config = together, decoders.hf.LlamaConfig(max_position_embeddings=200)

    def forward(self, input_ids, attention_mask):
        logits = (self.table[input_ids] * attention_mask[..., None]).cumsum(1)
        dull, warm = (((input_ids == word) * attention_mask).cumsum(1) > 0 for word in DULL_AND_WARM)
        return CausalLMOutput(logits=logits + self.together * (dull & warm)[..., None])


DULL_AND_WARM = tuple(len(tiny.SPECIAL) + WORDS.index(word) for word in ("dull", "warm"))


def told(together=0.0):
    module, reader = Told(together).eval(), tiny.tokenizer.__wrapped__(cls=False)
    reader.model_max_length = 200
    loaded = language.says_next(module, reader)
    return Model("told", module, loaded.classes, None, 0, reader, None, "", loaded.head)


def truth(model, text, spans, word):
    target = model.class_index(word)
    ids = [model.tokenizer(text[slice(*one)])["input_ids"] for one in spans]
    return [float(model.module.table[one, target].sum().detach()) for one in ids]


def test_the_scores_of_an_additive_model_are_its_own():
    model = told()
    found = contexts.attributed(model, answers.given(model, SHORT, "slow"), kind="logit")
    np.testing.assert_allclose(found.scores, truth(model, SHORT, SPANS, "slow"), atol=1e-12)
    assert found.labels == tuple(SHORT[slice(*one)] for one in SPANS) and found.unit == "logit" and found.signed
    details = dict(found.details)
    assert (details["exact"], details["fitted"], details["held_out"]) == (True, 8, 0)
    assert details["r2"] == pytest.approx(1) and details["rank_correlation"] == pytest.approx(1)
    assert details["whole"] - details["nothing"] == pytest.approx(float(found.scores.sum()))
    assert details["nothing"] == pytest.approx(details["intercept"])
    against = contexts.attributed(model, answers.given(model, SHORT, "slow"), against="funny")
    expected = np.subtract(truth(model, SHORT, SPANS, "slow"), truth(model, SHORT, SPANS, "funny"))
    np.testing.assert_allclose(against.scores, expected, atol=1e-12)


def test_what_two_spans_do_together_is_halved_between_them_and_shows_in_the_fit():
    alone, both = (
        contexts.attributed(told(by), answers.given(told(), SHORT, "slow"), kind="logit") for by in (0.0, 4.0)
    )
    torch.testing.assert_close(both.scores - alone.scores, torch.tensor([2.0, 2.0, 0.0]).double())
    linear, spread = (alone.scores + torch.tensor([2.0, 2.0, 0.0])).square().sum() / 4, 4.0**2 / 16
    assert both.details["r2"] == pytest.approx(float(linear / (linear + spread)), abs=1e-9)


def many(count):
    """Return a prompt of so many sentences, of which three say something, and their spans."""
    noise = np.random.default_rng(1)
    said = [" ".join(noise.choice(WORDS[:-2], 4)) + " ." for _ in range(count)]
    text = " ".join(said) + " the film is"
    return text, samples.spans.parts(text)[:-1]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_lasso_finds_the_scores_from_few_subsets_and_reports_what_it_never_saw(seed):
    model, (text, spans) = told(), many(16)
    answer = answers.given(model, text, "slow")
    found = contexts.attributed(model, answer, kind="logit", seed=seed)
    expected = truth(model, text, spans, "slow")
    np.testing.assert_allclose(found.scores, expected, atol=0.15)
    details = dict(found.details)
    assert (details["exact"], details["fitted"], details["held_out"]) == (False, 66, 32)
    assert details["r2"] > 0.99 and details["rank_correlation"] > 0.99
    again = contexts.attributed(model, answer, kind="logit", seed=seed)
    assert torch.equal(again.scores, found.scores) and dict(again.details) == details


def test_spans_that_say_nothing_get_nothing():
    model, (text, spans) = told(), many(12)
    target, own = model.class_index("slow"), model.tokenizer(text[slice(*spans[3])])["input_ids"]
    with torch.no_grad():
        model.module.table[:, target] = 0.0
        model.module.table[own[0], target] = 3.0
    holding = [i for i, one in enumerate(spans) if own[0] in model.tokenizer(text[slice(*one)])["input_ids"]]
    assert 0 < len(holding) < len(spans)
    found = contexts.attributed(model, answers.given(model, text, "slow"), kind="logit")
    assert found.scores.abs().gt(1e-2).nonzero().flatten().tolist() == holding


@pytest.mark.parametrize("kind", ["log_odds", "log_probability"])
def test_a_whole_answer_is_followed_by_a_plain_loop(kind):
    model = decoders.causal("llama")
    prompt, answer = "the film is dull . a plot is warm . two friends and", "a slow film"
    found = contexts.attributed(model, answers.given(model, prompt, answer), kind=kind)
    spans = samples.spans.parts(prompt)
    assert len(found.labels) == 2, "the last sentence asks"
    values = {}
    for keep in product((True, False), repeat=2):
        kept = [prompt[slice(*one)] for one, there in zip(spans, (*keep, True), strict=True) if there]
        before = model.tokenizer(" ".join(kept))["input_ids"]
        said = model.tokenizer(answer)["input_ids"]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([before + said])).logits[0].log_softmax(-1)
        told = sum(float(logits[len(before) + i - 1, one]) for i, one in enumerate(said))
        values[keep] = told - np.log1p(-np.exp(told)) if kind == "log_odds" else told
    first = (values[True, True] + values[True, False] - values[False, True] - values[False, False]) / 2
    second = (values[True, True] + values[False, True] - values[True, False] - values[False, False]) / 2
    np.testing.assert_allclose(found.scores, [first, second], atol=1e-9)
    assert found.details["whole"] == pytest.approx(values[True, True])
    assert found.target_name == answer and found.unit == contexts.KINDS[kind]


def test_an_answer_that_is_certain_stays_finite():
    model = told()
    with torch.no_grad():
        model.module.table[:, model.class_index("slow")] = 60.0
    found = contexts.attributed(model, answers.given(model, SHORT, "slow"), kind="logit")
    assert torch.isfinite(found.scores).all()
    with pytest.raises(ValueError, match="the same whichever spans are left out"):
        contexts.attributed(model, answers.given(model, SHORT, "slow"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "odds"}, "kind is 'odds', expected one of: log_odds"),
        ({"fitted": 4}, "fitted is 4; expected 10 subsets at least"),
        ({"held_out": 0}, "held_out"),
        ({"groups": [(0, 18)]}, "is 1 span; expected 2"),
        ({"groups": [(0, 18), (17, 30)]}, "overlap"),
        ({"groups": [(0, 18), (60, 300)]}, "outside a text"),
        ({"groups": [(0, 18), (5, 6)]}, "overlap|no token"),
        ({"groups": [(0, 18), (20, 21)]}, "holds no token of its own"),
        ({"groups": "words", "kind": "logit"}, "whole prompt|no token"),
        ({"groups": [(0, 18), (18, len(SHORT))]}, "the spans are the whole prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    model = told()
    if options.get("groups") == "words":
        options = {**options, "groups": samples.spans.parts(SHORT, "words")}
    with pytest.raises(ValueError, match=message):
        contexts.attributed(model, answers.given(model, SHORT, "slow"), **options)
    with pytest.raises(ValueError, match=r"the answer has 2 tokens; there is one logit for one only"):
        contexts.attributed(model, answers.given(model, SHORT, "slow film"), kind="logit")


def test_the_real_model_is_told_by_the_sentence_that_says_it():
    model = models.load("smollm2")
    prompt = "Our trip was long. Anna lives in Paris. Tom lives in Rome. It rained all day. Where does Anna live? In"
    found = contexts.attributed(model, answers.given(model, prompt, "Paris"), against="Rome")
    assert found.top(1) == ("Anna lives in Paris.",) and found.details["exact"]
    assert dict(zip(found.labels, found.scores.tolist(), strict=True))["Tom lives in Rome."] < 0
