"""The widget on an answer, driven by its values: what is computed once, what a mask does, what a failure says."""

import re

import decoders
import pytest
import torch

from xai_utils import methods
from xai_utils.models import Question, answers, removal
from xai_utils.widgets import language

PROMPT = "two funny friends and the very warm film"
NAMES = ("attnlrp", "gradient_norm", "rollout", "leave_one_out")


@pytest.fixture
def model():
    return decoders.causal("llama")


@pytest.fixture
def opened(model):
    return language._Controls(model, PROMPT, 4, NAMES)


@pytest.fixture
def drawn(monkeypatch):
    """Keep the scores that are drawn."""
    kept = []
    monkeypatch.setattr(language.plots, "token_bars", lambda _ax, scores, *_: kept.append(scores))
    return kept


def note(opened):
    return opened.canvas.note.value.partition(" <small>")[0]


def test_it_opens_with_a_picture_the_words_as_buttons_and_the_first_word_chosen(opened):
    assert bytes(opened.canvas.image.value).startswith(b"\x89PNG") and opened.step.value == 0
    assert [one.description for one in opened.masks.children] == PROMPT.split()
    assert len(opened.step.options) == 4 and opened.target.value == opened.seen.said(0)
    assert re.fullmatch(r"probability of \S+: \d\.\d\d", note(opened))
    assert language.answer(opened.model, PROMPT, 4, NAMES).children[0].value == PROMPT


def test_another_method_or_word_asks_the_model_nothing(opened):
    asked = []
    opened.model.module.register_forward_hook(lambda *_: asked.append(1))
    for name in NAMES:
        for step in range(4):
            before = bytes(opened.canvas.image.value)
            opened.method.value, opened.step.value = name, step
            assert bytes(opened.canvas.image.value) != before or (name, step) == (NAMES[0], 0)
    assert not asked


@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_is_the_map_of_the_text_before_the_word(name, model, drawn):
    opened = language._Controls(model, PROMPT, 4, NAMES)
    opened.method.value = name
    answer = answers.generated(model, PROMPT, 4)
    for step in (2, 0):
        opened.step.value = step
        place = answer.explained[step]
        target = Question(int(answer.ids[place])) if methods.METHODS[name].asks else None
        right = methods.explain(name, model, answer.inputs(model, place), target)[0].scores
        torch.testing.assert_close(drawn[-1], right.double(), rtol=1e-6, atol=1e-9)  # every word is one token here


def test_a_contrast_is_explained_as_a_difference(model, drawn):
    opened = language._Controls(model, PROMPT, 4, NAMES)
    other = opened.against.options[2][1]
    opened.against.value = other
    inputs = opened.seen.answer.inputs(model, opened.seen.answer.first)
    right = methods.explain("attnlrp", model, inputs, Question(opened.target.value, other))[0].scores
    torch.testing.assert_close(drawn[-1], right.double())
    opened.method.value = "rollout"  # knows no target
    assert "a40000" not in note(opened)


@pytest.mark.parametrize("operator", ["delete", "word"])
def test_a_masked_word_gives_the_probability_without_it(operator, model):
    opened = language._Controls(model, PROMPT, 4, NAMES)
    if operator not in opened.operator.options:
        opened.operator.options = removal.OPERATORS["text"]
    opened.operator.value = operator
    opened.masks.children[1].value = True
    words = PROMPT.split()
    left = words[:1] + (["the"] if operator == "word" else []) + words[2:]
    inputs = answers.given(model, " ".join(left), "film").inputs(model, -1)
    with torch.no_grad():
        right = model.logits(inputs)[0].softmax(-1)[opened.target.value]
    assert note(opened).endswith(f"without funny: {right:.2f}")
    opened.masks.children[1].value = False
    assert "without" not in note(opened)


def test_the_same_word_against_itself_is_refused_and_the_picture_stays(opened):
    before = bytes(opened.canvas.image.value)
    opened.against.value = opened.target.value
    assert "the same word" in opened.canvas.note.value and bytes(opened.canvas.image.value) == before


def test_another_prompt_is_answered_and_an_empty_one_leaves_everything(opened):
    opened.step.value = 3
    opened.typed.value = "the slow plot"
    assert [one.description for one in opened.masks.children] == ["the", "slow", "plot"] and opened.step.value == 0
    before = bytes(opened.canvas.image.value)
    opened.typed.value = " "
    assert "empty" in opened.canvas.note.value and bytes(opened.canvas.image.value) == before
    opened.typed.value = "slow film and the plot"
    assert [one.description for one in opened.masks.children] == ["slow", "film", "and", "the", "plot"]
