"""Explanations by hidden attention: the passes through a Mamba model behind lines of :mod:`methods`.

Each function takes ``(model, batch, targets, **options)`` and returns ``(scores, details)`` per sample; the token that
the class is read from comes first, then the patches in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_utils import check, hidden_maps
from xai_utils.encode import Batch
from xai_utils.models import Model
from xai_utils.observation import class_first
from xai_utils.vim_capture import capture_vim

FORMS = ("right", "published")
Scores = list[tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class Look:
    """One captured pass through a Mamba model, and one backward pass if asked for.

    Attributes:
        layers: the scans of every layer.
        position: of the token that the class is read from.
        logits: ``(sample, class)``.
        gradients: of the target scores at the bare output of every scan; empty without.
        streams: tokens entering the first block and leaving every block, ``(layer + 1, sample, token, width)``.
        stream_gradients: likewise; ``None`` without.
    """

    layers: hidden_maps.Layers
    position: int
    logits: Tensor
    gradients: list[tuple[Tensor, ...]]
    streams: Tensor
    stream_gradients: Tensor | None


def look(model: Model, batch: Batch, targets: tuple[int, ...] | None = None) -> Look:
    """Run the model once, and back once from the given classes.

    Raises:
        TypeError: a model without scans.
    """
    with torch.set_grad_enabled(targets is not None), capture_vim(model.module) as trace:
        logits = model.logits(batch.inputs)
        gradients, slopes = [], None
        if targets is not None:
            logits[range(len(targets)), targets].sum().backward()
            gradients = trace.scan_gradients()
            slopes = torch.stack([trace.stream_gradient(i) for i in range(len(trace.streams))])
        streams = torch.stack([stream.detach() for stream in trace.streams])
        return Look(trace.scans, trace.class_position, logits.detach(), gradients, streams, slopes)


def hidden_attention(
    model: Model, batch: Batch, targets: tuple[int, ...], signs: str = "absolute", start: int | None = None,
    form: str = "right",
) -> Scores:  # fmt: skip
    """Raw hidden attention of the class token, averaged over layers (see :func:`hidden_maps.raw`).

    Options:
        signs: ``"absolute"`` or ``"clamped"``.
        start: first layer; ``None`` for 0, or in the published form for 15 of 24.
        form: ``"right"`` or ``"published"``.
    """
    _unsigned(signs)
    seen = look(model, batch)
    start = _start(seen, start, form)
    if form == "published":
        rows = hidden_maps.class_rows(seen.layers, seen.position)
        return _scores(seen, hidden_maps.published_raw(rows, start), start)
    maps = hidden_maps.layer_maps(seen.layers[start:], signs)
    return _scores(seen, hidden_maps.raw(maps, seen.position), start)


def hidden_rollout(
    model: Model, batch: Batch, targets: tuple[int, ...], signs: str = "absolute", start: int = 0
) -> Scores:
    """Rollout of whole, not negative maps (see :func:`hidden_maps.rolled`); options as in :func:`hidden_attention`."""
    _unsigned(signs)
    seen = look(model, batch)
    start = _start(seen, start, "right")
    maps = hidden_maps.layer_maps(seen.layers[start:], signs)
    return _scores(seen, hidden_maps.rolled(maps, seen.position), start)


def hidden_rollout_published(model: Model, batch: Batch, targets: tuple[int, ...], start: int | None = None) -> Scores:
    """The published "rollout", a discounted sum of class-token rows (see :func:`hidden_maps.published_rollout`)."""
    seen = look(model, batch)
    start = _start(seen, start, "published")
    vectors = hidden_maps.class_rows(seen.layers, seen.position).mean(2)
    return _scores(seen, hidden_maps.published_rollout(vectors, seen.position, start).clamp(min=0), start)


def mamba_attribution(
    model: Model, batch: Batch, targets: tuple[int, ...], start: int | None = None, form: str = "right"
) -> Scores:
    """Hidden attention weighted by its gradient (see :func:`hidden_maps.weighted`, or the published form)."""
    seen = look(model, batch, targets)
    start = _start(seen, start, form)
    if form == "published":
        assert seen.stream_gradients is not None
        rows = hidden_maps.class_rows(seen.layers, seen.position)
        found = hidden_maps.published_attribution(rows, seen.stream_gradients[1:], seen.position, start)
        return _scores(seen, found.clamp(min=0), start)
    return _scores(seen, hidden_maps.weighted(seen.layers, seen.gradients, seen.position, start), start)


def _unsigned(signs: str) -> None:
    check.one_of("signs", signs, ("absolute", "clamped"))


def _start(seen: Look, start: int | None, form: str) -> int:
    check.one_of("form", form, FORMS)
    if start is None:
        start = len(seen.layers) * 15 // 24 if form == "published" else 0
    check.index("start", start, len(seen.layers))
    return start % len(seen.layers)


def _scores(seen: Look, rows: Tensor, start: int) -> Scores:
    return [(row, {"start": start}) for row in class_first(rows, seen.position, -1)]
