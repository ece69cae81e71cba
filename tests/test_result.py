"""Attributions: what they return, and what can never become one."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import steady

from xai_utils.result import Attribution

WORDS = ("[CLS]", "good", "##ness", "!", "[SEP]")


def attribution(scores=(0.1, 0.4, 0.2, 0.0, 0.3), labels=WORDS, **more):
    return Attribution(torch.tensor(scores, dtype=torch.float64), tuple(labels), "rollout", "tiny", **more)


def squares(rows, columns):
    labels = [f"{row},{column}" for row in range(rows) for column in range(columns)]
    return attribution(range(1, rows * columns + 1), labels, grid=(rows, columns))


# What it returns


@steady
@given(scores=st.lists(st.integers(0, 4), min_size=1).filter(any), count=st.integers(0, 12))
def test_the_greatest_come_first_and_equals_keep_their_order(scores, count):
    names = [str(place) for place in range(len(scores))]
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    assert attribution(scores, names).top(count) == tuple(names[place] for place in order[:count])


def test_words_are_left_as_they_are_without_the_special_tokens():
    found = attribution(details={"residual": 0.5}, target=1, target_name="positive").words()
    assert found.labels == ("good", "##ness", "!")
    assert found.scores.tolist() == [0.4, 0.2, 0.0]
    assert (found.method, found.model, found.target, found.target_name) == ("rollout", "tiny", 1, "positive")
    assert dict(found.details) == {"residual": 0.5}


@pytest.mark.parametrize("special", ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>"])
def test_special_tokens_of_all_tokenizers_are_no_words(special):
    assert attribution([1, 2], [special, "word"]).words().labels == ("word",)
    assert attribution([1, 2], [f"{special}ish", "s"]).words().labels == (f"{special}ish", "s")


def test_a_picture_is_filled_row_by_row():
    assert squares(2, 3).picture().tolist() == [[1, 2, 3], [4, 5, 6]]
    strided = torch.arange(1.0, 13.0).view(6, 2)[:, 1]
    assert Attribution(strided, ("",) * 6, "m", "tiny", grid=(3, 2)).picture().tolist() == [[2, 4], [6, 8], [10, 12]]


def test_scores_leave_the_graph_of_the_model():
    scores = torch.ones(2, requires_grad=True) * 2
    assert not Attribution(scores, ("a", "b"), "m", "tiny").scores.requires_grad


def test_equal_is_only_itself():
    found, other = attribution(), attribution()
    assert found == found and found != other and found in [other, found] and len({found, other}) == 2


def test_nothing_can_be_changed_afterwards():
    details = {"residual": 0.5}
    found = attribution(details=details)
    details["residual"] = 1.0
    assert found.details["residual"] == 0.5
    with pytest.raises(FrozenInstanceError):
        found.scores = torch.ones(5)
    with pytest.raises(TypeError):
        found.details["residual"] = 1.0


def test_signed_scores_may_be_negative():
    assert attribution([-2.0, 1.0], ["a", "b"], signed=True).top(1) == ("b",)


# What it refuses


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"scores": [0.0] * 5}, "every score is zero"),
        ({"scores": [0.0] * 5, "signed": True}, "every score is zero"),
        ({"scores": [1.0, float("nan"), 0, 0, 0]}, r"scores holds 1 of 5 .* the first at \(1,\)"),
        ({"scores": [1.0, 0, 0, 0, float("inf")]}, r"scores holds 1 of 5 .* the first at \(4,\)"),
        ({"scores": [1.0, 0, 0, 0, -0.25]}, "unsigned method returned -0.25"),
        ({"scores": [1.0, 2.0]}, r"scores \(2,\) for 5 labelled tokens"),
        ({"scores": [[1.0, 2.0]] * 5}, r"scores \(5, 2\) for 5 labelled tokens"),
        ({"scores": [], "labels": ()}, "every score is zero"),
        ({"grid": (2, 3)}, r"5 scores do not fill a grid of \(2, 3\)"),
    ],
)
def test_what_is_no_explanation_is_refused_by_name(wrong, what):
    with pytest.raises(ValueError, match=f"^rollout on tiny: .*{what}"):
        attribution(**wrong)


def test_words_without_any_score_are_refused():
    with pytest.raises(ValueError, match="every score is zero"):
        attribution([1.0, 0, 0, 0, 1.0]).words()


def test_a_text_has_no_picture():
    with pytest.raises(ValueError, match="rollout on tiny explains a text"):
        attribution().picture()
