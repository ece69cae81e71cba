"""The attention classifier is trained on anything labelled, split without overlap, and stops when nothing is gained."""

import json

import numpy as np
import pytest
import torch

from xai_utils import models, runtime, samples, train
from xai_utils.__main__ import main
from xai_utils.models import attention_classifier
from xai_utils.samples import Text
from xai_utils.train import attention
from xai_utils.train.attention import AttentionClassifierRecipe

SIZES = {"width": 8, "key_width": 4, "value_width": 4, "heads": 2, "max_position_embeddings": 16}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(runtime, "record", runtime.Record())
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def own(tmp_path):
    """Write texts whose label is told by one of two words."""
    noise = np.random.default_rng(0)
    rows = []
    for number in range(200):
        words = noise.choice("a plot film of the actor scene light".split(), 5).tolist()
        words[int(noise.integers(5))] = ("dull", "bright")[number % 2]
        rows.append({"text": " ".join(words), "label": ("worse", "better")[number % 2]})
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def recipe(own, **options):
    return AttentionClassifierRecipe(str(own), **{"sizes": SIZES, "peak": 0.02, "epochs": 8, **options})


def test_it_learns_and_is_loaded_as_it_was_measured(own, tmp_path, monkeypatch):
    card = train.train("own", recipe(own), tmp_path / "models" / "own", tmp_path / "own.pt", quiet=True)
    assert card["measured"]["n"] == 40 and card["measured"]["test_accuracy"] > 0.9
    assert card["measured"]["chosen_by_held_out_accuracy"] > 0.9 and card["classes"] == ["better", "worse"]
    assert card["repeat"].startswith("python -m xai_utils train attention-sst2 --data own.jsonl")
    monkeypatch.chdir(tmp_path)
    model = models.load("attention:models/own")
    coded = model.tokenizer(["the dull plot", "the bright plot"], return_tensors="pt")
    assert model.logits(dict(coded)).argmax(-1).tolist() == [1, 0]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder of a trained attention classifier"):
        models.load(f"attention:{tmp_path}")


def test_the_same_seed_makes_the_same_weights(own, tmp_path):
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        train.train(name, recipe(own, seed=seed, epochs=1), tmp_path / name, tmp_path / f"{name}.pt", quiet=True)
    one, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "same", "other"))
    assert one == same != other


def test_training_stops_when_nothing_is_gained(own, tmp_path):
    stopping = recipe(own, peak=0.0, epochs=50, patience=2)
    seen = []
    loss = stopping.loss
    stopping.loss = lambda module, step: seen.append(step) or loss(module, step)
    train.train("own", stopping, tmp_path / "own", tmp_path / "own.pt", quiet=True)
    assert len(seen) == 3 * stopping.select_every < stopping.steps


def test_an_epoch_sees_every_text_once(own):
    counted = recipe(own, batch=7)
    module = counted.build()
    seen = []
    padded = attention._padded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_padded", lambda pairs: seen.extend(map(id, pairs)) or padded(pairs))
        for step in range(counted.select_every):
            counted.loss(module, step)
    assert sorted(seen) == sorted(map(id, counted.train)) and len(set(seen)) == 120


def test_an_own_file_is_split_in_three(own):
    parts = attention.split(str(own), seed=0, share=0.1)
    names = [[text.name for text in part] for part in (parts.train, parts.choose, parts.measure)]
    assert [len(part) for part in names] == [160, 20, 20] and len({name for part in names for name in part}) == 200
    with pytest.raises(ValueError, match="too few to hold 0%"):
        attention.split(str(own), 0, 0.001)


def test_sst2_keeps_phrases_of_held_out_sentences_out(monkeypatch):
    rows = [f"a{i} b{i} c{i} d{i} e{i} f{i} g{i}" for i in range(20)] + [f"c{i} d{i}" for i in range(20)]
    rows += [f"z{i} b{i} c{i} d{i} e{i} f{i} g{i}" for i in range(20)] + [f"a{i} c{i} word" for i in range(20)]
    found = {
        "train": [Text(row, str(i), i % 2) for i, row in enumerate(rows)], "validation": [Text("good", "v", 1)]
    }  # fmt: skip
    monkeypatch.setattr(samples, "sst2", found.__getitem__)
    parts = attention.split("sst2", seed=3, share=0.1, longest=True)
    assert len(parts.choose) == 8 and parts.measure == found["validation"]
    assert all(len(text.text.split()) == 7 for text in parts.choose)
    for held in parts.choose:
        number = held.text.split()[-1][1:]
        near = [text.text for text in parts.train if number in {word[1:] for word in text.text.split()}]
        assert near == [f"a{number} c{number} word"]


def test_hidden_words_and_padding(own):
    hiding = recipe(own, hidden=0.5)
    module = hiding.build()
    seen = []
    module.forward = lambda ids, mask: seen.append((ids, mask)) or torch.zeros(len(ids), 2, requires_grad=True)
    hiding.loss(module, 0)
    ids, mask = seen[0]
    assert (ids[:, 0] == 0).all() and ((ids == 2) == (mask == 0)).all()
    assert 0.3 < float((ids[:, 1:] == 1).double().mean()) < 0.7


def test_rates(own):
    falling = recipe(own, cosine=True)
    falling.steps = 10
    assert recipe(own).rate(7) == 1 and falling.rate(0) == 1 and falling.rate(5) == pytest.approx(0.5)


def test_the_command_refuses_to_replace_the_bundled_model(capsys):
    assert main(["train", "attention-sst2", "--data", "own.csv"]) == 2
    assert "needs --out" in capsys.readouterr().err


def test_the_bundled_model_is_small_and_says_how_good_it_is():
    folder = runtime.DATA / "models" / "attention-sst2"
    card = json.loads((folder / "card.json").read_text())
    assert card["measured"]["n"] == 872 and card["measured"]["sst2_validation_accuracy"] > 0.75
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    module, read = attention_classifier.load(folder)
    assert len(read) <= 12_000 and module.config.heads == 6
