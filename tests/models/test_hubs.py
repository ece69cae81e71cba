"""Models of a hub: fed as their own configuration says; what is not here is named with where it was looked for."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import tiny
import torch
import transformers as hf
from huggingface_hub import constants
from PIL import Image
from places import ROOT
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from xai_utils import methods, models, samples
from xai_utils.methods import explain
from xai_utils.models import hubs
from xai_utils.models.encoding import encode
from xai_utils.survey.families import FAMILIES, save

# From folders on this disk


def picture(size=(90, 60)):
    noise = np.random.default_rng(3)
    coarse = noise.random((6, 9, 3))
    image = np.kron(coarse, np.ones((size[1] // 6, size[0] // 9, 1)))
    return (image * 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["hf", "lm"])
def test_a_file_is_no_folder_of_a_model(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"is a file; expected a folder of save_pretrained"):
        models.load(f"{kind}:{tmp_path / 'model.safetensors'}")
    with pytest.raises(ValueError, match=r"is a folder without config\.json; expected"):
        models.load(f"{kind}:{tmp_path}")


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
    with pytest.raises(TypeError, match="has no classifier"):
        explain("gradient_norm", model, tiny.SENTENCES[0])


@pytest.mark.parametrize("whole", [hf.BertForMaskedLM, hf.BertForPreTraining])
def test_a_model_of_masked_words_is_loaded_with_its_head(whole, tmp_path):
    torch.manual_seed(0)
    module = whole(tiny.module("bert").config)
    module.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(f"mlm:{tmp_path}")
    words = tiny.tokenizer().get_vocab()
    assert model.head == "mask" and model.classes == tuple(sorted(words, key=words.get))
    saved, own = module.cls.predictions.state_dict(), model.module.cls.predictions.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in own)


def test_a_head_that_would_be_drawn_at_random_is_refused(tmp_path):
    module = tiny.module("bert", dtype=torch.float32).bert
    module.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\['BertModel'\], which predicts no masked words; try bert-base-mlm"):
        models.load(f"mlm:{tmp_path}")
    about = json.loads((tmp_path / "config.json").read_text())
    for said, name in (("BertForMaskedLM", "mlm"), ("BertForSequenceClassification", "hf")):
        (tmp_path / "config.json").write_text(json.dumps({**about, "architectures": [said]}))
        with pytest.raises(ValueError, match=rf"holds no weights for .*random numbers\. Take .* whole {said}"):
            models.load(f"{name}:{tmp_path}")


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


# From its cache, and what is said when they are not there

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


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("vit_tny_patch16_224", "vit_tiny_patch16_224"),
        ("deit_tiny_patch16_224.fb_in2k", "deit_tiny_patch16_224.fb_in1k"),
    ],
)
def test_a_misspelt_timm_name_is_told_what_it_was_meant_to_be(wrong, meant):
    with pytest.raises(ValueError, match=rf"no model '{wrong}'\. Did you mean .*{meant}"):
        models.load(f"timm:{wrong}")
    with pytest.raises(ValueError, match=r"timm has no model 'zzzzzzzz'\.$"):
        models.load("timm:zzzzzzzz")


def test_a_hub_that_is_not_reached_is_said_at_once_and_in_one_line(monkeypatch):
    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(hubs, "getproxies", dict)
    monkeypatch.setattr(hubs, "fetch", lambda *_: asked.append(1))
    with pytest.raises(models.Unavailable, match=r"^nobody/nothing is not in the hub cache [^\n]*$"):
        models.load("hf:nobody/nothing")
    assert not asked, "the library would try again and again"


def test_a_name_that_the_hub_does_not_have_is_one_line():
    def unknown():
        raise OSError("no/such is not a local folder and is not a valid model identifier listed on ...\nIf this is")

    with pytest.raises(ValueError, match=r"^the hub has no model 'no/such', or it is private[^\n]*$"):
        hubs.fetch("no/such", unknown)


def test_other_errors_are_not_taken_for_a_missing_network(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(OSError, match=r"no file named|model\.safetensors") as caught:
        models.load(f"hf:{tmp_path}")
    assert not isinstance(caught.value, models.Unavailable)


# Nothing of a repository is run, and what does not belong together is not put together


def write_folder(folder, config, code="raise SystemExit('this code ran')"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').write('yes')\n{code}\n")
    return folder


@pytest.mark.parametrize("prefix", ["hf", "mlm", "lm"])
@pytest.mark.parametrize("kind", ["own", "bert"])
def test_code_of_a_repository_is_never_run_and_nobody_is_asked(prefix, kind, tmp_path, monkeypatch):
    kinds = ("SequenceClassification", "CausalLM", "MaskedLM")
    names = ("AutoConfig", "AutoModel", *(f"AutoModelFor{kind}" for kind in kinds))
    auto = {name: "modeling_own.Own" for name in names}
    folder = write_folder(
        tmp_path / "own", {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": auto}
    )
    if kind == "bert":
        tiny.module("bert", dtype=torch.float32).save_pretrained(folder)
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**told, "auto_map": {"AutoConfig": "modeling_own.Own"}}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    if kind == "own":
        with pytest.raises(ValueError, match="needs code of its own, which is never run here"):
            models.load(f"{prefix}:{folder}")
    else:
        with pytest.raises((ValueError, OSError)):  # no tokenizer, or no such head: never its code
            models.load(f"{prefix}:{folder}")
    assert not (folder / "ran").exists()


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path):
    tiny.module("bert", dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError)):
        models.load(f"hf:{tmp_path}")
    few = Tokenizer(WordLevel({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    hf.PreTrainedTokenizerFast(tokenizer_object=few, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has 2 words, its model \d+: they do not belong together"):
        models.load(f"hf:{tmp_path}")


# Every kind of model: right, or refused with the reason


def saved(name, folder, **settings):
    """Save a tiny family, with some settings of its configuration changed; return the name it is loaded by."""
    called = save(FAMILIES[name], folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **settings}))
    return called


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("BART", {}, "an encoder and a decoder"),
        ("T5", {}, "an encoder and a decoder"),
        ("BERT, named entities", {}, "gives classes to every token"),
        ("DistilBERT, answers in a text", {}, "where an answer begins and ends"),
        ("RoBERTa, several choices", {}, "chooses among several texts"),
        ("BERT", {"architectures": None}, "names no architecture"),
        ("BERT", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "quantised"),
        ("ViT, one channel", {}, r"of 1 channel\(s\)"),
        ("ViT, 32 × 16 pixels", {}, "expected 3 channels of a square"),
        ("Nyströmformer", {}, "of one fixed length"),
    ],
)
def test_what_cannot_be_explained_is_refused_by_name(family, settings, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        models.load(saved(family, tmp_path, **settings))


@pytest.mark.parametrize(
    "family", ["CLIP", "SigLIP", "ResNet", "PoolFormer", "EfficientNet", "PVT", "ViT without a head"]
)
def test_models_of_pictures_of_any_architecture_are_loaded(family, tmp_path):
    model = models.load(saved(family, tmp_path))
    assert model.kind == "vision" and bool(model.classes) == (family != "ViT without a head")
    batch = encode(model, tiny.samples("vit"))
    rows, columns = batch.grid
    assert len(batch.labels[0]) == rows * columns and model.run(batch.inputs).isfinite().all()


ODD = {
    "not normalised": (hf.ViTImageProcessor, {"do_normalize": False}),
    "not rescaled": (hf.ViTImageProcessor, {"do_rescale": False}),
    "rescaled to [-1, 1]": (hf.ViTImageProcessor, {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}),
    "cropped by a share": (hf.ConvNextImageProcessor, {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    "nearest": (hf.ViTImageProcessor, {"resample": 0}),
}


@pytest.mark.parametrize("kind", ODD)
def test_pixels_are_those_of_the_checkpoints_own_processor_one_by_one(kind, tmp_path):
    build, settings = ODD[kind]
    processor = build(**{"size": {"height": 32, "width": 32}, **settings})
    tiny.module("vit", dtype=torch.float32).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, shown = models.load(f"hf:{tmp_path}"), picture((90, 60))
    batch = encode(model, [samples.picture(shown)])
    assert torch.equal(
        batch.inputs["pixel_values"], processor(Image.fromarray(shown), return_tensors="pt")["pixel_values"]
    )
    mean, std = (torch.tensor(one)[:, None, None] for one in (model.preprocessing.mean, model.preprocessing.std))
    again = (torch.from_numpy(batch.views[0]) - mean) / std
    inside = (batch.views[0] > 0) & (batch.views[0] < 1)
    torch.testing.assert_close(again[inside], batch.inputs["pixel_values"][0][inside], atol=1e-3, rtol=1e-3)


def test_a_lora_folder_is_its_adapter_merged_into_its_model(tmp_path):
    from peft import LoraConfig, get_peft_model

    called = saved("BERT", tmp_path)
    base = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    adapted = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    model, plain = models.load(f"hf:{tmp_path / 'adapter'}"), models.load(called)
    batch = encode(model, [tiny.SENTENCES[1]])
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(batch.inputs), adapted.eval()(**batch.inputs).logits)
        assert not torch.allclose(model.logits(batch.inputs), plain.logits(batch.inputs), atol=1e-2)


@pytest.mark.parametrize("family", ["Data2Vec vision", "Falcon, next words"])
def test_attention_that_cannot_be_unfused_later_is_loaded_so(family, tmp_path):
    model = models.load(save(FAMILIES[family], tmp_path), dtype="float64")
    assert model.module.config._attn_implementation == "eager"
    assert not methods.METHODS["rollout"].suits(model)


@pytest.mark.parametrize(
    ("family", "method", "said"),
    [
        ("MobileViT", "rollout", "9 attention blocks, but gives no attention back where it is asked"),
        ("LeViT", "rollout", "but gives no attention back where it is asked"),
        ("XLNet", "rollout", "tokens first and samples second"),
        ("XLNet", "integrated_gradients", "embeds tokens first and samples second"),
    ],
)
def test_a_refusal_names_the_reason_that_is_there(family, method, said, tmp_path):
    model = models.load(save(FAMILIES[family], tmp_path))
    assert said in methods.METHODS[method].suits(model)
