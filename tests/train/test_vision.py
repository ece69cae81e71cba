"""The vision recipes: scenes that nobody has seen, parts around the digit, first weights, and what is shipped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from _pytest.outcomes import Failed
from safetensors.torch import load_file
from tiny_recipes import RECIPES, TinyVim, TinyViT

from xai_utils import models, runtime
from xai_utils.models import bundled
from xai_utils.samples import scenes, watermark
from xai_utils.train import loop, vision

EACH = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return bundled.build_vision("VisionTransformer", TinyViT.arguments).eval()


@EACH
def test_the_folder_can_be_loaded_as_a_bundled_model(name, tmp_path, monkeypatch):
    class Measured(RECIPES[name]):
        evaluate = vision.ScenesRecipe.evaluate
        held_out = 50

    card = loop.train(name, Measured(), tmp_path / "models" / name, tmp_path / "checkpoints" / "one.pt")
    folder = tmp_path / "models" / name
    assert json.loads((folder / "card.json").read_text()) == json.loads(json.dumps(card))
    assert {path.name for path in folder.iterdir()} == {"card.json", "model.safetensors"}
    assert set(card["files"]) == {"model.safetensors"}
    assert (card["steps"], card["seed"], card["measured"]["n"]) == (5, 0, 50)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert oct(folder.stat().st_mode)[-3:] == "755"
    assert {oct(path.stat().st_mode)[-3:] for path in folder.iterdir()} == {"644"}
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    model = models.load(name)
    assert model.classes == scenes.CLASSES
    drawn = [scenes.draw(i) for i in range(50)]
    with torch.inference_mode():
        best = model.module(vision.normalised([scene.image for scene in drawn])).argmax(-1).tolist()
    right = sum((b,) == scene.classes for b, scene in zip(best, drawn, strict=True))
    assert abs(right / 50 - card["measured"]["single_top1"]) <= 0.04  # what is shipped is rounded to half precision
    assert 0 <= card["measured"]["pair_top2"] <= 1


@EACH
def test_training_never_draws_a_scene_twice_nor_one_that_is_held_out(name, monkeypatch):
    seen, draw = [], scenes.draw

    def watched(seed, objects=1, split="test", *rest):
        seen.append((seed, objects, split))
        return draw(seed, objects, split, *rest)

    monkeypatch.setattr(scenes, "draw", watched)
    recipe = RECIPES[name]()
    module = recipe.build()
    for step in (0, 1, 2, 4):
        recipe.loss(module, step)
    sizes = getattr(recipe, "batches", None) or (recipe.batch, recipe.batch)  # of two steps each
    assert len(set(seen)) == len(seen) == 2 * sum(sizes) and "test" not in {split for *_, split in seen}
    assert max(*vision.ViTScenes.batches, *vision.VimScenes.batches) <= 1000  # seeds of a step
    seen.clear()
    recipe.held_out = 50
    module.eval()
    vision.ScenesRecipe.evaluate(recipe, module)
    assert {split for *_, split in seen} == {"test"} and len(set(seen)) == len(seen) == 100


def test_features_of_all_tokens_are_the_models_own(vit):
    pixels = vision.normalised([scenes.draw(i).image for i in range(2)])
    whole = vit.forward_features(pixels)
    same = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(vision.features(vit, pixels, None), whole, **same)
    everything = torch.arange(14 * 14).expand(2, -1)
    torch.testing.assert_close(vision.features(vit, pixels, everything), whole, **same)
    order = torch.randperm(14 * 14, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    shuffled = vision.features(vit, pixels, order)
    torch.testing.assert_close(shuffled[:, 0], whole[:, 0], **same)
    torch.testing.assert_close(shuffled[:, 1:], whole[:, 1:][:, order[0]], **same)


def test_a_window_as_large_as_the_grid_is_the_grid():
    drawn = [scenes.draw(i, 1 + i % 3) for i in range(5)]
    assert vision.window(drawn, 14, 14).tolist() == [list(range(196))] * 5


@pytest.mark.parametrize("side", [4, 8])
def test_a_window_is_a_square_around_the_first_digit(side):
    drawn = [scenes.draw(i, 1, "train") for i in range(40)]
    for scene, seen in zip(drawn, vision.window(drawn, side, side), strict=True):
        rows, columns = seen // 14, seen % 14
        assert len(set(seen.tolist())) == side**2
        for axis in (rows, columns):
            assert 0 <= axis.min() and axis.max() <= 13 and axis.max() - axis.min() == side - 1
        centre = [axis.mean() / scenes.PATCH for axis in np.nonzero(scene.masks[0])]
        assert rows.min() <= centre[0] <= rows.max() + 1 and columns.min() <= centre[1] <= columns.max() + 1
        cover = scene.masks[0].reshape(14, 8, 14, 8).sum((1, 3)).ravel()
        if side == 8:
            assert cover[seen].sum() > 0.6 * cover.sum()


def test_targets_are_equal_shares_of_the_classes_present():
    drawn = [scenes.draw(i, objects) for i, objects in enumerate((1, 2, 3))]
    target = vision.shares(drawn)
    assert target.shape == (3, 10)
    for row, scene in zip(target, drawn, strict=True):
        assert row[list(scene.classes)].tolist() == pytest.approx([1 / len(scene.classes)] * len(scene.classes))
        assert row.sum().item() == pytest.approx(1)


def test_pixels_are_normalised_as_the_card_says():
    scene = scenes.draw(3)
    found = vision.normalised([scene.image])[0]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (vision.MEAN, vision.STD))
    torch.testing.assert_close(found * std + mean, torch.from_numpy(scene.image))


def test_mimetic_attention_looks_at_its_like_and_subtracts_it():
    torch.manual_seed(0)
    model = bundled.build_vision("VisionTransformer", {**TinyViT.arguments, "embed_dim": 96, "num_heads": 3})
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.requires_grad_(False)
    untouched = {name: tensor.clone() for name, tensor in model.state_dict().items() if "attn" not in name}
    vision.mimetic_(model)
    after = model.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == shapes
    assert all(torch.equal(after[name], tensor) for name, tensor in untouched.items())
    for block in model.blocks:
        query, key, value = block.attn.qkv.weight.unflatten(0, (3, 3, 32)).unbind(0)
        output = block.attn.proj.weight @ value.flatten(0, 1)
        assert output.diagonal().mean() == pytest.approx(-0.4, abs=0.03)
        assert (output + 0.4 * torch.eye(96)).std() == pytest.approx(0.4 / 96**0.5, rel=0.1)
        for head in range(3):
            met = query[head].T @ key[head]
            assert torch.linalg.matrix_rank(met) == 32 and met.diagonal().mean() > 0.15
            assert met.diagonal().mean() > 10 * (met.sum() - met.trace()).abs() / (96 * 95)


def test_positions_begin_as_waves_of_row_and_column():
    model = bundled.build_vision("VisionTransformer", TinyViT.arguments)
    vision.positions_(model)
    found = model.pos_embed[0].detach()
    assert found.shape == (197, 24) and not found[0].any() and found.abs().max() <= 0.5
    grid = found[1:].view(14, 14, 24)
    torch.testing.assert_close(grid[:, 0, :12], grid[:, 9, :12])  # the first half tells the row
    torch.testing.assert_close(grid[0, :, 12:], grid[9, :, 12:])  # the second half tells the column
    assert torch.linalg.matrix_rank(grid[:, 0, :12]) > 1
    same = torch.nn.functional.cosine_similarity(found[None, 1:], found[1:, None], dim=-1)
    assert (same - torch.eye(196)).max() < 1 - 1e-4, "two patches share a position"


def test_a_strip_is_whole_rows_around_the_first_digit():
    drawn = [scenes.draw(seed, 1, "train") for seed in range(20)]
    found = vision.window(drawn, 8, vision.GRID)
    assert found.shape == (20, 8 * vision.GRID) and (found.diff(dim=1) == 1).all()
    assert not (found[:, 0] % vision.GRID).any() and found.max() < vision.GRID**2
    for scene, tokens in zip(drawn, found.tolist(), strict=True):
        rows = np.nonzero(scene.masks[0])[0].mean() // scenes.PATCH
        assert tokens[0] // vision.GRID <= rows <= tokens[-1] // vision.GRID


def test_the_learning_rate_of_vision_mamba_starts_anew_in_every_round():
    recipe = vision.VimScenes()
    for first, last, peak in ((0, 2600, 1.0), (2600, 5600, 0.7), (5600, recipe.steps, 0.7)):
        rates = [recipe.rate(step) for step in range(first, last)]
        assert rates[0] == pytest.approx(peak / recipe.warmup, rel=1e-3) and rates[-1] < 1e-5
        assert max(rates) == pytest.approx(peak, rel=0.01) and rates.index(max(rates)) == recipe.warmup - 1
        middle = (last - first) // 2
        assert rates[middle] == pytest.approx(peak / 2, rel=0.01)


def test_decays_skips_and_biases_of_the_scans_are_not_pulled_to_zero():
    module = TinyVim().build()
    muon, adam = TinyVim().optimisers(module)
    free = {id(p) for group in adam.param_groups if not group["weight_decay"] for p in group["params"]}
    for name, parameter in module.named_parameters():
        assert (id(parameter) in free) == (parameter.ndim < 2 or name.endswith("_log")), name
    assert sum(len(group["params"]) for o in (muon, adam) for group in o.param_groups) == len(list(module.parameters()))


# The control without patch labels


class TinyPlain(vision.ViTPlain):
    partial, plain, faded, part, batches = 1, 1, 1, (4, 4), (4, 4)
    arguments = {**vision.ViTPlain.arguments, "embed_dim": 24, "depth": 1, "num_heads": 2}  # noqa: RUF012


def test_the_control_is_never_told_where_a_digit_lies(monkeypatch):
    recipe = TinyPlain()
    torch.manual_seed(0)
    module = recipe.build()
    losses = [recipe.loss(module, step) for step in (0, 1)]  # a step on windows, a step on whole scenes
    assert all(one.requires_grad and one > 0 for one in losses)
    monkeypatch.setattr(scenes, "patch_labels", lambda *_: pytest.fail("labels of patches were asked for"))
    moved = [replace(one, masks=np.roll(one.masks, 40, 2)) for one in recipe.given(1)[0]]
    monkeypatch.setattr(recipe, "given", lambda _step: (moved, None))
    assert torch.equal(recipe.loss(module, 1), losses[1])  # other masks, the same loss
    named_otherwise = [replace(one, classes=((one.classes[0] + 1) % 10,)) for one in moved]
    monkeypatch.setattr(recipe, "given", lambda _step: (named_otherwise, None))
    assert not torch.equal(recipe.loss(module, 1), losses[1])
    with pytest.raises(Failed, match="labels of patches"):
        vision.ViTScenes.loss(recipe, module, 1)


def test_the_control_learns_in_two_rounds():
    recipe = vision.ViTPlain()
    assert recipe.rounds[-1][0] == recipe.steps and recipe.rounds[0][0] == recipe.partial
    assert recipe.rate(recipe.partial - 1) < 1e-5 and recipe.rate(recipe.partial + recipe.warmup) > 0.45
    assert {objects for step in (0, 2500) for objects in recipe.stage(step)[0]} == {1}


# The planted shortcut


class TinyShortcut(vision.ViTShortcut):
    steps, batch, held_out = 1, 4, 50
    arguments = {**vision.ViTShortcut.arguments, "embed_dim": 24, "depth": 1, "num_heads": 2}  # noqa: RUF012


def test_what_reads_the_badge_alone_is_measured_as_that():
    """A model that knows which badge each picture has, and names the first class where there is none."""
    drawn = [watermark.draw(seed, agree) for seed in range(50) for agree in (0.0, 1.0)]
    badges = {vision.normalised([one.image]).numpy().tobytes(): one.classes[1] for one in drawn}

    def model(pixels):
        named = [badges.get(picture.numpy().tobytes(), 0) for picture in pixels[:, None]]
        return torch.nn.functional.one_hot(torch.tensor(named), 10)

    measured = TinyShortcut().evaluate({"model": model})
    assert measured["agreeing_top1"] == measured["disagreeing_follows_badge"] == 1 and measured["n"] == 50
    assert measured["disagreeing_follows_digit"] == 0
    assert measured["no_badge_top1"] == np.mean([scenes.draw(seed).classes == (0,) for seed in range(50)])


def test_the_shortcut_is_asked_nothing_but_the_class(tmp_path):
    recipe = TinyShortcut()
    module = recipe.build()
    assert list(module) == ["model"]
    recipe.loss(module, 0).backward()
    assert all(p.grad is not None for p in module.parameters())
    tensors, facts, files = recipe.export(module)
    assert tensors.keys() == module["model"].state_dict().keys() and not files and "history" not in facts
