"""The recall task, its truth, and a small model of it on the table of methods."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import steady

from xai_utils import methods, models, stats
from xai_utils.evaluation import on_recall, probe
from xai_utils.models.encoding import encode
from xai_utils.samples import Text, recall, sets

NAMES = (
    "hidden_attention", "hidden_rollout", "unified_attention", "hidden_rollout_published", "mamba_attribution",
    "mamba_lrp", "gradient_x_input", "gradient_norm", "rollout",
)  # fmt: skip


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


def test_pointing_by_hand():
    one, two = drawn(9, 5), drawn(9, 1)
    on, behind = torch.zeros(9), torch.zeros(9)
    on[one.place], behind[two.place - 1] = 1, 1
    on[-1] = behind[-1] = 9  # the reader does not count
    found = on_recall.pointing([on, behind], [one, two])
    assert found.exact.tolist() == [True, False] and found.near.tolist() == [True, False]
    assert found.marked.tolist() == [False, True] and found.null == pytest.approx(1 / 8)
    assert found.near_null == pytest.approx((4 / 8 + 1 / 8) / 2)
    with pytest.raises(ValueError, match="8 scores for 9 tokens"):
        on_recall.pointing([on[:8]], [one])


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
        assert probe._places(encode(model, [recall.text_of(one)])).tolist() == list(range(11))


def test_the_bundled_model_recalls_and_goes_by_the_answer_alone(model):
    sequences = recall.grid([1, 9, 30], 6, 40, 0)
    assert on_recall.accuracy(model, sequences).all()
    at_answer, elsewhere = on_recall.swaps(model, sequences, 0)
    assert at_answer.all() and not elsewhere.any()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_a_loop_gives(model, name):
    texts = [recall.text_of(drawn(length, 3)) for length in (12, 7, 20)]
    options = {"row": -1} if name == "rollout" else {}
    batch = methods.explain(name, model, texts, **options)
    for text, found in zip(texts, batch, strict=True):
        alone = methods.explain(name, model, text, **options)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-6)
        assert len(found.labels) == len(text.text.split()) + 1 and found.target == alone.target


def test_relevance_finds_the_answer(model):
    sequences = recall.grid([2, 20], 8, 30, 3)
    found = on_recall.pointing(on_recall.scores_of("mamba_lrp", model, sequences), sequences)
    assert found.exact.mean() > 0.8


def test_methods_name_what_they_need(model):
    text = Text(" ".join(drawn(9, 3).tokens))
    with pytest.raises(TypeError, match="gradient at attention"):
        methods.explain("gradient_rollout", model, text)
    with pytest.raises(ValueError, match="row is 'cls'"):
        methods.explain("rollout", model, text)
    with pytest.raises(TypeError, match="no selective scan"):
        methods.explain("hidden_attention", models.load("vit-scenes"), _scene())
    with pytest.raises(ValueError, match="form is 'other'"):
        methods.explain("mamba_attribution", model, text, form="other")


def _scene():
    from xai_utils import samples

    return samples.picture("scene:0")


def test_rates_have_honest_intervals_at_the_ends():
    found = stats.rate_interval([True] * 20)
    assert found.mean == 1 and found.high == 1 and 0.8 < found.low < 0.87 and found.n == 20
    assert stats.rate_interval([True, False] * 50).low == pytest.approx(0.404, abs=1e-3)
    with pytest.raises(ValueError, match="at least one hit"):
        stats.rate_interval([])


def test_a_sweep_reads_sequences_whose_answer_is_marked():
    listing = sets.find({"set": "recalls", "number": 3, "first": 5, "length": 12})
    assert listing.names == ("recall:5:12", "recall:6:12", "recall:7:12")
    for i, name in enumerate(listing.names):
        one, again = listing.read(i), listing.read(i)
        ((start, stop),) = one.rationale
        assert one == again and one.name == name and len(one.text.split()) == 11
        assert one.text[start:stop] == recall.LETTERS[one.label] and one.text[start - 2] == recall.MARK
