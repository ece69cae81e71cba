"""Where many methods point on sequences with one known cause, and how that depends on the distance."""

import numpy as np
import pytest

from xai_utils import models
from xai_utils.evaluation import on_recall
from xai_utils.samples import recall


def test_many_methods_are_asked_where_the_answer_is():
    model, sequences = models.load("mamba-recall"), recall.grid([2, 5], 3, 12, 0)
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
