"""Where methods point on sequences with one known cause, by hand and on the bundled model, and at what distance."""

import numpy as np
import pytest
import torch

from xai_utils import models
from xai_utils.evaluation import on_recall
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
    found = on_recall.pointing(on_recall.scores_of("mamba_lrp", model, sequences), sequences)
    assert found.exact.mean() > 0.8


def test_many_methods_are_asked_where_the_answer_is(model):
    sequences = recall.grid([2, 5], 3, 12, 0)
    asked = {"plain": ("mamba_lrp", {}), "no rules": ("mamba_lrp", {"rules": ()})}
    found = on_recall.pointed(model, sequences, asked)
    assert list(found) == list(asked)
    for label, (name, options) in asked.items():
        alone = on_recall.pointing(on_recall.scores_of(name, model, sequences, **options), sequences)
        assert np.array_equal(found[label].exact, alone.exact) and np.array_equal(found[label].near, alone.near)


def test_hits_are_counted_by_distance():
    sequences = recall.grid([2, 5], 2, 12, 0)
    hits = np.array([True, False, True, True])
    one = on_recall.Pointing(hits, hits, ~hits, 0.1, 0.3)
    rates = on_recall.exact_by_distance(one, sequences)
    assert {distance: (rate.mean, rate.n) for distance, rate in rates.items()} == {2: (0.5, 2), 5: (1.0, 2)}
    with pytest.raises(ValueError, match="shorter"):
        on_recall.exact_by_distance(one, sequences[:3])
