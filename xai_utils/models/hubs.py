"""Models of a hub or its cache, through the libraries' own loading code; every tensor is named, nothing is guessed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xai_utils.models import vim
from xai_utils.models.bundled import merged
from xai_utils.models.kinds import Loaded, Preprocessing, Unavailable, predicts_words, words_of

SECONDS = 3  #: to wait for the hub to answer at all
MOST_EXTRA = 8  #: tokens of a picture that stand for no patch, at most: [CLS], distillation, registers


def fetch(source: str, get: Callable[[], Any]) -> Any:
    """Run one call of a hub's own loading code; offline, say what is missing and where it was looked for."""
    try:
        return get()
    except (OSError, RuntimeError) as error:
        if "not a valid model identifier" in str(error):
            raise ValueError(f"the hub has no model {source!r}, or it is private; check owner and name.") from error
        if not _offline(error):
            raise
        raise _unavailable(source) from error


def _unavailable(source: str) -> Unavailable:
    from huggingface_hub.constants import HF_HUB_CACHE

    why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "no connection to the hub"
    return Unavailable(
        f"{source} is not in the hub cache {HF_HUB_CACHE} and cannot be fetched ({why}). "
        "Connect once, or set HF_HOME to a cache that has it."
    )


def _known_missing(source: str) -> bool:
    """Tell at once, where the library would try for half a minute, that a model is not here and no hub is reached."""
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    if constants.HF_HUB_OFFLINE or getproxies() or Path(source).exists() or cached.exists():
        return False
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((hub.hostname, hub.port or (80 if hub.scheme == "http" else 443)), SECONDS).close()
    except OSError:
        return True
    return False


def from_hub(loader: Any, source: str, revision: str | None, **options: Any) -> Any:
    """Load by one of transformers' own classes; a repository's own code is never run, and nobody is asked.

    A model of an architecture that cannot leave fused attention later (Falcon, Data2Vec vision) is loaded without it,
    as its attention could not be seen.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: a file or an empty folder, or a repository that cannot be loaded without its own code.
    """
    if found := _no_folder(Path(source)):
        raise ValueError(f"{source} is {found}; expected a folder of save_pretrained, owner/name, or lm:FILE.gguf.")
    if _known_missing(source):
        raise _unavailable(source)

    def load(**more: Any) -> Any:
        told = {"revision": revision, "trust_remote_code": False, **options, **more}
        return fetch(source, lambda: loader.from_pretrained(source, **told))

    try:
        found = load()
        return load(attn_implementation="eager") if _stays_fused(found) else found
    except ValueError as error:
        if not any(word in str(error) for word in ("trust_remote_code", "custom code", "does not recognize")):
            raise
        raise ValueError(
            f"{source} needs code of its own, which is never run here. Take a model of an architecture that the "
            "installed transformers has (BERT, RoBERTa, ELECTRA, ViT, DeiT, Llama, GPT-2, Mamba and others)."
        ) from error


def _no_folder(path: Path) -> str:
    """Say what stands where the folder of a model should; ``""`` for such a folder, and for a name of the hub."""
    empty = path.is_dir() and not any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
    return "a file" if path.is_file() else "a folder without config.json" if empty else ""


def _stays_fused(found: Any) -> bool:
    module = found[0] if isinstance(found, tuple) else found  # beside it, what was missing
    may_change = getattr(module, "_can_set_attn_implementation", None)
    return may_change is not None and module.config._attn_implementation != "eager" and not may_change()


def _offline(error: BaseException | None) -> bool:
    """Tell a missing file or connection from any other error, following the chain of causes."""
    named = "LocalEntryNotFound OfflineMode ConnectError ConnectionError ConnectTimeout".split()
    while error is not None:
        said = f"{type(error).__name__} {error}"
        if "couldn't connect" in said or any(word in said for word in named):
            return True
        error = error.__cause__ or error.__context__
    return False


#: other heads than of classes, as the names of architectures end, and how to come to an explanation all the same
OTHER_HEADS = {
    "TokenClassification": "gives classes to every token",
    "QuestionAnswering": "marks where an answer begins and ends",
    "MultipleChoice": "chooses among several texts",
    "NextSentencePrediction": "compares two sentences",
    "SemanticSegmentation": "gives a class to every pixel",
    "ObjectDetection": "finds boxes",
    "DepthEstimation": "tells distances",
    "MaskedImageModeling": "paints what is hidden",
    "ImageClassificationWithProjection": "compares pictures with texts",
    "AudioClassification": "hears sounds",
}


