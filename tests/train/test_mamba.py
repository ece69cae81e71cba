"""The Mamba recipes: both learn, and what is shipped loads as it was trained."""

import pytest
import tiny_recipes
import torch

from xai_utils import models, runtime, samples
from xai_utils.samples import recall
from xai_utils.train import loop, mamba, text


def test_a_few_steps_of_the_recipe_learn():
    recipe = mamba.MambaRecall()
    recipe.shortest = recipe.longest = 6
    torch.manual_seed(0)
    module = recipe.build().train()
    (optimiser,) = recipe.optimisers(module)
    losses = []
    for step in range(12):
        loss = recipe.loss(module, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


class ShortRecall(mamba.MambaRecall):
    steps, warmup, batch, longest = 2, 1, 2, 20


class ShortSST2(mamba.MambaSST2):
    layers, width, steps, batch, words, warmup, pool = 2, 32, 2, 8, 300, 1, 4


@pytest.mark.parametrize(
    ("name", "recipe", "classes", "asked"),
    [("mamba-recall", ShortRecall, recall.LETTERS, "A B"), ("mamba-sst2", ShortSST2, samples.SENTIMENT, "a dull film")],
)
def test_what_is_shipped_loads_as_it_was_trained(name, recipe, classes, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "sst2", tiny_recipes.sst2)
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    one, kept = recipe(), []
    finish = one.finish
    one.finish = lambda module: (finish(module), kept.append(module))
    card = loop.train(name, one, tmp_path / "models" / name, tmp_path / "one.pt", quiet=True)
    assert set(card["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    model = models.load(name)
    assert model.classes == tuple(classes) == tuple(card["classes"])
    ids = model.tokenizer(asked, return_tensors="pt")["input_ids"]
    assert ids.tolist() == one.tokenizer(asked, return_tensors="pt")["input_ids"].tolist()
    with torch.inference_mode():
        trained, loaded = (module.eval()(ids).logits for module in (kept[0], model.module))
    torch.testing.assert_close(loaded, trained, atol=0.02, rtol=0.02)  # half precision


def test_the_mark_that_asks_is_added_and_never_ranked():
    read = mamba.letters_tokenizer()
    assert read.convert_ids_to_tokens(read("A B")["input_ids"]) == ["A", "B", recall.MARK]


def test_decays_skips_and_biases_of_the_scans_are_not_pulled_to_zero(monkeypatch):
    monkeypatch.setattr(text, "sst2", tiny_recipes.sst2)
    recipe = ShortSST2()
    module = recipe.build()
    _, adam = recipe.optimisers(module)
    free = {id(p) for group in adam.param_groups if not group["weight_decay"] for p in group["params"]}
    for name, parameter in module.named_parameters():
        assert (id(parameter) in free) == name.endswith(("A_log", ".D", "bias")), name
