"""The lime package on a text: deleting by default, in place like our own exact solution, repeatable."""

import numpy as np
import pytest
import tiny

from xai_utils.methods import closed_forms, lime_library
from xai_utils.samples import Text

ONCE = Text("the plot is slow and very dull")
TWICE = Text("the plot is slow and the film is very , very dull")


@pytest.fixture(scope="module")
def model():
    return tiny.attention_classifier()


@pytest.mark.parametrize("in_place", [False, True])
def test_it_deletes_words_by_default_whatever_mask_it_has(model, in_place, monkeypatch):
    calls, score = [], closed_forms.class_scores
    monkeypatch.setattr(closed_forms, "class_scores", lambda *given: calls.extend(given[1]) or score(*given))
    read = closed_forms.read(model, TWICE)
    run = lime_library.run(model, read, 60, in_place=in_place)
    assert len(calls) == 60 and run.asked == tuple(calls[:5]) and len(run.slopes) == len(read.words)
    assert any(lime_library.MASK in text for text in calls) == in_place
    assert set(" ".join(calls).split()) - {lime_library.MASK} <= set(read.words)


def off(found, exact):
    return float((found - exact).norm() / exact.norm())


def test_in_place_on_words_that_occur_once_it_is_ours(model):
    read = closed_forms.read(model, ONCE)
    exact = read.exact_lime().mean(0)
    assert off(lime_library.run(model, read, 4000, in_place=True).slopes, exact) < 0.1
    deleted, again = (lime_library.run(model, read, 4000).slopes for _ in range(2))
    assert off(deleted, exact) > 0.3
    np.testing.assert_array_equal(deleted.numpy(), again.numpy())


def test_it_explains_the_class_of_the_document(model):
    for_it, against = (lime_library.run(model, closed_forms.read(model, ONCE, name), 500) for name in (1, 0))
    assert not np.allclose(for_it.slopes, against.slopes)
    assert off(against.slopes, closed_forms.read(model, ONCE, 0).exact_lime().mean(0)) < 1.0
