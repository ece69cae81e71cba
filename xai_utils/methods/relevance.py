"""Relevance of a batch for one class a sample: the passes behind transformer attribution, AttnLRP, CP-LRP, Grad-CAM.

Samples do not meet in any rule, so a batch gives what a loop gives, and every sample may have a class of its own.
Gradients are switched on here whatever the caller has switched off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils import check
from xai_utils.capture.attention import capture_attention
from xai_utils.capture.lrp import lrp_rules, relevance_rules
from xai_utils.maths import class_maps, rollout
from xai_utils.methods.observation import View
from xai_utils.models.encoding import Batch, patch_sums
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, given

AGGREGATES = ("attribution", "rollout", "last_layer", "second_layer")
LEVELS = ("tokens", "pixels")
POSITIONS = 800  #: of all samples in one relevance pass, whose graph is kept in float64
LARGE = 256  #: pixels of a side at which every stage of a network has several places
Targets = Asked | Sequence[int]
Found = list[tuple[Tensor, dict[str, Any]]]  # per sample the scores of every position, and details


_STAGES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  #: names found, "" where there is none


@dataclass(frozen=True)
class Relevance:
    """What one relevance pass leaves, detached; it begins with 1 at the class of each sample.

    Attributes:
        attention: relevance of each layer's attention, ``(sample, head, query, key)``.
        gradient: of the class score by each layer's attention, same shape; no layer where it was not asked for.
        hidden: ``(layer + 1, sample, token)``: relevance entering each block, and after the last one.
        readers: ``(sample, token)`` bool: positions whose final state the class score is read from.
        pixels: ``(sample, row, column)`` summed over colours, or ``None``.
    """

    attention: tuple[Tensor, ...]
    gradient: tuple[Tensor, ...]
    hidden: Tensor
    readers: Tensor
    pixels: Tensor | None = None


def propagate(
    model: Model, batch: Batch, targets: Targets, preset: str = "transformer_attribution", pixels: bool = False
) -> Relevance:
    """Run a forward and a backward pass for the gradients of attention, then another pair for relevance.

    The forward pass of relevance runs in float64, on a copy of the model: its rules divide by sums that may nearly
    cancel, so that in float32 single maps are rounding noise (vit-scenes, down to the pixels: wrong by up to their own
    maximum). With these sums in float64 the products of matrices on the way back may be in the model's own precision:
    in float32 they change no map of a bundled model by more than 1e-4 of its maximum.

    Args:
        model: a transformer with a classifier.
        batch: its encoded samples.
        targets: what is asked of each sample, or its class index.
        preset: see :func:`lrp.relevance_rules`.
        pixels: go down to the pixels of pictures.
    """
    _goes_together(model, batch)
    question = given(targets)
    found = _propagated(*_in_float64(model, batch), question, preset, pixels, model.dtype)
    return replace(found, gradient=_gradient(model, batch, question))


def _by_few(
    model: Model, batch: Batch, targets: Targets, preset: str = "transformer_attribution", pixels: bool = False,
    gradient: Tensor | None = None, weighs: bool = True,
) -> Iterator[tuple[Batch, Relevance]]:  # fmt: skip
    """Propagate a few samples at a time through one copy of the model; yield them with what the passes leave.

    Without ``weighs`` the gradients of attention are left out; where they are known already, they are taken.
    """
    _goes_together(model, batch)
    exact, wide = _in_float64(model, batch)
    few = max(1, POSITIONS // max(batch.length(i) for i in range(len(batch))))
    for start in range(0, len(batch), few):
        rows = range(len(batch))[start : start + few]
        own, some = (one.some(rows[0], rows[-1] + 1) for one in (batch, wide))
        question = given(targets).of(rows)
        found = _propagated(exact, some, question, preset, pixels, model.dtype)
        if weighs:
            n = found.hidden.shape[-1]
            known = () if gradient is None else gradient[:, rows, :, :n, :n].to(_device(model)).unbind()
            found = replace(found, gradient=known or _gradient(model, own, question))
        yield own, found


def _propagated(
    model: Model, batch: Batch, question: Asked, preset: str, pixels: bool, dtype: torch.dtype
) -> Relevance:
    """Run the two passes of relevance."""
    if pixels and batch.grid is None:
        raise ValueError(f"{model.name} reads texts; only pictures have pixels.")
    inputs = dict(batch.inputs)
    name = next(iter(inputs))
    if pixels:
        inputs[name] = inputs[name].clone().requires_grad_()
    rules = relevance_rules(model.module, preset, model.blocks, _pixel_range(model), dtype)
    with torch.enable_grad(), rules as trace:
        logits = model.logits(inputs)
        wanted = [*trace.attention, *trace.hidden, *([inputs[name]] if pixels else [])]
        sent = torch.autograd.grad(logits, wanted, question.seed(logits))
    depth = len(trace.attention)
    states = sent[depth : 2 * depth + 1]
    hidden, below = torch.stack([one.sum(-1) for one in states]), sent[-1].sum(1) if pixels else None
    return Relevance(sent[:depth], (), hidden, states[-1].any(-1), below)


def _gradient(model: Model, batch: Batch, question: Asked) -> tuple[Tensor, ...]:
    """Return the plain gradients of attention, on the device of relevance."""
    with torch.enable_grad(), capture_attention(model.module, model.blocks) as trace:
        slopes = torch.autograd.grad(question.score(model.logits(batch.inputs)).sum(), trace.attention)
    return tuple(one.to(_device(model)) for one in slopes)


def _goes_together(model: Model, batch: Batch) -> None:
    """Refuse texts that a model cannot take in one batch, see :attr:`Model.padding`."""
    lengths = {batch.length(i) for i in range(len(batch))}
    if (model.padding == "equal" and len(lengths) > 1) or (model.padding == "alone" and len(batch) > 1):
        raise ValueError(
            f"{model.name} reads padding, so texts of {sorted(lengths)} tokens are no batch; methods.explain takes "
            "them one by one."
        )


def _in_float64(model: Model, batch: Batch) -> tuple[Model, Batch]:
    """Return a copy of the model, and of the batch, in float64; on the CPU where the device has no float64."""
    device = _device(model)
    module = deepcopy(model.module).to(device, torch.float64)
    inputs = {
        name: values.to(device, torch.float64 if values.is_floating_point() else None)
        for name, values in batch.inputs.items()
    }
    return replace(model, module=module), replace(batch, inputs=inputs)


def _device(model: Model) -> torch.device:
    return torch.device("cpu") if model.device.type == "mps" else model.device


def transformer_attribution(
    model: Model, batch: Batch, targets: Targets, aggregate: str = "attribution", start: int = 0,
    normalise: bool = False,
) -> Found:  # fmt: skip
    """Explain by the relevance of attention, times its gradient, followed through the layers.

    Args:
        model: a transformer with a classifier.
        batch: its encoded samples.
        targets: what is asked of each sample, or its class index.
        aggregate: ``"attribution"`` (relevance times gradient, all layers from ``start``), ``"rollout"`` (the same
            without gradient: not attention rollout), ``"last_layer"`` or ``"second_layer"`` (relevance of that layer).
        start: first layer that takes part in a product.
        normalise: divide the rows of each layer by their sums, as the original does for BERT but not for ViT.

    Source: Chefer et al. (2021a), arXiv:2012.09838, Eq. 13-14. Differs from: their code, which takes one sample at a
        time and rewrites the model; and overwrites the score of [CLS] in BERT.
    """
    options = {"aggregate": aggregate, "start": start, "normalise": normalise}
    return readings(model, batch, targets, [("transformer_attribution", options)])[0]


def readings(
    model: Model, batch: Batch, targets: Targets, asked: Sequence[tuple[str, Mapping[str, Any]]],
    gradient: Tensor | None = None,
) -> list[Found]:  # fmt: skip
    """Read one relevance pass in several ways, and return of each what the method of its name gives.

    Args:
        model: a transformer with a classifier.
        batch: its encoded samples.
        targets: what is asked of each sample, or its class index.
        asked: names in :data:`READ`, with their options; the preset is the default one.
        gradient: of what is asked by attention, ``(layer, sample, head, query, key)``, where it is known already.
    """
    for _, options in asked:
        check.one_of("aggregate", options.get("aggregate", AGGREGATES[0]), AGGREGATES)
    names = {name for name, _ in asked}
    pixels = batch.grid is not None and "full_lrp" in names
    results: list[Found] = [[] for _ in asked]
    weighs = "transformer_attribution" in names
    for some, found in _by_few(model, batch, targets, pixels=pixels, gradient=gradient, weighs=weighs):
        for own, (name, options) in zip(results, asked, strict=True):
            own += READ[name](found, some, **options)
    return results


def _at_attention(
    found: Relevance, batch: Batch, aggregate: str = "attribution", start: int = 0, normalise: bool = False
) -> Found:
    results, weighted = [], _weighted(found, aggregate)
    for i in range(len(batch)):
        n = batch.length(i)
        own = weighted[:, i, :n, :n]
        scores = _aggregate(own, _reader(found.readers[i, :n], own), aggregate, start, normalise)
        details = {"aggregate": aggregate, "start": start, "relevance_by_depth": _by_depth(found.hidden[:, i])}
        results.append((scores, {**details, "skip": _skip(own, start)}))
    return results


def _at_input(found: Relevance, batch: Batch) -> Found:
    scores = patch_sums(found.pixels, batch) if found.pixels is not None else found.hidden[0]
    return [
        (scores[i, : batch.length(i)], {"relevance_by_depth": _by_depth(found.hidden[:, i])}) for i in range(len(batch))
    ]


READ = {"transformer_attribution": _at_attention, "full_lrp": _at_input}  #: methods that read one and the same pass


def _weighted(found: Relevance, aggregate: str) -> Tensor:
    """Return the positive relevance of attention, times its gradient for ``"attribution"``, mean over heads."""
    gradient = found.gradient if aggregate == "attribution" else (None,) * len(found.attention)
    return torch.stack([class_maps.positive_mean(*pair) for pair in zip(found.attention, gradient, strict=True)])


def full_lrp(model: Model, batch: Batch, targets: Targets, preset: str = "transformer_attribution") -> Found:
    """Explain by the relevance that arrives at the pixels (added up by patch), or at the words behind the embedding."""
    parts = _by_few(model, batch, targets, preset, batch.grid is not None, weighs=False)
    return [one for some, found in parts for one in _at_input(found, some)]


def modified_gradient(
    preset: str, model: Model, batch: Batch, targets: Targets, level: str = "tokens", **options: Any
) -> Found:
    """Explain by activation times modified gradient: CP-LRP or AttnLRP (see :func:`lrp.lrp_rules`).

    Args:
        preset: ``"cp"`` or ``"attnlrp"``.
        model: a transformer with a classifier.
        batch: its encoded samples.
        targets: what is asked of each sample, or its class index.
        level: ``"tokens"`` entering the first block (positions included), or ``"pixels"`` added up by patch.
        **options: ``epsilon``, ``gamma``, ``gamma_patches``, ``spare``.
    """
    check.one_of("level", level, LEVELS)
    if level == "pixels" and batch.grid is None:
        raise ValueError(f"{model.name} reads texts; only pictures have pixels.")
    _goes_together(model, batch)
    inputs = dict(batch.inputs)
    name = next(iter(inputs))
    if level == "pixels":
        inputs[name] = inputs[name].clone().requires_grad_()
    with torch.enable_grad(), lrp_rules(model.module, preset, model.blocks, **options) as trace:
        logits = model.logits(inputs)
        states = [*trace.hidden, *([inputs[name]] if level == "pixels" else [])]
        gradients = torch.autograd.grad(given(targets).score(logits).sum(), states)
    sums = [
        (state * gradient).detach().sum(1 if state.ndim == 4 else -1)
        for state, gradient in zip(states, gradients, strict=True)
    ]
    scores = patch_sums(sums[-1], batch) if level == "pixels" else sums[0]
    hidden = torch.stack(sums[: len(trace.hidden)])
    details = {"level": level}
    return [
        (scores[i, : batch.length(i)], {**details, "relevance_by_depth": _by_depth(hidden[:, i])})
        for i in range(len(batch))
    ]


def gradcam(model: Model, batch: Batch, targets: Targets, layer: str | None = None) -> Found:
    """Explain a convolutional network by Grad-CAM at one stage, brought onto the batch's grid.

    Source: Selvaraju et al. (2017), arXiv:1610.02391, Eq. 1-2; the last stage is theirs too.

    Args:
        model: a convolutional network with a classifier.
        batch: its encoded pictures.
        targets: what is asked of each picture, or its class index.
        layer: name of the stage, such as ``"layer1"`` to ``"layer4"`` of a ResNet; ``None``: the last one (see
            :func:`last_stage`).

    Raises:
        TypeError: texts, or no such stage.
        ValueError: the maps of the stage have one place only, which says nothing about where.
    """
    if batch.grid is None:
        raise TypeError(f"{model.name} reads texts; Grad-CAM on attention is the method 'attention_gradcam'.")
    layer = last_stage(model, {name: values[:1] for name, values in batch.inputs.items()}) if layer is None else layer
    kept: list[Tensor] = []

    def begin(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # what follows may write over it

    handle = _stage(model, layer).register_forward_hook(begin)
    try:
        with torch.enable_grad():
            logits = model.logits(batch.inputs)
            (gradient,) = torch.autograd.grad(given(targets).score(logits).sum(), kept[-1:])
    finally:
        handle.remove()
    if gradient.ndim != 4:
        raise TypeError(f"{layer!r} of {model.name} gives {tuple(gradient.shape)}; a convolutional stage has 4 axes.")
    if gradient[0, 0].numel() == 1:
        raise ValueError(
            f"{layer!r} of {model.name} is the last stage, and of pictures this small its maps have one place. Take "
            f"larger pictures, or an earlier stage by layer=NAME; the parts are: {_parts(model)}."
        )
    maps = class_maps.gradcam(kept[-1].detach(), gradient)
    scores = F.pad(class_maps.onto_grid(maps, batch.grid).flatten(1), (batch.prefix, 0))
    return [(one, {"layer": layer, "size": tuple(maps.shape[-2:])}) for one in scores]


def generic_attention(view: View, start: int = 0) -> tuple[Tensor, dict[str, Any]]:
    """Follow attention times gradient up from layer ``start`` (see :func:`class_maps.compose`)."""
    assert view.gradient is not None and view.readers is not None
    weighted = class_maps.positive_mean(view.attention, view.gradient)
    scores = class_maps.compose_row(weighted, _reader(view.readers, weighted), start)
    return scores, {"start": start, "skip": _skip(weighted, start)}


def attention_gradcam(view: View, layer: int = -1) -> tuple[Tensor, dict[str, Any]]:
    """Grad-CAM on what one layer's heads read for the class (see :func:`class_maps.attention_gradcam`)."""
    assert view.gradient is not None and view.readers is not None
    check.index("layer", layer, len(view.attention))
    rows, gradient = (maps[layer][:, view.readers, view.prefix :].mean(1) for maps in (view.attention, view.gradient))
    return F.pad(class_maps.attention_gradcam(rows, gradient), (view.prefix, 0)), {}


