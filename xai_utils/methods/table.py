"""One table of methods, the only place where the mathematics meets a model.

:func:`explain` does everything in one call. To look at one input in many ways, :func:`observe` once (one forward and
at most one backward pass) and :func:`attribute` as often as wanted; that costs no further pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import diffusion, flow, rollout, selective
from xai_utils.methods import hidden, integrated, relevance
from xai_utils.methods.observation import Observation, View, observe
from xai_utils.models import Model
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.targets import Target, targets_of
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample, Text

ROWS = ("cls", "max", "mean")
WEIGHTED = ("gradient_rollout", "generic_attention", "attention_gradcam")  #: weigh attention by its own gradient


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        score: ``(view, **options) -> (scores of every position, details)`` of one observed sample.
        needs_gradient: whether it explains one class.
        signed: whether negative scores mean evidence against the class.
        unit: of a score.
        passes: in place of ``score``, for methods with passes of their own: ``(model, batch, targets, **options) ->
            [(scores, details) of every sample]``.
    """

    score: Callable[..., tuple[Tensor, dict[str, Any]]] | None
    needs_gradient: bool
    signed: bool
    unit: str
    passes: Callable[..., list[tuple[Tensor, dict[str, Any]]]] | None = None


@overload
def explain(name: str, model: Model, samples: Sample, target: Target = None, **options: Any) -> Attribution: ...
@overload
def explain(
    name: str, model: Model, samples: Sequence[Sample], target: Target = None, **options: Any
) -> list[Attribution]: ...
def explain(
    name: str,
    model: Model,
    samples: Sample | Sequence[Sample],
    target: Target = None,
    batch_size: int = 16,
    **options: Any,
) -> Attribution | list[Attribution]:
    """Explain one sample or many.

    Args:
        name: a name in :data:`METHODS`.
        model: from :func:`models.load`.
        samples: one sample, or a sequence; a batch gives what a loop gives.
        target: class index or name for all samples, or a list with one for each; ``None`` explains each sample's
            predicted class.
        batch_size: samples in one pass.
        **options: of the method, see its function.

    Raises:
        ValueError: unknown method, class, option value or unusable sample; an empty or NaN map.
        TypeError: unknown option, or a model the method cannot see into.
    """
    check.one_of("method", name, tuple(METHODS))
    check.at_least_one("batch_size", batch_size)
    many = [samples] if isinstance(samples, (Text, Picture)) else list(samples)
    each = target is not None and not isinstance(target, (int, str))
    if each and len(target) != len(many):  # type: ignore[arg-type]
        raise ValueError(f"{len(target)} classes are given for {len(many)} samples; expected one for each, or one.")  # type: ignore[arg-type]
    found: list[Attribution] = []
    for start in range(0, len(many), batch_size):
        chosen = slice(start, start + batch_size)
        with torch.inference_mode(False):
            found += _explain(name, model, many[chosen], target[chosen] if each else target, options)  # type: ignore[index]
    return found[0] if isinstance(samples, (Text, Picture)) else found


def _explain(
    name: str, model: Model, some: Sequence[Sample], target: Target, options: dict[str, Any]
) -> list[Attribution]:
    """Explain one batch."""
    method = METHODS[name]
    if method.passes is None:
        seen = observe(model, some, target, gradient=method.needs_gradient)
        return [attribute(name, seen, i, **options) for i in range(len(some))]
    batch = encode(model, some)
    targets = None
    if method.needs_gradient:
        with torch.no_grad():
            logits = model.logits(batch.inputs) if target is None or not model.classes else torch.empty(len(batch))
        targets = targets_of(model, logits, target)
        assert targets is not None
    found = method.passes(model, batch, targets, **options)
    return [
        _label(name, model, batch, i, scores, targets[i] if targets else None, {**options, **details})
        for i, (scores, details) in enumerate(found)
    ]


