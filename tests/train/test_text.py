"""The text recipes, on sentences made up here in place of SST-2."""

import json

import numpy as np
import pytest
import tiny_recipes
import torch

from xai_utils import runtime, samples, train
from xai_utils.models import bundled
from xai_utils.train import text
from xai_utils.train.text import DeeperSST2, DeepSST2, word_pieces

SAME = torch.testing.assert_close


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setattr(text, "sst2", tiny_recipes.sst2)


class Shallow(DeepSST2):
    layers, width, steps, batch, words, warmup, pool, peak = 1, 64, 100, 16, 300, 5, 4, 1e-2


def test_a_deep_model_learns_is_shipped_and_loads_as_a_plain_bert(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    card = train.train("bert12-sst2", Shallow(), tmp_path / "models/bert12-sst2", tmp_path / "one.pt")
    assert card["measured"]["sst2_validation_accuracy"] > 0.95 and card["measured"]["n"] == 100
    assert set(card["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    loaded = bundled.bundled_text("bert12-sst2", None)
    assert type(loaded.module).__name__ == "BertForSequenceClassification" and loaded.classes == samples.SENTIMENT
    inputs = loaded.tokenizer(["a tender plot", "a stale cast indeed"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert loaded.module(**inputs).logits.argmax(-1).tolist() == [1, 0]


def test_a_damaged_vocabulary_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "DATA", tmp_path)

    class Untrained(Shallow):
        steps = 1

    train.train("bert12-sst2", Untrained(), tmp_path / "models/bert12-sst2", tmp_path / "one.pt")
    file = tmp_path / "models/bert12-sst2/tokenizer.json"
    file.write_text(file.read_text().replace("film", "flim"))
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        bundled.bundled_text("bert12-sst2", None)


def test_the_vocabulary_keeps_what_is_frequent_and_knows_every_letter():
    sentences, _ = text.sst2("train")
    pieces, again = word_pieces(sentences, 200), word_pieces(sentences, 200)
    assert pieces.get_vocab() == again.get_vocab() and len(word_pieces(sentences, 150)) == 150
    assert pieces.tokenize("a witty Film") == ["a", "witty", "film"]
    assert pieces.unk_token not in pieces.tokenize("quixotic, 1999?") and pieces("")["input_ids"] == [
        pieces.cls_token_id,
        pieces.sep_token_id,
    ]
    assert json.loads(pieces.backend_tokenizer.to_str())["model"]["type"] == "WordPiece"


@pytest.mark.parametrize(("recipe", "layers"), [(DeepSST2, 12), (DeeperSST2, 24)])
def test_the_deep_models_are_deep_narrow_and_start_as_almost_nothing(recipe, layers):
    recipe = recipe()
    model = recipe.build().eval()
    assert recipe.layers == layers == len(model.bert.encoder.layer) and recipe.width <= 128 and recipe.words <= 8000
    inputs = recipe.tokenizer("a witty film", return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
    SAME(states[1], states[0], atol=0.2, rtol=0)  # a residual branch adds little, so gradients reach every layer
    muon, rest = recipe.optimisers(model)
    held = [p for o in (muon, rest) for group in o.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))


def test_batches_hold_sentences_of_similar_length_and_cover_the_pool():
    recipe = Shallow()
    recipe.build()
    pool = [recipe._batch(step) for step in range(recipe.pool)]
    spread = [np.ptp(recipe.lengths[batch]) for batch in pool]
    assert np.mean(spread) < 0.6 * np.ptp(recipe.lengths)
    assert len(set(np.concatenate(pool))) == recipe.pool * recipe.batch
    assert np.array_equal(recipe._batch(7), recipe._batch(7)) and not np.array_equal(pool[0], recipe._batch(4))


def test_the_prior_of_the_training_labels_leaves_the_bias():
    recipe = Shallow()
    model = recipe.build()
    before = model.classifier.bias.clone()
    recipe.finish(model)
    share = recipe.labels.mean()
    SAME(model.classifier.bias - before, torch.tensor([0.0, -float(np.log(share / (1 - share)))]))


class ShortAdapter(text.MiniLMSST2):
    steps, warmup, select_from, select_every, batch, pool = 4, 2, 2, 2, 8, 4


def test_an_adapter_on_minilm_comes_back_as_it_was_trained(tmp_path, monkeypatch):
    recipe, kept = ShortAdapter(), []
    finish = recipe.finish
    recipe.finish = lambda module: (finish(module), kept.append(module))
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    card = train.train("minilm-sst2", recipe, tmp_path / "models/minilm-sst2", tmp_path / "one.pt", quiet=True)
    assert set(card["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert card["base_sha256"] == bundled.MINILM_SHA256 and card["measured"]["n"] == 100
    loaded = bundled.minilm_adapter("minilm-sst2", None)
    inputs = loaded.tokenizer(["a tender plot", "a stale cast indeed"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        SAME(loaded.module(**inputs).logits, kept[0].eval()(**inputs).logits, atol=0.02, rtol=0.01)  # half precision


def test_words_are_hidden_and_special_tokens_are_not():
    recipe, seen = Shallow(), []
    recipe.dropped = 0.5
    model = recipe.build()
    forward = model.forward
    model.forward = lambda **given: seen.append(given["input_ids"]) or forward(**given)
    recipe.loss(model, 0)
    special = torch.tensor([recipe.tokenizer.cls_token_id, recipe.tokenizer.sep_token_id])
    assert (seen[0][:, 0] == special[0]).all() and torch.isin(seen[0], special).sum() == 2 * len(seen[0])
    words = (seen[0] != recipe.tokenizer.pad_token_id).sum() - 2 * len(seen[0])
    assert 0.3 < (seen[0] == recipe.tokenizer.mask_token_id).sum() / words < 0.7
