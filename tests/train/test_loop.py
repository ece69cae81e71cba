"""Training: an interrupted one goes on as if nothing had happened, and writes its folder whole or not at all."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xai_utils import files, models, runtime
from xai_utils.models import bundled as loaders
from xai_utils.samples import scenes
from xai_utils.train import loop as train
from xai_utils.train import vision


class TinyViT(vision.ViTScenes):
    """Five steps: two on windows, three on whole scenes."""

    steps, windowed, plain, faded, warmup, window = 5, 2, 3, 2, 2, 4
    batches = (6, 4)
    arguments = {**vision.ViTScenes.arguments, "embed_dim": 24, "depth": 2, "num_heads": 2}  # noqa: RUF012

    def evaluate(self, module):
        return {"n": len(list(module.parameters()))}


class TinyResNet(vision.ResNetScenes):
    """Five steps."""

    steps, warmup, batch = 5, 2, 4
    arguments = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "num_classes": 10}  # noqa: RUF012
    evaluate = TinyViT.evaluate


class TinyVim(vision.VimScenes):
    """Five steps: two on strips, three on whole scenes, of which the last two are the second round."""

    steps, in_strips, faded, warmup, rows = 5, 2, 2, 2, 3
    rounds = ((3, 1.0), (5, 0.7))
    batches = (4, 3)
    arguments = {**vision.VimScenes.arguments, "embed_dim": 16, "depth": 2, "d_state": 2}  # noqa: RUF012
    evaluate = TinyViT.evaluate


RECIPES = {"vit-scenes": TinyViT, "resnet-scenes": TinyResNet, "vim-scenes": TinyVim}
EACH = pytest.mark.parametrize("name", RECIPES)


class Interrupted(Exception):
    pass


def interrupted_at(recipe, last):
    """Make a recipe that stops with an exception before the given step."""
    whole = recipe.loss

    def loss(module, step):
        if step == last:
            raise Interrupted
        return whole(module, step)

    recipe.loss = loss
    return recipe


def weights(folder):
    return load_file(folder / "model.safetensors")


# The loop


def test_a_finished_training_begins_anew_the_next_time(tmp_path):
    seen, checkpoint = [], tmp_path / "one.pt"
    for _ in range(2):
        recipe = TinyResNet()
        whole = recipe.loss
        recipe.loss = lambda module, step, whole=whole: seen.append(step) or whole(module, step)
        train.train("resnet-scenes", recipe, tmp_path / "out", checkpoint)
        assert not checkpoint.exists()
    assert seen == 2 * list(range(TinyResNet.steps))


@pytest.mark.parametrize("stop", [1, None])
def test_small_numbers_are_kept_after_training(stop, tmp_path):
    recipe, inside = TinyResNet(), []
    whole = recipe.loss
    recipe.loss = lambda module, step: inside.append(smallest()) or whole(module, step)
    if stop is None:
        train.train("resnet-scenes", recipe, tmp_path / "out", tmp_path / "one.pt")
    else:
        with pytest.raises(Interrupted):
            train.train("resnet-scenes", interrupted_at(recipe, stop), tmp_path / "out", tmp_path / "one.pt")
    assert not any(inside) and smallest() > 0


def smallest():
    return float(torch.tensor([1e-40]) * 1)


@EACH
@pytest.mark.parametrize("stops", [(2,), (1, 4)])
def test_an_interrupted_training_ends_with_the_same_weights(name, stops, tmp_path, monkeypatch):
    recipe = RECIPES[name]
    train.train(name, recipe(), tmp_path / "whole", tmp_path / "whole.pt")
    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)
    for stop in stops:
        torch.manual_seed(99)  # whatever the process did in between
        with pytest.raises(Interrupted):
            train.train(name, interrupted_at(recipe(), stop), tmp_path / "parts", tmp_path / "parts.pt")
        assert torch.load(tmp_path / "parts.pt")["step"] == stop and not (tmp_path / "parts").exists()
    seen = []
    last = recipe()
    whole_loss = last.loss
    last.loss = lambda module, step: seen.append(step) or whole_loss(module, step)
    train.train(name, last, tmp_path / "parts", tmp_path / "parts.pt")
    assert seen == list(range(stops[-1], recipe.steps))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@EACH
def test_the_seed_and_the_steps_make_the_weights(name, tmp_path):
    class Other(RECIPES[name]):
        seed = 1

    train.train(name, RECIPES[name](), tmp_path / "one", tmp_path / "one.pt")
    train.train(name, Other(), tmp_path / "other", tmp_path / "other.pt")
    torch.manual_seed(RECIPES[name].seed)
    start = RECIPES[name]().build()
    start = {k.removeprefix("model."): v for k, v in start.state_dict().items() if not k.startswith("patches.")}
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    changed = [key for key in one if not torch.equal(one[key], start[key].half())]
    assert len(changed) > 0.9 * len(one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@EACH
def test_the_folder_can_be_loaded_as_a_bundled_model(name, tmp_path, monkeypatch):
    class Measured(RECIPES[name]):
        evaluate = vision.ScenesRecipe.evaluate
        held_out = 50

    card = train.train(name, Measured(), tmp_path / "models" / name, tmp_path / "checkpoints" / "one.pt")
    folder = tmp_path / "models" / name
    assert json.loads((folder / "card.json").read_text()) == json.loads(json.dumps(card))
    assert {path.name for path in folder.iterdir()} == {"card.json", "model.safetensors"}
    assert set(card["files"]) == {"model.safetensors"}
    assert (card["steps"], card["seed"], card["measured"]["n"]) == (5, 0, 50)
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.float16}
    assert oct(folder.stat().st_mode)[-3:] == "755"
    assert {oct(path.stat().st_mode)[-3:] for path in folder.iterdir()} == {"644"}
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    model = models.load(name)
    assert model.classes == scenes.CLASSES
    drawn = [scenes.draw(i) for i in range(50)]
    with torch.inference_mode():
        best = model.module(vision.normalised(drawn)).argmax(-1).tolist()
    right = sum((b,) == scene.classes for b, scene in zip(best, drawn, strict=True))
    assert abs(right / 50 - card["measured"]["single_top1"]) <= 0.04  # what is shipped is rounded to half precision
    assert 0 <= card["measured"]["pair_top2"] <= 1


class Selecting(TinyResNet):
    """Keep the weights behind one step, which alone is measured as good."""

    select_from, select_every, good = 1, 1, 3

    def loss(self, module, step):
        self.now = step + 1
        return super().loss(module, step)

    def evaluate(self, module):
        return {"accuracy": float(getattr(self, "now", 0) == self.good)}


class Shorter(TinyResNet):
    """The same steps at the same rates, but the weights behind step three are the last."""

    def export(self, module):
        return super().export(self.kept)

    def loss(self, module, step):
        if step == 3:
            self.kept = copy.deepcopy(module)
        return super().loss(module, step)


def parameters_of(folder):
    names = {name for name, _ in loaders.build_vision("ResNet", TinyResNet.arguments).named_parameters()}
    return {name: tensor for name, tensor in weights(folder).items() if name in names}


def test_the_best_weights_are_shipped(tmp_path):
    train.train("resnet-scenes", Selecting(), tmp_path / "best", tmp_path / "one.pt")
    train.train("resnet-scenes", Shorter(), tmp_path / "third", tmp_path / "two.pt")
    train.train("resnet-scenes", TinyResNet(), tmp_path / "last", tmp_path / "three.pt")
    best, third, last = (parameters_of(tmp_path / name) for name in ("best", "third", "last"))
    assert all(torch.equal(best[key], third[key]) for key in best)
    assert not all(torch.equal(best[key], last[key]) for key in best)


def test_the_best_weights_come_with_their_running_statistics(tmp_path):
    train.train("resnet-scenes", Selecting(), tmp_path / "best", tmp_path / "one.pt")
    train.train("resnet-scenes", Shorter(), tmp_path / "third", tmp_path / "two.pt")
    best, third = (weights(tmp_path / name) for name in ("best", "third"))
    assert all(torch.equal(best[key], third[key]) for key in best)


@pytest.mark.parametrize("stop", [3, 4])
def test_an_interrupted_training_remembers_the_best_weights(stop, tmp_path, monkeypatch):
    train.train("resnet-scenes", Selecting(), tmp_path / "whole", tmp_path / "whole.pt")
    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)
    with pytest.raises(Interrupted):
        train.train("resnet-scenes", interrupted_at(Selecting(), stop), tmp_path / "parts", tmp_path / "parts.pt")
    train.train("resnet-scenes", Selecting(), tmp_path / "parts", tmp_path / "parts.pt")
    one, other = parameters_of(tmp_path / "whole"), parameters_of(tmp_path / "parts")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_training_replaces_the_folder_whole_or_not_at_all(tmp_path, monkeypatch):
    out, checkpoint = tmp_path / "models" / "resnet-scenes", tmp_path / "one.pt"
    out.mkdir(parents=True)
    (out / "old.txt").write_text("what was there")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for module, function in ((train, "save_file"), (files, "sha256"), (TinyResNet, "evaluate")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(module, function, full)
            train.train("resnet-scenes", TinyResNet(), out, checkpoint)
        assert [path.name for path in out.iterdir()] == ["old.txt"]
        assert [path.name for path in out.parent.iterdir()] == ["resnet-scenes"], "a half-written folder is left"
    train.train("resnet-scenes", TinyResNet(), out, checkpoint)
    assert {path.name for path in out.iterdir()} == {"card.json", "model.safetensors"}
    assert [path.name for path in out.parent.iterdir()] == ["resnet-scenes"]


def test_a_broken_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    module = torch.nn.Linear(2, 2)
    train._save_checkpoint(path, module, [], 3, 1.0, {})
    before = path.read_bytes()

    def half(_state, file):
        Path(file).write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="full"):
        train._save_checkpoint(path, module, [], 4, 1.0, {})
    assert path.read_bytes() == before


def test_evaluation_on_the_way_changes_nothing(tmp_path, capsys):
    train.train("vit-scenes", TinyViT(), tmp_path / "one", tmp_path / "one.pt")
    train.train("vit-scenes", TinyViT(), tmp_path / "two", tmp_path / "two.pt", evaluate_every=2)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[key], two[key]) for key in one)
    told = capsys.readouterr()
    assert "step 2: " in told.out + told.err and "step 4: " in told.out + told.err


def test_the_rate_rises_and_falls():
    rates = [train.rate(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) <= 1 and rates[:9] == sorted(rates[:9])
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 1e-3
    assert train.rate(50, 100, 10) == pytest.approx(0.5) and train.rate(100, 100, 10) == pytest.approx(0)
    assert [train.rate(step, 4, 1) for step in range(4)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_rates_are_shares_of_each_groups_peak():
    layer = torch.nn.Linear(2, 2)
    groups = [{"params": [layer.weight], "lr": 3.0}, {"params": [layer.bias], "lr": 1.0}]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    for _ in range(2):
        train._set_rates([optimiser], [[3.0, 1.0]], 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [1.5, 0.5]


def test_every_bundled_model_has_a_recipe():
    bundled = {name for name, spec in models.MODELS.items() if spec.source == name} | {"maskrcnn-scenes"}
    assert train.RECIPES.keys() == bundled
    for name, recipe in train.RECIPES.items():
        if (runtime.DATA / "models" / name).is_dir():
            card = json.loads((runtime.DATA / "models" / name / "card.json").read_text())
            assert card.get("recipe"), name
            if hasattr(recipe, "architecture"):
                assert (card["architecture"], card["arguments"]) == (recipe.architecture, recipe.arguments)


# What the vision recipes share


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return loaders.build_vision("VisionTransformer", TinyViT.arguments).eval()


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
    pixels = vision.normalised([scenes.draw(i) for i in range(2)])
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
    assert vision.windows(drawn, 14).tolist() == [list(range(196))] * 5


@pytest.mark.parametrize("side", [4, 8])
def test_a_window_is_a_square_around_the_first_digit(side):
    drawn = [scenes.draw(i, 1, "train") for i in range(40)]
    for scene, seen in zip(drawn, vision.windows(drawn, side), strict=True):
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
    found = vision.normalised([scene])[0]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (vision.MEAN, vision.STD))
    torch.testing.assert_close(found * std + mean, torch.from_numpy(scene.image))


def test_mimetic_attention_looks_at_its_like_and_subtracts_it():
    torch.manual_seed(0)
    model = loaders.build_vision("VisionTransformer", {**TinyViT.arguments, "embed_dim": 96, "num_heads": 3})
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
    model = loaders.build_vision("VisionTransformer", TinyViT.arguments)
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
    found = vision.strips(drawn, 8)
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
