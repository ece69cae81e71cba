"""The planted language: its shares are those of its table, its words are known, and its kinds say what decides."""

import numpy as np
import pytest

from xai_utils.samples import planted


def test_the_planted_shares_are_those_of_the_table():
    drawn, table = planted.corpus(6000, 3), planted.table()
    assert drawn == planted.corpus(6000, 3) != planted.corpus(6000, 4)
    told = [s for s in drawn if s.job]
    for band in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        some = [s for s in told if band[0] <= table[s.job] < band[1]]
        expected = np.mean([table[s.job] for s in some])
        assert np.mean([s.male for s in some]) == pytest.approx(expected, abs=4 * (0.25 / len(some)) ** 0.5)
    vocabulary = set(planted.vocabulary())
    assert all(word in vocabulary for s in drawn for word in s.text.split())
    male = {
        word for pair in [*planted.language()["pairs"], *planted.language()["pronouns"].values()] for word in pair[:1]
    }
    assert all(s.male == bool(male & set(s.text.split())) for s in drawn)


def test_a_kind_says_what_decides_and_the_words_named_stand_in_the_sentence():
    drawn, jobs = planted.corpus(3000, 1), set(planted.table())
    for sentence in drawn:
        named = [word for word in sentence.text.split() if word in jobs]
        assert sorted(named) == sorted(filter(None, [sentence.job, sentence.other]))
        assert bool(sentence.job) == (sentence.kind != "noun") and (sentence.kind != "two" or sentence.other)
    for kind, share in planted.language()["share"].items():
        assert np.mean([s.kind == kind for s in drawn]) == pytest.approx(share, abs=0.04)


def test_the_vocabulary_begins_with_the_special_tokens_and_names_each_word_once():
    words = planted.vocabulary()
    assert tuple(words[: len(planted.SPECIAL)]) == planted.SPECIAL and len(set(words)) == len(words)
