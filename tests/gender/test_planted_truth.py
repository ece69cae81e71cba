"""Scores against a planted table: order, averages, two occupations, and what chance gives."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.gender import planted_truth, probes
from xai_utils.samples import planted
from xai_utils.train.masked_words import TinyPlanted


@pytest.fixture(scope="module")
def untrained():
    recipe = TinyPlanted()
    recipe.sentences = recipe.held_out = 10
    torch.manual_seed(0)
    return tiny.masked("planted", recipe.build().eval().requires_grad_(False), recipe.tokenizer)


@pytest.fixture(scope="module")
def directions(untrained):
    vectors = planted_truth.directions(untrained, 1, 0)
    pairs = planted.language()["pairs"]
    assert vectors.group[: len(pairs) + 1].tolist() == [*range(len(pairs)), 0]
    return vectors.rays()[0]


def test_scores_come_in_the_order_of_the_table(untrained, directions):
    asked = planted_truth.questions("occupation", 1, 0)
    assert {q.word for q in asked} == set(planted.table()) and all(q.text.count("[MASK]") == 1 for q in asked)
    found = planted_truth.occupation_scores(untrained, asked, directions)
    assert len(found) == 10 and all(values.shape[1:] == (40,) for values in found.values())
    job = list(planted.table())[7]
    some = [q for q in asked if q.word == job]
    own = planted_truth.occupation_scores(untrained, some + asked, directions)
    np.testing.assert_allclose(own["AttCAT"][:, 7], found["AttCAT"][:, 7], atol=1e-6)
    expected = np.concatenate([one.of_word("AttDR", directions) for one in probes.by_pair(untrained, some)], 1).mean(1)
    np.testing.assert_allclose(found["AttDR"][:, 7], expected, atol=1e-5)
    assert found["AttDR"].shape == (4, 40) and found["logit difference"].shape == (1, 40)


def test_two_occupations_get_their_own_scores(untrained, directions):
    asked = planted_truth.questions("two", 2, 0)
    both = planted_truth.two_jobs(untrained, asked, directions)
    assert tuple(both) == tuple(planted_truth.OF_TOKENS) and all(values.shape == (3, 40) for values in both.values())
    assert all(((values[2] >= 0) & (values[2] <= 1)).all() for values in both.values())
    job = list(planted.table())[3]
    stands_by = list(probes.by_pair(untrained, [q for q in asked if q.other == job]))
    expected = np.concatenate([one.sums("AttCAT", other=True) for one in stands_by]).mean()
    assert both["AttCAT"][1, 3] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="in no question"):
        planted_truth.two_jobs(untrained, asked[:3], directions)


def test_the_table_recovers_itself_and_noise_does_not():
    truth = planted_truth.log_odds()
    noise = np.random.default_rng(0).normal(size=len(truth))
    found = planted_truth.recovered({"itself": truth, "turned": -truth, "noise": noise}, 0, 199)
    assert found["itself"].found.mean == pytest.approx(1) and found["turned"].found.mean == pytest.approx(-1)
    assert found["itself"].p == pytest.approx(1 / 200) and found["noise"].p > 0.05
    assert found["noise"].low < found["noise"].found.mean < found["noise"].high


def test_clear_scores_are_those_that_name_the_deciding_word_alone(untrained, directions):
    asked, again = (planted_truth.questions("two", 1, 0, filled) for filled in (0, 1))
    assert [(q.word, q.other) for q in asked] == [(q.word, q.other) for q in again]
    assert any(one.text != other.text for one, other in zip(asked, again, strict=True))
    found = planted_truth.clarity(untrained, asked, again, directions)
    assert tuple(found) == tuple(planted_truth.OF_TOKENS) and all(values.shape == (3, 40) for values in found.values())
    one = probes.observe(untrained, asked)
    sizes = one.scores("AttDR", directions).sum(0).abs() * one.explained
    decides, idle = ((sizes * one.where(which)).sum(-1) for which in (False, True))
    job = [q.word == asked[0].word for q in asked]
    assert found["AttDR"][0, 0] == pytest.approx(float((decides / (decides + idle))[job].mean()), abs=1e-5)
    assert found["AttDR"][1, 0] == pytest.approx(float((decides / sizes.sum(-1))[job].mean()), abs=1e-5)
    same = planted_truth.clarity(untrained, asked, asked, directions)
    np.testing.assert_allclose(same["AttCAT"][2], 1)
    with pytest.raises(ValueError, match="differ in length"):
        planted_truth.clarity(untrained, asked, again[1:] + again[:1], directions)
