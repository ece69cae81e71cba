"""What recipes share: rates, optimisers, hidden words, padding, adapters."""

import json

import pytest
import torch
from torch.optim import AdamW, Muon

from xai_utils.train import recipe
from xai_utils.train.recipe import Recipe, cosine, hide, muon_and_adamw, padded


def test_the_rate_rises_and_falls():
    rates = [cosine(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) <= 1 and rates[:9] == sorted(rates[:9])
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 1e-3
    assert cosine(50, 100, 10) == pytest.approx(0.5) and cosine(100, 100, 10) == pytest.approx(0)
    assert [cosine(step, 4, 1) for step in range(4)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_a_recipe_falls_from_its_peak_in_its_own_steps():
    class Short(Recipe):
        steps, warmup = 40, 4

    assert [Short().rate(step) for step in (0, 20, 39)] == [cosine(step, 40, 4) for step in (0, 20, 39)]
    assert not Short().repeat and not Short().patience


def test_adamw_takes_what_is_not_frozen():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    module[0].requires_grad_(False)
    (optimiser,) = Recipe().optimisers(module)
    (group,) = optimiser.param_groups
    assert group["params"] == list(module[1].parameters())
    assert (group["lr"], group["weight_decay"]) == (Recipe.peak, Recipe.decay)


def test_every_parameter_has_one_optimiser_and_the_free_ones_no_decay():
    module = torch.nn.ModuleDict({"inner": torch.nn.Linear(3, 3), "outer": torch.nn.Linear(3, 3)})
    muon, adam = muon_and_adamw(
        module, 0.1, 0.05, lambda name: name.startswith("inner"), lambda _, parameter: parameter.ndim < 2
    )
    assert isinstance(muon, Muon) and isinstance(adam, AdamW)
    assert muon.param_groups[0]["params"] == [module["inner"].weight]  # its bias is no matrix
    held = {group["weight_decay"]: group["params"] for group in adam.param_groups}
    assert held[0.05] == [module["outer"].weight] and held[0.0] == [module["inner"].bias, module["outer"].bias]
    _, adam = muon_and_adamw(module, 0.1, 0.05, lambda name: True)
    assert [group["weight_decay"] for group in adam.param_groups] == [0.05]


def test_words_are_hidden_as_often_as_asked_and_special_tokens_never():
    ids = torch.arange(10).repeat(400, 1)
    torch.manual_seed(0)
    chosen = hide(ids, 0.3, (0, 9))
    assert not chosen[:, [0, 9]].any() and 0.27 < chosen[:, 1:9].double().mean() < 0.33
    share = torch.zeros(ids.shape)
    share[:, 4] = 1
    assert hide(ids, share, (0, 9)).nonzero()[:, 1].unique().tolist() == [4]
    assert not hide(ids, 0.0, ()).any() and hide(ids, 1.0, ()).all()


def test_rows_are_filled_up_at_their_ends():
    assert padded([[5], [6, 7, 8]], 2).tolist() == [[5, 2, 2], [6, 7, 8]]


def test_an_adapter_is_told_in_full_and_without_what_is_not_set():
    from peft import LoraConfig, get_peft_model

    base = torch.nn.ModuleDict({"query": torch.nn.Linear(4, 4), "other": torch.nn.Linear(4, 4)})
    adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=["query"]))
    tensors, settings = recipe.adapter(adapted)
    assert sorted(tuple(tensor.shape) for tensor in tensors.values()) == [(2, 4), (4, 2)]
    assert settings == {
        "peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["query"], "bias": "none"
    }  # fmt: skip
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("method", ["build", "facts"])
def test_what_a_recipe_must_say_has_no_default(method):
    with pytest.raises(NotImplementedError):
        getattr(Recipe(), method)()