def attribute(name: str, seen: Observation, sample: int = 0, **options: Any) -> Attribution:
    """Score the tokens of one observed sample by one method; no further pass through the model."""
    check.one_of("method", name, tuple(METHODS))
    method = METHODS[name]
    check.index("sample", sample, len(seen.batch))
    if method.score is None:
        raise ValueError(f"{name} needs passes of its own; call explain({name!r}, ...).")
    if method.needs_gradient and seen.embedding_gradient is None:
        raise ValueError(f"{name} needs gradients; call observe(..., gradient=True).")
    if name in WEIGHTED and seen.gradient is None:
        raise TypeError(
            f"{name} needs the gradient at attention probabilities; {seen.model.name} reads by scans. "
            "Try mamba_attribution."
        )
    scores, details = method.score(seen.view(sample), **options)
    target = seen.targets[sample] if method.needs_gradient and seen.targets else None
    return _label(name, seen.model, seen.batch, sample, scores, target, {**options, **details})


def raw_attention(
    view: View, layer: int = -1, head: int | None = None, row: str | int = "cls"
) -> tuple[Tensor, dict[str, Any]]:
    """Attention of one layer: one head or their mean, read along one row (see :func:`read_row`)."""
    check.index("layer", layer, len(view.attention))
    _reads_others(view, row)
    maps = view.attention[layer]
    if head is not None:
        check.index("head", head, len(maps))
    return read_row(maps.mean(0) if head is None else maps[head], row), {}


def attention_rollout(
    view: View,
    fusion: str = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    row: str | int = "cls",
    layer: int = -1,
) -> tuple[Tensor, dict[str, Any]]:
    """Attention rollout from the given layer down (see :func:`rollout.fuse` and :func:`rollout.rollout`)."""
    _reads_others(view, row)
    maps = rollout.fuse(_below(view.attention, layer), fusion, discard, keep=0)
    return _roll(maps, residual, row)


def diffusion_rollout(
    view: View,
    filter: str = "spectral",
    strength: float | None = None,
    residual: float = 0.5,
    row: str | int = "cls",
    layer: int = -1,
) -> tuple[Tensor, dict[str, Any]]:
    """Rollout of the head means after a filter of their spectrum (see :func:`diffusion.diffuse`)."""
    _reads_others(view, row)
    maps = diffusion.diffuse(rollout.fuse(_below(view.attention, layer)), filter, strength)
    return _roll(maps, residual, row)


def selective_rollout(
    view: View,
    threshold: float = 0.1,
    distance: str = "total_variation",
    residual: float = 0.5,
    row: str | int = "cls",
    layer: int = -1,
) -> tuple[Tensor, dict[str, Any]]:
    """Rollout through the layers that differ enough from the last one used (see :mod:`selective`)."""
    _reads_others(view, row)
    found = selective.selective_rollout(
        rollout.fuse(_below(view.attention, layer)), threshold, distance, residual=residual
    )
    return read_row(found.rolled[-1], row), {"used": found.used.nonzero()[:, 0].tolist()}


def gradient_rollout(
    view: View, discard: float = 0.0, residual: float = 0.5, row: str | int = "cls", layer: int = -1
) -> tuple[Tensor, dict[str, Any]]:
    """Rollout of attention weighted by its own gradient (see :func:`rollout.gradient_weighted`)."""
    assert view.gradient is not None
    _reads_others(view, row)
    maps = rollout.gradient_weighted(_below(view.attention, layer), _below(view.gradient, layer), discard, keep=0)
    return _roll(maps, residual, row)


def attention_flow(view: View, residual: float = 0.5, layer: int = -1, row: int = 0) -> tuple[Tensor, dict[str, Any]]:
    """Maximum flow from one position behind a layer to every input token, as shares (see :mod:`flow`)."""
    check.index("row", row, view.attention.shape[-1])
    _reads_others(view, "cls" if row == 0 else row)
    steps = rollout.mix(rollout.fuse(view.attention).double(), residual)
    return flow.flow_shares(flow.flow(steps, layer, [row % steps.shape[-1]]))[0], {}


def gradient_norm(view: View) -> tuple[Tensor, dict[str, Any]]:
    """Length of the gradient at each token entering the first block.

    The sum over the width of the gradient at a word embedding *before* a LayerNorm is zero in exact arithmetic, so
    the level matters: here it is behind the LayerNorm of BERT's embeddings, and the token itself in a ViT.
    """
    assert view.embedding_gradient is not None
    return view.embedding_gradient.norm(dim=-1), {}


