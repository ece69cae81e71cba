"""Parts of a text: by hand, and refusals."""

import pytest

from xai_utils.samples import spans

TEXT = "Mr Poe's cat, at 3.5 kg, sat.  Did it?\nNo!"


def read(into):
    return [TEXT[slice(*one)] for one in spans.parts(TEXT, into)]


def test_words_keep_apostrophes_and_marks_are_their_own():
    assert read("words") == ["Mr", "Poe's", "cat", ",", "at", "3", ".", "5", "kg", ",", "sat", ".", "Did", "it", "?",
                             "No", "!"]  # fmt: skip


def test_sentences_end_at_a_mark_before_a_blank_or_at_a_line_break():
    assert read("sentences") == ["Mr Poe's cat, at 3.5 kg, sat.", "Did it?", "No!"]
    assert [TEXT[:6][slice(*one)] for one in spans.parts("no end\n\nhere")] and len(spans.parts("no end\n\nhere")) == 2


def test_clauses_end_at_a_comma_too():
    assert read("clauses") == ["Mr Poe's cat,", "at 3.5 kg,", "sat.", "Did it?", "No!"]
    assert [one for one in spans.parts("a: b", "clauses")] == [(0, 2), (3, 4)]


def test_groups_have_names_that_differ():
    assert spans.named("no, no no", "words") == {"no": [(0, 2)], ",": [(2, 3)], "no (2)": [(4, 6)], "no (3)": [(7, 9)]}
    assert spans.named("no, no no", [(0, 3), (4, 9)]) == {"no,": [(0, 3)], "no no": [(4, 9)]}
    assert spans.named("no, no no", {"all": [(4, 9), (0, 2)]}) == {"all": [(4, 9), (0, 2)]}


def test_a_token_belongs_to_where_its_last_character_that_is_no_blank_lies():
    text, tokens = "ab cd\n", [(0, 0), (0, 2), (2, 4), (4, 5), (5, 6)]
    assert spans.owners(text, tokens, [[(0, 2)], [(3, 5)]]) == [-1, 0, 1, 1, -1]
    assert spans.owners(text, [(2, 6)], [[(0, 3)], [(3, 5)]]) == [1]
    assert spans.owners(text, [(5, 6)], [[(5, 6)]]) == [0], "a line break has no other character"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("letters", "parts of a text is 'letters', expected one of: words, sentences, clauses"),
        ([(0, 3), (2, 4)], r"the spans \(0, 3\) and \(2, 4\) overlap"),
        ({"a": [(0, 3)], "b": [(2, 4)]}, "overlap"),
        ([(3, 3)], r"the span \(3, 3\) is empty or outside a text of 5 characters"),
        ([(3, 9)], "outside a text of 5 characters"),
    ],
)
def test_other_parts_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        spans.named("ab cd", groups)
    with pytest.raises(ValueError, match="has no sentences"):
        spans.parts("  \n")
