"""What a sample is: fields that say what is known, unknown by default, and nothing to be changed by accident."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from xai_utils.samples.kinds import Picture, Sample, Text


def test_what_is_not_said_is_not_known():
    text, picture = Text("a warm film"), Picture(np.zeros((3, 2, 2), np.float32), "mine", {})
    assert (text.name, text.label, text.kind, text.rationale) == ("own sentence", None, "", ())
    assert picture.label is None and picture.masks == {}
    assert isinstance(text, Sample) and isinstance(picture, Sample) and not isinstance("a warm film", Sample)


@pytest.mark.parametrize("one", [Text("a warm film"), Picture(np.zeros((3, 2, 2), np.float32), "mine", {})])
def test_a_sample_is_replaced_and_not_changed(one):
    with pytest.raises(FrozenInstanceError):
        one.name = "other"
    assert replace(one, name="other").name == "other" != one.name


def test_texts_with_the_same_content_are_one():
    assert Text("a film", "x", 1) == Text("a film", "x", 1) != Text("a film", "x", 0)
    assert len({Text("a film", "x", 1, rationale=((0, 1),)), Text("a film", "x", 1, rationale=((0, 1),))}) == 1
