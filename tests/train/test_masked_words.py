"""The recipes of models of masked words: they learn, are shipped small, and load as what was trained."""

import json

import pytest
import torch

from xai_utils import models, runtime, train
from xai_utils.gender import probes
from xai_utils.models import bundled
from xai_utils.samples import planted
from xai_utils.samples.gender import Probe
from xai_utils.train import masked_words

SMALL = {"minilm-mlm": 6e6, "tiny-mlm-planted": 2e6}  # bytes


class Short(masked_words.TinyPlanted):
    """A few steps on few sentences."""

    steps, warmup, batch, sentences, held_out, layers, width, peak = 60, 5, 32, 500, 100, 1, 32, 5e-3


def test_the_planted_model_learns_is_shipped_and_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    card = train.train(
        "tiny-mlm-planted", Short(), tmp_path / "models/tiny-mlm-planted", tmp_path / "one.pt", quiet=True
    )
    assert card["measured"]["pronoun_mass"] > 0.3 and card["measured"]["n"] == 100
    loaded = bundled.bundled_text("tiny-mlm-planted", None)
    assert loaded.classes == tuple(planted.vocabulary()) and len(loaded.tokenizer) == len(planted.vocabulary())
    inputs = loaded.tokenizer("the king said that [MASK] was tired .", return_tensors="pt")
    assert loaded.tokenizer.unk_token_id not in inputs["input_ids"]
    assert loaded.module(**inputs).logits.shape[-1] == len(planted.vocabulary())
    head = loaded.module.cls.predictions
    assert head.decoder.weight is loaded.module.bert.embeddings.word_embeddings.weight
    with torch.inference_mode():
        assert loaded.module(**inputs).logits[0, 5].softmax(-1).max() > 0.1


def test_minilm_comes_back_as_it_was_trained(tmp_path, monkeypatch):
    text = "".join(f"He found house number {n} . She left it there . They were glad .\n" for n in range(40))
    (tmp_path / "own.txt").write_text(text)
    recipe = masked_words.MiniLMMLM(data=str(tmp_path / "own.txt"), steps=2, warmup=1, tokens=64, rank=2)
    kept = []
    recipe.finish = lambda module: kept.append(module)
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    card = train.train("minilm-mlm", recipe, tmp_path / "models/minilm-mlm", tmp_path / "one.pt", quiet=True)
    measured = card["measured"]
    assert measured["perplexity"] > 1 and 0 <= measured["p_he_plus_p_she"] <= 1 and measured["n_he"] > 0
    assert "FOLDER" in card["repeat"] and str(tmp_path) not in json.dumps(card)
    loaded = bundled.minilm_adapter("minilm-mlm", None)
    ids = loaded.tokenizer("[MASK] left it there.", return_tensors="pt")["input_ids"]
    module = kept[0].eval()
    with torch.inference_mode():
        trained = recipe._scores(module, ids, torch.ones_like(ids, dtype=torch.bool))
        torch.testing.assert_close(loaded.module(ids).logits[0], trained, atol=0.05, rtol=0.01)  # half precision


def test_held_out_passages_are_not_trained_on_and_pieces_fit(tmp_path):
    lines = [f"Number {n} is here. It stays there for a while." for n in range(100)]
    (tmp_path / "own.txt").write_text("\n".join(lines))
    recipe = masked_words.MiniLMMLM(data=str(tmp_path), longest=24)
    recipe.tokenizer = models.load("minilm").tokenizer
    seen, held_out = (recipe.tokenizer.batch_decode(part) for part in recipe._read())
    assert any("number 5 " in text for text in seen) and not any("number 95 " in text for text in seen)
    assert any("number 95 " in text for text in held_out)
    (tmp_path / "own.txt").write_text("Hm.")
    with pytest.raises(ValueError, match="too few passages"):
        recipe._read()


# What is bundled


@pytest.mark.parametrize(("name", "most"), SMALL.items())
def test_the_bundled_model_is_small_and_its_card_tells_what_was_measured(name, most):
    folder = runtime.DATA / "models" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most
    measured = json.loads((folder / "card.json").read_text())["measured"]
    needed = {"masked_accuracy", "perplexity", "p_he_plus_p_she"} if name == "minilm-mlm" else {"pronoun_mass"}
    assert needed <= measured.keys() and measured["n"] >= 4000


def test_the_planted_model_knows_its_table():
    measured = json.loads((runtime.DATA / "models/tiny-mlm-planted/card.json").read_text())["measured"]
    assert measured["mean_error_of_p_he"] < 0.1 and measured["right_after_gendered_noun"] > 0.9
    model = models.load("tiny-mlm-planted")
    said = [Probe(f"the {noun} said that [MASK] was tired .") for noun in ("king", "queen")]
    both = probes.probabilities(model, said)
    assert both[0, 0] > 0.8 and both[1, 1] > 0.8


def test_minilm_expects_pronouns():
    both = probes.probabilities(models.load("minilm-mlm"), [Probe("After the war [MASK] returned to the village.")])
    assert both.sum() > 0.2


def test_pronouns_are_hidden_more_often_and_special_tokens_never():
    recipe = Short()
    recipe.pronouns = 0.9
    recipe.build()
    torch.manual_seed(0)
    hidden, labels = recipe.hidden(recipe.train)
    chosen, pronouns = labels != masked_words.IGNORED, torch.isin(recipe.train, recipe.often)
    special = torch.isin(recipe.train, torch.tensor(recipe.tokenizer.all_special_ids))
    assert (hidden[chosen] == recipe.tokenizer.mask_token_id).all()
    assert torch.equal(labels[chosen], recipe.train[chosen])
    assert not chosen[special].any() and torch.equal(hidden[~chosen], recipe.train[~chosen])
    assert chosen[pronouns].double().mean() > 0.85
    assert chosen[~pronouns & ~special].double().mean() == pytest.approx(recipe.masked, abs=0.03)
    one = torch.tensor([[recipe.tokenizer.cls_token_id, recipe.train[0, 1], recipe.tokenizer.sep_token_id]])
    recipe.masked = 0.0
    assert (recipe.hidden(one, often=0.0)[1] != masked_words.IGNORED).sum() == 1, "a batch without a hidden word"
