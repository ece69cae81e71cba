"""Training: an interrupted one goes on as if nothing had happened, and writes its folder whole or not at all."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_recipes import RECIPES, TinyResNet, TinyViT

from xai_utils import files, models, runtime
from xai_utils.__main__ import main
from xai_utils.models import bundled as loaders
from xai_utils.train import loop as train

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


@pytest.mark.parametrize("what", ["damaged", "empty", "another model", "another optimiser"])
def test_a_checkpoint_that_does_not_fit_is_named_and_nothing_is_trained(what, tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)
    with pytest.raises(Interrupted):
        train.train("resnet-scenes", interrupted_at(TinyResNet(), 2), tmp_path / "out", path)
    state = torch.load(path)
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:1000])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "another model":
        torch.save({**state, "module": {"weight": torch.zeros(2)}}, path)
    else:
        torch.save({**state, "optimisers": state["optimisers"] * 2}, path)
    with pytest.raises(ValueError, match=r"one\.pt is damaged, or of a recipe that has changed .* to begin anew"):
        train.train("resnet-scenes", interrupted_at(TinyResNet(), 0), tmp_path / "out", path)
    assert path.is_file() and not (tmp_path / "out").exists()


def test_fewer_steps_than_were_taken_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)
    with pytest.raises(Interrupted):
        train.train("resnet-scenes", interrupted_at(TinyResNet(), 4), tmp_path / "out", tmp_path / "one.pt")
    shorter = TinyResNet()
    shorter.steps = 2
    with pytest.raises(ValueError, match=r"one\.pt is behind step 4, but 2 steps are asked for"):
        train.train("resnet-scenes", shorter, tmp_path / "out", tmp_path / "one.pt")


def test_evaluation_on_the_way_changes_nothing(tmp_path, capsys):
    train.train("vit-scenes", TinyViT(), tmp_path / "one", tmp_path / "one.pt")
    train.train("vit-scenes", TinyViT(), tmp_path / "two", tmp_path / "two.pt", evaluate_every=2)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[key], two[key]) for key in one)
    told = capsys.readouterr()
    assert "step 2: " in told.out + told.err and "step 4: " in told.out + told.err


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


def test_another_seed_makes_another_model_in_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "RECIPES", {"resnet-scenes": TinyResNet})
    monkeypatch.setattr(train, "CHECKPOINTS", tmp_path)
    for seed in (1, 2):
        command = ["train", "resnet-scenes", "--seed", str(seed), "--out", str(tmp_path / f"out{seed}")]
        assert main(command) == 0
        assert json.loads((tmp_path / f"out{seed}/card.json").read_text())["seed"] == seed
    one, other = weights(tmp_path / "out1"), weights(tmp_path / "out2")
    assert any(not torch.equal(one[key], other[key]) for key in one)
    capsys.readouterr()
    assert main(["train", "resnet-scenes", "--seed", "1"]) == 2
    assert "needs --out" in capsys.readouterr().err
