"""The recall task and its truth, as a sequence and as a text that the bundled model reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import steady

from xai_utils import models
from xai_utils.models import removal
from xai_utils.models.encoding import encode
from xai_utils.samples import recall


def drawn(length, distance=None, seed=0):
    return recall.draw(np.random.default_rng(seed), length, distance)


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-recall")


@steady
@given(length=st.integers(3, 40), seed=st.integers(0, 99))
def test_the_answer_stands_behind_the_first_mark(length, seed):
    one = drawn(length, seed=seed)
    assert len(one.tokens) == length and one.tokens[-1] == recall.MARK and one.tokens.count(recall.MARK) == 2
    assert one.tokens.index(recall.MARK) == one.place - 1
    assert recall.LETTERS[one.label] == one.tokens[one.place] and one.distance == length - 1 - one.place


@pytest.mark.parametrize("distance", [1, 5, 18])
def test_the_distance_is_ours_to_choose(distance):
    assert drawn(20, distance).distance == distance


def test_swapping_changes_one_letter():
    one, noise = drawn(12, 4), np.random.default_rng(1)
    at = recall.swapped(one, one.place, noise)
    assert sum(a != b for a, b in zip(one.tokens, at.tokens, strict=True)) == 1
    assert at.label != one.label and recall.LETTERS[at.label] == at.tokens[at.place]
    other = next(i for i in range(12) if i != one.place and one.tokens[i] != recall.MARK)
    assert recall.swapped(one, other, noise).label == one.label
    with pytest.raises(ValueError, match="is a mark"):
        recall.swapped(one, 11, noise)


@pytest.mark.parametrize(
    ("length", "distance", "message"), [(2, None, "length is 2"), (9, 8, "distance is 8"), (9, 0, "1 to 7")]
)
def test_impossible_sequences_are_refused(length, distance, message):
    with pytest.raises(ValueError, match=message):
        drawn(length, distance)


def test_the_rationale_of_the_text_is_the_answer():
    one = drawn(12, 4)
    text = recall.text_of(one)
    ((start, end),) = text.rationale
    assert text.text[start:end] == one.tokens[one.place] and text.text.split() == list(one.tokens[:-1])


def test_the_tokenizer_adds_the_mark_that_asks_as_a_special(model):
    sequences = [drawn(12, 4), drawn(12, 10)]
    batch = encode(model, [recall.text_of(one) for one in sequences])
    expected = [model.tokenizer.convert_tokens_to_ids(list(one.tokens)) for one in sequences]
    assert batch.inputs["input_ids"].tolist() == expected
    for spans, one in zip(batch.spans, sequences, strict=True):
        assert spans[-1] == (0, 0) and all(start < end for start, end in spans[:-1]), "the first mark is no special"
        assert removal.places(encode(model, [recall.text_of(one)])).tolist() == list(range(11))
