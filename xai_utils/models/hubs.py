"""Models of a hub or its cache, through the libraries' own loading code; every tensor is named, nothing is guessed."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai_utils.models.kinds import Loaded, Preprocessing, Unavailable, predicts_words
from xai_utils.models.vim import Vim, arguments_of, load_strictly


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


def masked_hub(source: str, revision: str | None) -> Loaded:
    """Load a hub's model with the head that predicts masked words; ``ValueError`` if it has none."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    config = fetch(source, lambda: AutoConfig.from_pretrained(source, revision=revision))
    if not any(word in " ".join(config.architectures or ()) for word in ("MaskedLM", "PreTraining")):
        raise ValueError(f"{source} is {config.architectures}, which predicts no masked words; try bert-base-mlm.")
    module = fetch(source, lambda: AutoModelForMaskedLM.from_pretrained(source, revision=revision))
    return predicts_words(module, fetch(source, lambda: AutoTokenizer.from_pretrained(source, revision=revision)))


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


KEY = "model"  #: of the weights in a published checkpoint, beside optimiser states
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZE = 224, 256  # pixels; resize the shorter side, then cut the middle, as in the published evaluation


def vim_hub(source: str, revision: str | None) -> Loaded:
    """Load a published checkpoint (``hustvl/Vim-*-midclstok``); classes are ImageNet's.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the repository holds not exactly one ``.pth`` file, or the checkpoint does not fit.
    """
    from huggingface_hub import snapshot_download
    from timm.data import ImageNetInfo

    folder = fetch(source, lambda: snapshot_download(source, revision=revision, allow_patterns="*.pth"))
    files = sorted(Path(folder).glob("*.pth"))
    if len(files) != 1:
        raise ValueError(f"{source} holds {[file.name for file in files]}, expected exactly one .pth file.")
    module = from_checkpoint(read(files[0]))
    count = module.num_classes
    numbered = tuple(f"class {i}" for i in range(count))
    classes = _imagenet(ImageNetInfo()) if count == 1000 else numbered
    return Loaded(module, classes, None, Preprocessing(SIZE, RESIZE, MEAN, STD), module.num_prefix_tokens)


def read(path: Path) -> Mapping[str, Tensor]:
    """Read the weights of a published checkpoint without running code from it.

    The file also carries the training's arguments, a plain namespace; nothing else than tensors and that is accepted.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):
            checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than tensors and is not loaded: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, Mapping) or KEY not in checkpoint:
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(f"{path.name} has no entry {KEY!r} with the weights; it holds: {found}.")
    return checkpoint[KEY]


def from_checkpoint(state: Mapping[str, Tensor], img_size: int = SIZE) -> Vim:
    """Build the model whose shapes the weights have; ``ValueError`` names every tensor that does not fit."""
    model = Vim(**arguments_of(state, img_size))
    load_strictly(model, state)
    return model