def transformers_hub(source: str, revision: str | None) -> Loaded:
    """Load a transformers classifier of text or pictures, or the bare encoder if it has no trained classifier.

    A folder that ``peft`` saved is its adapter merged into the model that it names. A head that predicts words is left
    out (``mlm:`` and ``lm:`` keep it); any other head is refused by name.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the checkpoint lacks weights, which the library would fill with random numbers; or it is of a kind
            that cannot be explained, such as an encoder with a decoder.
    """
    import transformers
    from transformers import AutoModel
    from transformers import AutoModelForImageClassification as ImageClassifier
    from transformers import AutoModelForSequenceClassification as TextClassifier

    if (Path(source) / "adapter_config.json").is_file():
        return _adapted(Path(source))
    config = configuration(source, revision)
    named = " ".join(config.architectures)
    labels = config.id2label or {}
    classes = tuple(str(labels[i]) for i in range(len(labels)))
    if "ImageClassification" in named:
        return _of_pictures(ImageClassifier, source, revision, classes)
    bare = getattr(transformers, named) if named.endswith("WithProjection") else AutoModel  # which would leave it out
    if reads_pictures(named):
        return _of_pictures(bare, source, revision, ())
    if named in ("MambaClassifier", "MambaForSequenceClassification"):
        from xai_utils.models.mamba_classifier import MambaClassifier

        module, tokenizer = with_tokenizer(MambaClassifier, source, revision)
    elif "SequenceClassification" in named:
        module, tokenizer = with_tokenizer(TextClassifier, source, revision)
    else:
        module, tokenizer = with_tokenizer(bare, source, revision)
        return Loaded(module, (), tokenizer, pooling=_pooling(source, revision))
    return Loaded(module, classes, tokenizer)


#: ways to pool, as sentence-transformers writes them in any of its versions
POOLINGS = {"cls": "first", "cls_token": "first", "mean": "mean", "mean_tokens": "mean", "lasttoken": "last"}


def _pooling(source: str, revision: str | None) -> str | None:
    """Return how a checkpoint of sentence-transformers makes one embedding; ``None`` for one that says nothing.

    Anything but one known way to pool (the greatest value, two ways, a layer behind it) is returned as it is named
    there, and refused where it would be used.
    """
    listed = _told(source, "modules.json", revision)
    if listed is None:
        return None
    kinds = {one["type"].rpartition(".")[2]: one["path"] for one in listed}
    more = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    told = _told(source, f"{kinds['Pooling']}/config.json", revision) if "Pooling" in kinds else None
    return " and ".join([*(POOLINGS.get(one, one) for one in _modes(told or {})), *sorted(more)]) or None


def _modes(told: dict[str, Any]) -> list[str]:
    """Return the ways to pool that are switched on; newer files name the one."""
    if "pooling_mode" in told:
        return [str(told["pooling_mode"])]
    return [name.removeprefix("pooling_mode_") for name, on in told.items() if name.startswith("pooling_mode_") and on]


def _told(source: str, name: str, revision: str | None) -> Any:
    """Read a JSON file of a checkpoint; ``None`` where it has none."""
    from transformers.utils import cached_file

    found = cached_file(
        source, name, revision=revision, _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))


def configuration(source: str, revision: str | None) -> Any:
    """Read a configuration; ``ValueError`` with the reason if its model cannot be explained."""
    from transformers import AutoConfig

    config = from_hub(AutoConfig, source, revision)
    if not config.architectures:
        raise ValueError(
            f"the config.json of {source} names no architecture, so it is not known which head its weights have; write "
            '"architectures": ["BertForSequenceClassification"] or what it is into it.'
        )
    if reason := refused(config):
        raise ValueError(f"{source} is {' '.join(config.architectures)}: {reason}")
    return config


def refused(config: Any) -> str:
    """Return why a model of this configuration cannot be explained here, or ``""``."""
    named = " ".join(getattr(config, "architectures", None) or ())
    if getattr(config, "is_encoder_decoder", False):
        return (
            "it has an encoder and a decoder, with attention between them that no map of one text holds. Take a model "
            "of one stack (BERT, RoBERTa, GPT-2, Llama)."
        )
    if getattr(config, "quantization_config", None):
        return "its weights are quantised, and gradients through them are not its own. Take it in float32 or float16."
    for ending, does in OTHER_HEADS.items():
        if named.endswith(ending):
            return (
                f"its head {does}, and only heads that give one answer are explained: classes, one number, a masked "
                "word (mlm:), the next word (lm:). Its encoder alone: model.base_model.save_pretrained."
            )
    if "text_config" in getattr(config, "sub_configs", {}) and named.endswith("Model"):
        return (
            "it reads texts and pictures at once. Load its classifier of pictures, or its halves alone "
            "(CLIPVisionModelWithProjection, CLIPTextModelWithProjection), which models.compared brings together."
        )
    return ""


