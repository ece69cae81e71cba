"""Where methods point on sequences with one known cause, by hand and on the bundled model, and at what distance."""

import numpy as np
import pytest
import torch

from xai_utils import models
from xai_utils.evaluation import judged, on_recall
from xai_utils.samples import recall


def drawn(length, distance=None, seed=0):
    return recall.draw(np.random.default_rng(seed), length, distance)


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-recall")


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


def test_the_bundled_model_recalls_and_goes_by_the_answer_alone(model):
    sequences = recall.grid([1, 9, 30], 6, 40, 0)
    assert on_recall.accuracy(model, sequences).all()
    at_answer, elsewhere = on_recall.swaps(model, sequences, 0)
    assert at_answer.all() and not elsewhere.any()


def test_relevance_finds_the_answer(model):
    sequences = recall.grid([2, 20], 8, 30, 3)
    maps = judged.explained(model, *_asked(sequences))
    assert on_recall.marks(maps, sequences)["plain", "exact"].mean() > 0.8


def _asked(sequences):
    texts, labels = on_recall.texts(sequences)
    return texts, {"plain": ("mamba_lrp", {}), "no rules": ("mamba_lrp", {"rules": ()})}, labels


def test_many_maps_are_marked_as_each_alone(model):
    sequences = recall.grid([2, 5], 3, 12, 0)
    maps = judged.explained(model, *_asked(sequences))
    found = on_recall.marks(maps, sequences)
    assert list(found) == [(label, measure) for label in maps for measure in ("exact", "near")]
    for label, own in maps.items():
        alone = on_recall.pointing([one.scores for one in own], sequences)
        assert np.array_equal(found[label, "exact"], alone.exact) and np.array_equal(found[label, "near"], alone.near)


def test_texts_ask_for_the_answer():
    (text,), (label,) = on_recall.texts([drawn(9, 4)])
    assert text == recall.text_of(drawn(9, 4)) and recall.LETTERS[label] == drawn(9, 4).tokens[drawn(9, 4).place]


def test_hits_are_counted_by_distance():
    sequences = recall.grid([2, 5], 2, 12, 0)
    hits = [1.0, 0.0, 1.0, 1.0]
    rates = on_recall.by_distance(hits, sequences)
    assert {distance: (rate.mean, rate.n) for distance, rate in rates.items()} == {2: (0.5, 2), 5: (1.0, 2)}
    with pytest.raises(ValueError, match="shorter"):
        on_recall.by_distance(hits, sequences[:3])
