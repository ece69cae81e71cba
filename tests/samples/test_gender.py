"""Sentences about gender: enough of them, partners that differ in one word, probes, counterfactuals, bad pairs."""

import pytest

from xai_utils.samples import gender

PAIRS = (("he", "she"), ("man", "woman"))


def test_there_are_enough_sentences_and_partners_differ_in_the_word_only():
    male, female = gender.gendered()
    assert len(gender.pairs()) >= 30 and len(gender.words()["contexts"]) >= 40 and len(male) >= 5000
    known = set(gender.pairs())
    for one, other in zip(male, female, strict=True):
        assert one.male and not other.male and (one.word, other.word) in known
        assert one.text[: one.start] == other.text[: other.start] and one.text[one.end :] == other.text[other.end :]
    assert len({item.text for item in male}) == len(male)


def test_every_word_is_one_piece_of_berts_vocabulary(minilm):
    assert all(len(minilm.tokenizer.tokenize(word)) == 1 for pair in gender.pairs() for word in pair)


def test_every_context_is_a_probe_too():
    found = [probe.text for probe in gender.open_contexts()]
    assert len(found) >= 40 == len(set(found[:40])) and all(
        text.count("[MASK]") == 1 and "{" not in text for text in found
    )


def test_probes_hold_one_mask_their_word_and_the_pair_that_is_asked_for():
    for kind in gender.KINDS:
        for probe in gender.probes(kind, ["man", "woman"]):
            assert probe.text.count("[MASK]") == 1 and probe.word in probe.text and probe.other in probe.text
            assert probe.kind == kind and probe.pair == ("man", "woman"), "a list, as from a YAML file, is a pair too"
    assert gender.open_contexts()[0].pair == ("he", "she")
    with pytest.raises(ValueError, match="kind is 'verbs'"):
        gender.probes("verbs")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([("she", "he")], "swapped"),
        ([("he", "he")], "no pair of two different"),
        ([("he",)], "no pair of two different"),
        ([("lad", "lass"), ("lass", "dame")], "both sides"),
        ([], "no gender pair"),
    ],
)
def test_bad_pairs_are_refused(given, match):
    with pytest.raises(ValueError, match=match):
        gender.check_pairs(given)


def test_swapping_keeps_capitals_and_tells_his_from_him():
    swapped = gender.swap("He gave her book to him, and She saw her.", PAIRS)
    assert swapped == "She gave his book to her, and He saw him."


def test_occurrences_are_whole_words_with_their_own_side():
    found = gender.occurrences("The woman, he and the manner of man", PAIRS)
    assert [(item.word, item.male) for item in found] == [("woman", False), ("he", True), ("man", True)]


def test_a_word_stands_in_its_context_with_an_article_and_a_capital_where_it_needs_one():
    filled = [
        gender._filled(context, word, True) for context in ("{who} left.", "So {who} left.") for word in ("he", "man")
    ]
    assert [item.text for item in filled] == ["He left.", "The man left.", "So he left.", "So the man left."]
    assert [item.text[item.start : item.end] for item in filled] == ["He", "man", "he", "man"]


def test_all_professions_are_there_and_some_have_a_gender_by_definition():
    rated = gender.professions()
    assert len(rated) == 320 and rated["waitress"] == (-0.9, -0.1) and rated["taxi driver"] == (0.1, 0.9)
    assert all(-1 <= value <= 1 for pair in rated.values() for value in pair)
    groups = {probe.word: probe.group for probe in gender.probes("occupation")}
    assert len(groups) == 320 and groups["nun"] == "by definition" and not groups["nurse"]


def test_definitions_come_as_couples_and_leave_plurals_and_pronouns_out():
    found = gender.definitions()
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one.word, other.word) == (other.other, one.other) and (one.word, one.other) in gender.pairs()
        assert (one.group, other.group) == ("male", "female") and one.text.replace(one.word, other.word) == other.text
    words = {probe.word for probe in found}
    assert not words & {"he", "she", *gender.words()["plural"]} and {"king", "queen"} <= words
    assert set(gender.words()["plural"]) <= {male for male, _ in gender.pairs()}


def test_everyday_sentences_stop_before_the_mask_for_a_model_that_goes_on():
    whole, begun = gender.everyday(["nurse"]), gender.everyday(["nurse"], masked=False)
    assert len(whole) == len(begun) == len(gender.words()["templates"]["definition"])
    assert all(
        one.text.startswith(f"{other.text} [MASK]") and "nurse" in other.text
        for one, other in zip(whole, begun, strict=True)
    )


def test_agreement_asks_is_or_are_of_the_noun_and_not_of_the_other_one():
    found = gender.agreements()
    assert {probe.pair for probe in found} == {("is", "are")}
    assert sum(probe.group == "one" for probe in found) * 2 == len(found)
    assert all(f" {probe.word} " in probe.text and "{" not in probe.text for probe in found)


def test_fewer_places_keep_every_context_and_pair():
    some, _ = gender.gendered(places=1)
    assert len(some) == len(gender.words()["contexts"]) * len(gender.pairs())
    assert {item.text for item in some} <= {item.text for item in gender.gendered()[0]}