def reads_pictures(named: str) -> bool:
    """Whether transformers' class of this name takes pixels."""
    import transformers

    return getattr(getattr(transformers, named, None), "main_input_name", "") == "pixel_values"


def _adapted(folder: Path) -> Loaded:
    """Merge a LoRA adapter for classes into the model that it was trained on."""
    from peft import PeftConfig
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification as TextClassifier

    config = PeftConfig.from_pretrained(str(folder))
    base, kind = str(config.base_model_name_or_path), str(getattr(config.task_type, "value", config.task_type))
    if kind != "SEQ_CLS":
        raise ValueError(f"the adapter in {folder.name} is for {kind}; only adapters for classes (SEQ_CLS) are merged.")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder.name} holds adapter_config.json and no {file.name}; save it with save_pretrained.")
    heads = [weight for name, weight in load_file(file).items() if "lora" not in name and weight.ndim == 2]
    if not heads:
        raise ValueError(f"the adapter in {folder.name} holds no classifier; train it with modules_to_save.")
    configuration(base, config.revision)
    plain = from_hub(TextClassifier, base, config.revision, dtype="float32", num_labels=len(heads[-1]))
    module = merged(plain, folder)
    labels = module.config.id2label
    where = str(folder) if (folder / "tokenizer_config.json").is_file() else base
    return Loaded(module, tuple(labels[i] for i in range(len(labels))), _tokenizer(module, where, None))


def masked_hub(source: str, revision: str | None) -> Loaded:
    """Load a hub's model with the head that predicts masked words; ``ValueError`` if it has none."""
    from transformers import AutoModelForMaskedLM

    config = configuration(source, revision)
    if not any(word in " ".join(config.architectures) for word in ("MaskedLM", "PreTraining")):
        raise ValueError(f"{source} is {config.architectures}, which predicts no masked words; try bert-base-mlm.")
    return predicts_words(*with_tokenizer(AutoModelForMaskedLM, source, revision))


def with_tokenizer(auto: Any, source: str, revision: str | None) -> tuple[Any, Any]:
    """Load a text model in float32 and its tokenizer.

    Raises:
        ValueError: weights that the library would draw at random, or a tokenizer that is not the model's.
    """
    module = _whole(auto, source, revision)
    return module, _tokenizer(module, source, revision)


def _whole(auto: Any, source: str, revision: str | None) -> Any:
    """Load a model in float32, none of whose weights the library has to draw at random."""
    module, found = from_hub(auto, source, revision, output_loading_info=True, dtype="float32")
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):  # of a pooler nothing is read
        raise ValueError(
            f"{source} holds no weights for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; they would be "
            f"random numbers. Take a checkpoint of a whole {type(module).__name__}."
        )
    return module