def gradient_x_input(view: View) -> tuple[Tensor, dict[str, Any]]:
    """Inner product of each token entering the first block with its gradient; same level as :func:`gradient_norm`."""
    assert view.embedding is not None and view.embedding_gradient is not None
    return (view.embedding * view.embedding_gradient).sum(-1), {}


def read_row(matrix: Tensor, row: str | int) -> Tensor:
    """Read a ``(query, key)`` matrix: ``"cls"`` (position 0), ``"max"`` or ``"mean"`` over queries, or a position."""
    if isinstance(row, int):
        check.index("row", row, len(matrix))
        return matrix[row]
    check.one_of("row", row, ROWS)
    if row == "cls":
        return matrix[0]
    return matrix.amax(0) if row == "max" else matrix.mean(0)


def _reads_others(view: View, row: str | int) -> None:
    """Refuse the row ``"cls"`` of a causal model: its first token comes before all others and reads none of them."""
    if row == "cls" and view.attention.shape[-1] > 1 and not view.attention[..., 0, 1:].any():
        raise ValueError(
            "row is 'cls', but the first token reads only itself in every layer and head, as in a causal model such as "
            "GPT-2. Take the last token, which reads all (row=-1), or row='mean'."
        )


def _below(maps: Tensor, layer: int) -> Tensor:
    """Return the layers up to and with ``layer``."""
    check.index("layer", layer, len(maps))
    return maps[: layer % len(maps) + 1]


def _roll(maps: Tensor, residual: float, row: str | int) -> tuple[Tensor, dict[str, Any]]:
    """Roll out; a single row is carried as a vector, which costs a token's share of the full product."""
    if row == "cls" or isinstance(row, int):
        return rollout.rollout_row(maps, 0 if row == "cls" else int(row), residual, rescale=True), {}
    return read_row(rollout.rollout(maps, residual, rescale=True)[-1], row), {}


def _label(
    name: str,
    model: Model,
    batch: Batch,
    sample: int,
    scores: Tensor,
    target: int | None,
    details: dict[str, Any],
) -> Attribution:
    method = METHODS[name]
    return Attribution(
        scores[batch.prefix :],
        batch.labels[sample],
        name,
        model.name,
        target,
        "" if target is None else model.classes[target],
        method.unit,
        method.signed,
        batch.grid,
        details,
    )


METHODS: dict[str, Method] = {
    "attention": Method(raw_attention, False, False, "attention share"),
    "rollout": Method(attention_rollout, False, False, "share of the input"),
    "diffusion_rollout": Method(diffusion_rollout, False, False, "share of the input"),
    "selective_rollout": Method(selective_rollout, False, False, "share of the input"),
    "gradient_rollout": Method(gradient_rollout, True, False, "gradient-weighted share"),
    "flow": Method(attention_flow, False, False, "share of the flow"),
    "gradient_norm": Method(gradient_norm, True, False, "logit per unit of embedding"),
    "gradient_x_input": Method(gradient_x_input, True, True, "logit"),
    "integrated_gradients": Method(None, True, True, "logit", integrated.gradients),
    "generic_attention": Method(relevance.generic_attention, True, False, "gradient-weighted attention"),
    "attention_gradcam": Method(relevance.attention_gradcam, True, False, "gradient-weighted attention"),
    "transformer_attribution": Method(
        None, True, False, "gradient-weighted relevance", relevance.transformer_attribution
    ),
    "full_lrp": Method(None, True, True, "share of relevance", relevance.full_lrp),
    "cp_lrp": Method(None, True, True, "logit", partial(relevance.modified_gradient, "cp")),
    "attnlrp": Method(None, True, True, "logit", partial(relevance.modified_gradient, "attnlrp")),
    "hidden_attention": Method(None, False, False, "hidden attention", hidden.hidden_attention),
    "hidden_rollout": Method(None, False, False, "share of the input", hidden.hidden_rollout),
    "unified_attention": Method(None, False, False, "hidden attention", hidden.unified_attention),
    "hidden_rollout_published": Method(
        None, False, False, "discounted hidden attention", hidden.hidden_rollout_published
    ),
    "mamba_attribution": Method(None, True, False, "gradient-weighted hidden attention", hidden.mamba_attribution),
    "mamba_lrp": Method(None, True, True, "logit", hidden.relevance),
    "gradcam": Method(None, True, False, "gradient-weighted activation", relevance.gradcam),
}