def _reader(readers: Tensor, like: Tensor) -> Tensor:
    """Share a weight of one among the positions that the class score is read from."""
    return readers.to(like) / readers.sum()


def _skip(weighted: Tensor, start: int) -> float:
    """Return what the skip counts beside the weighted maps once rows are rescaled, median over layers and rows."""
    return float(rollout.skip_share(weighted[start:]).median())


def _aggregate(weighted: Tensor, reader: Tensor, aggregate: str, start: int, normalise: bool) -> Tensor:
    """Reduce ``(layer, query, key)`` to what ``reader`` (query) reads from each token."""
    if aggregate == "last_layer":
        return reader @ weighted[-1]
    if aggregate == "second_layer":
        check.index("second_layer", 1, len(weighted))
        return reader @ weighted[1]
    if normalise:
        check.index("start", start, len(weighted))
        return reader @ rollout.rollout(weighted[start % len(weighted) :], 0.5, rescale=True)[-1]
    return class_maps.compose_row(weighted, reader, start)


def _by_depth(hidden: Tensor) -> tuple[float, ...]:
    """Add up relevance at every depth, from the input of the first block to the output of the last."""
    return tuple(hidden.sum(-1).tolist())


def _pixel_range(model: Model) -> tuple[Tensor, Tensor] | None:
    """Return the normalised values of black and of white, each ``(3, 1, 1)``."""
    if model.preprocessing is None:
        return None
    like = {"device": model.device, "dtype": model.dtype}
    told = (model.preprocessing.mean, model.preprocessing.std)
    mean, std = (torch.tensor(values, **like)[:, None, None] for values in told)  # type: ignore[arg-type]
    return -mean / std, (1 - mean) / std


