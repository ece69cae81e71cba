"""What a model does without a direction: it is gone inside, back afterwards, and has its price."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.gender import removal
from xai_utils.samples.gender import Probe

PROBES = [Probe(f"the {word} is [MASK] .", word, pair=("warm", "dull")) for word in ("film", "plot", "friends")]
TEXTS = ["the film is warm and funny and not dull", "the plot is slow and the film is warm"]
SHORT = ["the film is warm", "the film is warm"]


def test_a_direction_changes_the_answer_and_the_model_is_itself_again(rays):
    model = tiny.mlm()
    before = removal.measure(model, PROBES, TEXTS)
    after = removal.measure(model, PROBES, TEXTS, rays.double())
    assert (before.leaning - after.leaning).any() and (before.losses - after.losses).abs().max() > 1e-6
    again = removal.measure(model, PROBES)
    assert torch.equal(again.probabilities, before.probabilities) and not len(again.price)
    alone = removal.measure(model, PROBES, (), rays.double(), [1])
    assert not np.allclose(alone.leaning, before.leaning) and not np.allclose(alone.leaning, after.leaning)
    np.testing.assert_allclose(before.leaning, (before.probabilities[:, 0] / before.probabilities[:, 1]).log())
    assert before.spread.mean() == pytest.approx(np.abs(before.leaning - before.leaning.mean()).mean())
    assert "perplexity" in str(before) and "perplexity" not in str(again)


def test_losses_of_hidden_words_are_those_of_the_model_and_every_word_gets_its_turn():
    losses, owner = removal.word_losses(tiny.mlm(), SHORT, every=2)
    assert owner.tolist() == [0, 0, 1, 1]
    reader = tiny.mlm().tokenizer
    hidden = reader("[MASK] film [MASK] warm", return_tensors="pt")
    logits = tiny.mlm().module(input_ids=hidden["input_ids"], attention_mask=hidden["attention_mask"]).logits[0]
    truth = torch.tensor(reader.convert_tokens_to_ids(["the", "is"]))
    expected = torch.nn.functional.cross_entropy(logits[[1, 3]], truth, reduction="none")
    assert min(float((losses[:2] - expected).abs().max()), float((losses[2:] - expected).abs().max())) < 1e-9


def test_the_price_is_a_mean_over_each_text():
    owner, losses = torch.tensor([0, 0, 2]), torch.tensor([1.0, 3.0, 5.0])
    one = removal.Measured(("he", "she"), torch.ones(1, 2), losses, owner, 3)
    assert one.price.tolist() == [2, 0, 5]


def test_random_directions_have_length_one_and_a_seed(rays):
    one = removal.random_directions(rays, 3)
    torch.testing.assert_close(one.norm(dim=-1), torch.ones(len(rays)))
    assert torch.equal(one, removal.random_directions(rays, 3)) and not torch.equal(
        one, removal.random_directions(rays, 4)
    )
