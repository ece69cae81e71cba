"""What a model does without a direction: it is gone inside, back afterwards, and has its price."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from xai_utils.gender import erasure, probes, removal
from xai_utils.samples.gender import Probe, pairs

PAIR = ("warm", "dull")
ABOUT = [
    Probe(f"the {word} is [MASK] .", word, group=("male", "female")[i % 2], other=other, pair=PAIR)
    for i, (word, other) in enumerate((("film", "plot"), ("plot", "film"), ("friends", "slow"), ("slow", "friends")))
]
TEXTS = ["the film is warm and funny and not dull", "the plot is slow and the film is warm"]
SHORT = ["the film is warm", "the film is warm"]
NOUNS = [replace(one, group=("one", "many")[i % 2]) for i, one in enumerate(ABOUT)]
ASKED = removal.Asked(ABOUT, [replace(one, group="") for one in ABOUT], NOUNS, TEXTS)


def edits(rays):
    return [erasure.projection(ray.double()) for ray in rays]


def test_a_direction_changes_every_answer_and_the_model_is_itself_again(rays):
    model = tiny.mlm()
    before, after = removal.measure(model, ASKED), removal.measure(model, ASKED, edits(rays))
    assert set(before) == set(after) == set(removal.OUTCOMES)
    assert all(not np.allclose(before[name], after[name]) for name in before)
    assert all(np.array_equal(removal.measure(model, ASKED)[name], before[name]) for name in before)
    alone = removal.measure(model, ASKED, edits(rays), [1])["definitions"]
    assert not np.allclose(alone, before["definitions"]) and not np.allclose(alone, after["definitions"])
    assert set(removal.measure(model, replace(ASKED, texts=[], agreements=[]))) == {"definitions", "occupations"}
    with pytest.raises(ValueError, match="one more than blocks"):
        removal.measure(model, ASKED, edits(rays)[:2])


def test_margins_count_for_the_side_that_is_right():
    found = removal.measure(tiny.mlm(), ASKED)
    log_odds = probes.observe(tiny.mlm(), ABOUT).log_odds
    np.testing.assert_allclose(found["definitions"], log_odds * [1, -1, 1, -1])
    np.testing.assert_allclose(found["occupations"], np.abs(log_odds - log_odds.mean()))
    losses, owner = removal.word_losses(tiny.mlm(), TEXTS)
    np.testing.assert_allclose(found["running text"], [-losses[owner == i].mean() for i in range(2)])


def test_losses_of_hidden_words_are_those_of_the_model_and_every_word_gets_its_turn():
    losses, owner = removal.word_losses(tiny.mlm(), SHORT, every=2)
    assert owner.tolist() == [0, 0, 1, 1]
    reader = tiny.mlm().tokenizer
    hidden = reader("[MASK] film [MASK] warm", return_tensors="pt")
    logits = tiny.mlm().module(input_ids=hidden["input_ids"], attention_mask=hidden["attention_mask"]).logits[0]
    truth = torch.tensor(reader.convert_tokens_to_ids(["the", "is"]))
    expected = torch.nn.functional.cross_entropy(logits[[1, 3]], truth, reduction="none")
    assert min(float((losses[:2] - expected).abs().max()), float((losses[2:] - expected).abs().max())) < 1e-9


def test_the_price_of_a_text_in_which_nothing_is_hidden_is_zero():
    assert removal.price(tiny.mlm(), ["the", *TEXTS])[0] == 0


def test_only_pairs_that_gave_no_direction_are_asked_and_no_occupation_with_a_gender():
    asked = removal.asked(TEXTS)
    odd = {word for pair in pairs()[1::2] for word in pair}
    assert asked.definitions and {probe.word for probe in asked.definitions} <= odd
    assert len(asked.occupations) > 50 and "waitress" not in {probe.word for probe in asked.occupations}
    counts = {name: len(set(asked.clusters(name))) for name in removal.OUTCOMES}
    assert counts["definitions"] * 6 == len(asked.definitions), "three templates, two sides"
    assert counts["agreement"] * 4 == len(asked.agreements) and counts["running text"] == len(TEXTS)


def test_controls_have_a_seed_and_follow_the_variance(rays):
    one, other = (removal.random_directions(rays, 3, 2) for _ in range(2))
    assert torch.equal(one[1][0].along, other[1][0].along) and not torch.equal(one[0][0].along, one[1][0].along)
    assert float(one[0][1].along.norm()) == pytest.approx(1)
    noise = torch.Generator().manual_seed(0)
    running = torch.randn(tiny.BLOCKS + 1, 200, tiny.WIDTH, generator=noise)
    running[..., 0] *= 50
    high = removal.high_variance(running, 0, 5)
    assert min(abs(float(draw[0].along[0])) for draw in high) > 0.9
    found = removal.controls(tiny.mlm(), ASKED, one)
    assert found["definitions"].shape == (2, 4)
    np.testing.assert_allclose(found["agreement"][1], removal.measure(tiny.mlm(), ASKED, one[1])["agreement"])


def test_a_change_is_that_of_the_means_over_the_draws():
    before = {"definitions": np.array([1.0, 2.0, 3.0, 4.0])}
    after = {"definitions": np.stack([before["definitions"] - 1, before["definitions"] - 3])}
    interval, p = removal.change(ASKED, before, after, 0)["definitions"]
    assert interval.mean == pytest.approx(-2) and p == pytest.approx(0.5), "two pairs of words exchange in four ways"


def test_what_goes_first_is_a_share_of_what_there_was():
    before = {"definitions": np.array([2.0, 4.0, 2.0, 4.0]), "occupations": np.array([1.0, 1.0, 1.0, 1.0])}
    after = {"definitions": np.array([1.0, 1.0, 1.0, 1.0]), "occupations": np.array([0.5, 1.0, 0.5, 1.0])}
    interval, p = removal.first_to_go(ASKED, before, after, 0)
    assert interval.mean == pytest.approx(2 / 3 - 1 / 4) and interval.n == 6, "two pairs of words, four occupations"
    assert p > 0.1
    assert removal.first_to_go(ASKED, before, before, 0)[0].mean == 0


def test_the_summary_has_a_row_for_every_change_and_the_range_of_its_draws():
    before = {"definitions": np.array([1.0, -1.0])}
    table = removal.summary(before, {"random": {"definitions": np.array([[1.0, 1.0], [3.0, -1.0], [2.0, 4.0]])}})
    assert list(table.index) == [("as it is", "definitions"), ("random", "definitions")]
    assert table.loc[("as it is", "definitions")].tolist() == [0, 0, 0, 0.5]
    assert table.loc[("random", "definitions")].tolist() == pytest.approx([5 / 3, 1, 3, 5 / 6])
