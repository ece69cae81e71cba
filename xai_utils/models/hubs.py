"""Models of a hub or its cache, through the libraries' own loading code; every tensor is named, nothing is guessed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xai_utils.models import vim
from xai_utils.models.kinds import Loaded, Preprocessing, Unavailable, predicts_words


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


def from_hub(loader: Any, source: str, revision: str | None, **options: Any) -> Any:
    """Load by one of transformers' own classes; a repository's own code is never run, and nobody is asked.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: a repository that cannot be loaded without its own code.
    """
    try:
        return fetch(
            source, lambda: loader.from_pretrained(source, revision=revision, trust_remote_code=False, **options)
        )
    except ValueError as error:
        if not any(word in str(error) for word in ("trust_remote_code", "custom code", "does not recognize")):
            raise
        raise ValueError(
            f"{source} needs code of its own, which is never run here. Take a model of an architecture that the "
            "installed transformers has (BERT, RoBERTa, ELECTRA, ViT, DeiT, Llama, GPT-2, Mamba and others)."
        ) from error


def _offline(error: BaseException | None) -> bool:
    """Tell a missing file or connection from any other error, following the chain of causes."""
    named = "LocalEntryNotFound OfflineMode ConnectError ConnectionError ConnectTimeout".split()
    while error is not None:
        said = f"{type(error).__name__} {error}"
        if "couldn't connect" in said or any(word in said for word in named):
            return True
        error = error.__cause__ or error.__context__
    return False


def transformers_hub(source: str, revision: str | None) -> Loaded:
    """Load a transformers classifier of text or pictures, or the bare encoder if it has no trained classifier.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the checkpoint lacks weights of a text model, which the library would fill with random numbers.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
    from transformers import AutoModelForImageClassification as ImageClassifier
    from transformers import AutoModelForSequenceClassification as TextClassifier

    config = from_hub(AutoConfig, source, revision)
    named = " ".join(config.architectures or ())
    classes = tuple(config.id2label[i] for i in range(len(config.id2label)))
    if "ImageClassification" in named:
        module = from_hub(ImageClassifier, source, revision, dtype="float32")
        processor = from_hub(AutoImageProcessor, source, revision)
        prefix = 2 if hasattr(module.base_model.embeddings, "distillation_token") else 1
        return Loaded(module, classes, None, _from_processor(processor), prefix)
    auto, classes = (TextClassifier, classes) if "SequenceClassification" in named else (AutoModel, ())
    module, tokenizer = with_tokenizer(auto, source, revision)
    return Loaded(module, classes, tokenizer)


def masked_hub(source: str, revision: str | None) -> Loaded:
    """Load a hub's model with the head that predicts masked words; ``ValueError`` if it has none."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    config = from_hub(AutoConfig, source, revision)
    if not any(word in " ".join(config.architectures or ()) for word in ("MaskedLM", "PreTraining")):
        raise ValueError(f"{source} is {config.architectures}, which predicts no masked words; try bert-base-mlm.")
    return predicts_words(*with_tokenizer(AutoModelForMaskedLM, source, revision))


def with_tokenizer(auto: Any, source: str, revision: str | None) -> tuple[Any, Any]:
    """Load a text model in float32 and its tokenizer.

    Raises:
        ValueError: weights that the library would draw at random, or a tokenizer that is not the model's.
    """
    from transformers import AutoTokenizer

    module, found = from_hub(auto, source, revision, output_loading_info=True, dtype="float32")
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):  # of a pooler nothing is read
        raise ValueError(
            f"{source} holds no weights for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; they would be "
            f"random numbers. Take a checkpoint of a whole {type(module).__name__}."
        )
    tokenizer = from_hub(AutoTokenizer, source, revision)
    words, rows = len(tokenizer), module.get_input_embeddings().num_embeddings
    if not rows / 2 <= words <= rows:
        raise ValueError(
            f"the tokenizer of {source} has {words} words, its model {rows}: they do not belong together (are the "
            "tokenizer's files missing?), and every word would be read as another or as unknown."
        )
    return module, tokenizer


def _from_processor(processor: Any) -> Preprocessing:
    size = processor.size.get("height") or processor.size["shortest_edge"]
    crop = processor.crop_size["height"] if getattr(processor, "do_center_crop", False) else size
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    squash = "height" in processor.size
    return Preprocessing(crop, size, mean, std, names[int(processor.resample)], squash)


def timm_hub(source: str, _revision: str | None) -> Loaded:
    """Load a pretrained timm model with the preprocessing of its own configuration."""
    import timm
    from timm.data import resolve_model_data_config

    module = fetch(source, lambda: timm.create_model(source, pretrained=True))
    data = resolve_model_data_config(module)
    size = data["input_size"][-1]
    resize = int(size / data["crop_pct"])
    squash = data["crop_mode"] == "squash"
    preprocessing = Preprocessing(size, resize, data["mean"], data["std"], data["interpolation"], squash)
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