def _stage(model: Model, layer: str) -> nn.Module:
    if model.blocks:
        raise TypeError(
            f"{model.name} is no convolutional network; Grad-CAM on attention is the method 'attention_gradcam'."
        )
    if not layer or layer not in dict(model.module.named_modules()):
        raise ValueError(f"{model.name} has no stage {layer!r}; its parts are: {_parts(model)}.")
    return model.module.get_submodule(layer)


def _parts(model: Model) -> str:
    return ", ".join(name for name, _ in model.module.named_children())


def last_stage(model: Model, inputs: Mapping[str, Tensor]) -> str:
    """Return the name of the last module that gives maps ``(sample, channel, row, column)`` of several places.

    Found by one pass of the picture drawn large, so that it needs no name: what is pooled behind it has one place.

    Raises:
        TypeError: there is none, or tokens are mixed behind it (an MLP-Mixer, whose only convolution cuts patches).
    """
    if model.module not in _STAGES:
        _STAGES[model.module] = _last_stage(model, *next(iter(inputs.items())))
    if not _STAGES[model.module]:
        raise TypeError(f"{model.name} is no convolutional network: it does not end in maps of rows and columns.")
    return _STAGES[model.module]


def _last_stage(model: Model, name: str, picture: Tensor) -> str:
    times = max(1, -(-LARGE // min(picture.shape[2:])))
    try:
        seen = _outputs(model, {name: F.interpolate(picture, scale_factor=times)})
    except (RuntimeError, ValueError, AssertionError):  # it takes one size only
        seen = _outputs(model, {name: picture})
    ratio = picture.shape[2] / picture.shape[3]
    stages = [i for i, (_, shape) in enumerate(seen) if _is_stage(shape, ratio)]
    tokens = not stages or any(len(shape) == 3 and shape[1] > 1 for _, shape in seen[stages[-1] :])
    return "" if tokens else seen[stages[-1]][0]


def _outputs(model: Model, inputs: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the name of every module as it ends, and the shape of what it gives."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def keep(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append((name, tuple(output.shape)))

    with ExitStack() as undo, torch.no_grad():
        for name, module in model.module.named_modules():
            undo.callback(module.register_forward_hook(partial(keep, name)).remove)
        model.logits(inputs)
    return seen


def _is_stage(shape: tuple[int, ...], ratio: float) -> bool:
    """Tell maps from what is pooled, and from maps whose channels come last, by the ratio of their sides."""
    if len(shape) != 4 or min(shape[2:]) < 2:
        return False
    return abs(shape[2] - ratio * shape[3]) < 1 + ratio


def by_start(model: Model, batch: Batch, targets: Targets) -> Tensor:
    """Return transformer attribution by the first layer of its product, ``(start, sample, position)``, in one pass."""
    return torch.cat([_every_start(found) for _, found in _by_few(model, batch, targets)], 1)


def _every_start(found: Relevance) -> Tensor:
    weighted = _weighted(found, "attribution")
    readers = found.readers.to(weighted) / found.readers.sum(-1, keepdim=True)
    return torch.stack([class_maps.compose_row(weighted, readers, start) for start in range(len(weighted))])
