"""The widget on the closed forms: one picture for what is typed, errors told."""

import pytest
import tiny

from xai_utils.widgets import closed_form

SENTENCE = "the plot is slow and very dull"


@pytest.fixture
def opened():
    box = closed_form.sentence_and_head(tiny.attention_classifier(), SENTENCE)
    (typed, head), (image, note) = box.children[0].children, box.children[1].children
    return typed, head, image, note


def test_the_picture_follows_sentence_and_head(opened):
    typed, head, image, note = opened
    seen = {bytes(image.value)}
    assert note.value.startswith("score of positive: ") and [text for text, _ in head.options][:2] == [
        "all heads", "head 0",
    ]  # fmt: skip
    head.value = 1
    seen.add(bytes(image.value))
    typed.value = "a warm film of two friends"
    seen.add(bytes(image.value))
    assert len(seen) == 3 and all(picture.startswith(b"\x89PNG") for picture in seen)
    head.value, typed.value = None, SENTENCE
    assert bytes(image.value) in seen


def test_unknown_words_are_named_and_escaped(opened):
    typed, _, _, note = opened
    typed.value = "the dull zebra <b>"
    assert "unknown: zebra, &lt;, b, &gt;" in note.value


@pytest.mark.parametrize(("text", "message"), [("", "at least one word"), ("dull", "1 word"), ("gnu", "vocabulary")])
def test_what_cannot_be_explained_is_told_and_keeps_the_picture(opened, text, message):
    typed, _, image, note = opened
    before = bytes(image.value)
    typed.value = text
    assert message in note.value and bytes(image.value) == before