def _tokenizer(module: Any, source: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    tokenizer = from_hub(AutoTokenizer, source, revision)
    words, rows = len(tokenizer), words_of(module)
    if not rows / 2 <= words <= rows:
        raise ValueError(
            f"the tokenizer of {source} has {words} words, its model {rows}: they do not belong together (are the "
            "tokenizer's files missing?), and every word would be read as another or as unknown."
        )
    return tokenizer


def _of_pictures(auto: Any, source: str, revision: str | None, classes: tuple[str, ...]) -> Loaded:
    from transformers import AutoImageProcessor
    from transformers import AutoModelForImageClassification as ImageClassifier

    module = _whole(auto, source, revision)
    if auto is ImageClassifier and not classes:
        classes = tuple(str(number) for number in range(int(module.num_labels)))
    part = getattr(module.config, "vision_config", module.config)
    if getattr(part, "num_channels", 3) != 3:
        raise ValueError(
            f"{source} reads pictures of {part.num_channels} channel(s); only colour pictures are explained."
        )
    prepared = _from_processor(source, Processor(from_hub(AutoImageProcessor, source, revision)))
    cells, prefix = _places(module.eval(), prepared.size, part)
    return Loaded(module, classes, None, replace(prepared, cells=cells), prefix)


class Processor:
    """A checkpoint's own image processor, from ``(row, column, channel)`` uint8 to ``(channel, row, column)``."""

    def __init__(self, settings: Any) -> None:
        """Keep transformers' processor."""
        self.settings = settings
        self.blue_first = bool(getattr(settings, "do_flip_channel_order", False))

    def __call__(self, image: np.ndarray) -> Tensor:
        """Prepare one picture."""
        return self.settings(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Return all its settings."""
        return str(self.settings.to_json_string())


def _from_processor(source: str, read: Processor) -> Preprocessing:
    """Find out what a processor does, whatever its settings: it is shown a black and a white picture."""
    black, white = (read(np.full((64, 64, 3), value, dtype=np.uint8)) for value in (0, 255))
    if black.ndim != 3 or len(black) != 3 or black.shape[1] != black.shape[2]:
        raise ValueError(
            f"the processor of {source} makes inputs {tuple(black.shape)}, expected 3 channels of a square."
        )
    low, high = black.double().mean((1, 2)), white.double().mean((1, 2))
    mean, std = (tuple(float(f"{one:.6g}") for one in values) for values in (-low / (high - low), 1 / (high - low)))
    side = black.shape[1]
    return Preprocessing(side, side, mean, std, squash=True, processor=read)  # type: ignore[arg-type]


def _places(module: Any, size: int, part: Any) -> tuple[tuple[int, int] | None, int]:
    """Return the cells that maps are made of where a model's tokens are no patches, else how many tokens are none."""
    try:
        with torch.inference_mode():
            states = module(pixel_values=torch.zeros(1, 3, size, size), output_hidden_states=True).hidden_states
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{type(module).__name__} takes no picture as (sample, channel, row, column), which is the only way that "
            f"pictures are explained: {error}"
        ) from error
    patch = getattr(part, "patch_size", None)
    if states and states[0].ndim == 3 and isinstance(patch, int) and size % patch == 0:
        extra = states[0].shape[1] - (size // patch) ** 2
        if 0 <= extra <= MOST_EXTRA:
            return None, extra
    return cells(size), 0


def cells(size: int) -> tuple[int, int]:
    """Return a grid of about 14 × 14 whole cells for a picture; ``ValueError`` if its side cannot be divided so."""
    found = [count for count in range(7, 22) if size % count == 0]
    if not found:
        raise ValueError(f"a picture of {size} pixels cannot be divided into 7 to 21 equal rows, so it has no cells.")
    count = min(found, key=lambda one: abs(one - 14))
    return count, count


def timm_hub(source: str, _revision: str | None) -> Loaded:
    """Load a pretrained timm model with the preprocessing of its own configuration.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: no such name in timm, or inputs that are no square colour pictures.
    """
    import timm
    from timm.data import resolve_model_data_config

    if ":" not in source and source not in (names := [*timm.list_models(), *timm.list_models(pretrained=True)]):
        near = ", ".join(get_close_matches(source, names, 3))
        raise ValueError(f"timm has no model {source!r}." + (f" Did you mean {near}?" if near else ""))
    module = fetch(source, lambda: timm.create_model(source, pretrained=True))
    data = resolve_model_data_config(module)
    channels, rows, size = data["input_size"]
    if (channels, rows) != (3, size):
        raise ValueError(f"{source} reads {channels} channel(s) of {rows} × {size} pixels; expected 3 of a square.")
    resize = int(size / data["crop_pct"])
    squash = data["crop_mode"] == "squash"
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    preprocessing = Preprocessing(
        size, resize, data["mean"], data["std"], data["interpolation"], squash, cells=None if grid else cells(size)
    )
    return Loaded(module, _imagenet(module.num_classes), None, preprocessing, getattr(module, "num_prefix_tokens", 0))


def vim_hub(source: str, revision: str | None) -> Loaded:
    """Load a published checkpoint (``hustvl/Vim-*-midclstok``); classes are ImageNet's.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the repository holds not exactly one ``.pth`` file, or the checkpoint does not fit.
    """
    from huggingface_hub import snapshot_download
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    folder = fetch(source, lambda: snapshot_download(source, revision=revision, allow_patterns="*.pth"))
    files = sorted(Path(folder).glob("*.pth"))
    if len(files) != 1:
        raise ValueError(f"{source} holds {[file.name for file in files]}, expected exactly one .pth file.")
    module = vim.from_checkpoint(vim.read(files[0]))
    published = Preprocessing(224, 256, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Loaded(module, _imagenet(module.num_classes), None, published, module.num_prefix_tokens)


def _imagenet(count: int) -> tuple[str, ...]:
    """Return the names of ImageNet's classes, or numbers where there are not a thousand."""
    from timm.data import ImageNetInfo

    named = ImageNetInfo().index_to_description if count == 1000 else "class {}".format
    return tuple(named(i) for i in range(count))
