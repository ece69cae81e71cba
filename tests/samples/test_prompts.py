"""Prompts of known cause: spans are right for every draw, edits change what they should and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import steady

from xai_utils.samples import Text, prompts, sets

TASKS = tuple(prompts.TASKS)
EACH = pytest.mark.parametrize("task", TASKS)
DRAWN = {"task": st.sampled_from(TASKS), "seed": st.integers(0, 10_000)}


def at(prompt, spans):
    return [prompt.text[start:end] for start, end in spans]


def words(text):
    return re.findall(r"\w+", text)


def changed(one, other):
    """Return the pairs of words in which two texts differ; both have as many."""
    return {pair for pair in zip(words(one), words(other), strict=True) if len(set(pair)) == 2}


@steady
@given(**DRAWN)
def test_the_spans_say_what_the_words_say(task, seed):
    one = prompts.draw(task, seed)
    (decisive,), (rival,) = at(one, one.rationale), at(one, one.rival)
    assert isinstance(one, Text) and (one.kind, one.name) == (task, f"{task}:{seed}")
    assert one.answer != one.distractor and {one.answer, one.distractor} <= set(one.candidates)
    assert len(set(one.candidates)) == len(one.candidates) and not re.search(r"[{}]|\s$", one.text)
    if task == "agreement":
        assert decisive.endswith("s") == (one.answer in ("are", "were", "have")) != rival.endswith("s")
        assert one.asking == () and one.answer not in words(one.text)
    else:
        assert (decisive, rival) == (one.answer, one.distractor)
        assert words(one.text).count(decisive) == 1
        assert one.asking[0][0] > max(one.rationale[0][1], one.rival[0][1])
    first = words(one.text)[0]
    assert one.text.startswith(first) and one.rationale[0][0] >= len(first), "the first token is never the cause"


@steady
@given(**DRAWN)
def test_an_edit_changes_one_entry_and_the_answer_only_if_it_should(task, seed):
    one = prompts.draw(task, seed)
    (decisive,) = at(one, one.rationale)
    roles = [edit.role for edit in one.edits]
    assert roles.count("answer") == 1 and "other" in roles and roles.count("question") == (task != "agreement")
    assert len({edit.text for edit in one.versions}) == len(one.versions)
    for edit in one.edits:
        assert edit.answer in one.candidates and (edit.answer == one.answer) == (edit.role == "other")
        if edit.role == "question":
            assert edit.answer == one.distractor
            assert edit.text.startswith(one.text[: one.asking[0][0]]), "what is asked changes, the entries do not"
            continue
        ((before, after),) = changed(one.text, edit.text)
        assert (before == decisive) == (edit.role == "answer") and before not in words(edit.text)
        if task != "agreement":
            assert after not in words(one.text) and (edit.role == "other" or after == edit.answer)


@EACH
def test_every_draw_can_be_had_again_and_every_seed_is_another_one(task):
    some = prompts.draws(task, 30, first=5)
    assert some == [prompts.draw(task, seed) for seed in range(5, 35)]
    assert len({one.text for one in some}) >= 29


@EACH
def test_the_decisive_word_stands_at_many_places(task):
    some = prompts.draws(task, 60)
    places = [len(words(one.text[: one.rationale[0][0]])) for one in some]
    before = [one.rationale < one.rival for one in some]
    assert len(set(places)) >= 3, "a map that goes by the place is found out"
    assert 0.2 < sum(before) / len(before) < 0.8


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="task"):
        prompts.draw("riddle", 0)
    with pytest.raises(ValueError, match="number"):
        prompts.draws("notes", 0)


@EACH
def test_a_plan_of_a_sweep_names_them(task):
    spec = {"set": "prompts", "task": task, "number": 3, "first": 4}
    assert sets.take(spec, 0, 9) == prompts.draws(task, 3, 4)
    assert sets.find(spec).names == tuple(f"{task}:{seed}" for seed in (4, 5, 6))
    assert sets.digest(prompts.draws(task, 2)) != sets.digest(prompts.draws(task, 2, 1))
    with pytest.raises(ValueError, match="needs the option 'task'"):
        sets.find({"set": "prompts"})


@steady
@given(**DRAWN, behind=st.booleans())
def test_an_echo_says_the_answer_where_it_decides_nothing(task, seed, behind):
    one = prompts.draw(task, seed)
    echo = prompts.echoed(one, behind)
    (decisive,), (rival,) = at(echo, echo.rationale), at(echo, echo.rival)
    assert rival == echo.answer == one.answer and at(echo, echo.asking) == at(one, one.asking)
    assert decisive == at(one, one.rationale)[0] and words(echo.text).count(rival) == 1 + words(one.text).count(rival)
    assert (echo.rival > echo.rationale) == (behind and task != "agreement")
    *edits, turned = echo.edits
    line = prompts.ECHOES[task].format(word=one.answer)
    assert [edit.text.replace(line, "", 1) for edit in edits] == [edit.text for edit in one.edits]
    assert [(edit.role, edit.answer) for edit in edits] == [(edit.role, edit.answer) for edit in one.edits]
    assert changed(echo.text, turned.text) == {(one.answer, one.distractor)}
    assert (turned.role, turned.answer) == ("other", one.answer)
    place = echo.rival[0][0]
    assert all(edit.text[place:].startswith(one.answer) or edit.role in ("answer", "other") for edit in edits)
