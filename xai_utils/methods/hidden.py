"""Explanations by hidden attention: the passes through a Mamba model behind lines of :mod:`methods`.

Each function takes ``(model, batch, targets, **options)`` and returns ``(scores, details)`` per sample. Of a picture
the token that the class is read from comes first, then the patches in order; of a text all tokens in order, of which
the last one reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture.lrp_mamba import RULES, mamba_lrp
from xai_utils.capture.scans import ScanTrace, capture_scans
from xai_utils.maths import hidden_attention as ssm
from xai_utils.maths import hidden_maps
from xai_utils.maths.selective_scan import Scan
from xai_utils.methods.observation import class_first
from xai_utils.models.encoding import Batch
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, given

FORMS = ("right", "published")
Scores = list[tuple[Tensor, dict[str, Any]]]
Targets = Asked | Sequence[int] | None


@dataclass(frozen=True)
class Look:
    """What one captured pass through a Mamba model, and one backward pass if asked for, say of samples alike in length.

    Attributes:
        layers: the scans of every layer.
        position: of the token that the class is read from.
        gradients: of the target scores at the bare output of every scan; empty without.
        streams: tokens entering the first block and leaving every block, ``(layer + 1, sample, token, width)``.
        stream_gradients: likewise; ``None`` without.
        convolutions: of a text model, per layer the convolution's weight ``(channel, tap)`` and the slope of the
            activation behind it ``(sample, channel, token)``; else empty.
    """

    layers: hidden_maps.Layers
    position: int
    gradients: list[tuple[Tensor, ...]]
    streams: Tensor
    stream_gradients: Tensor | None
    convolutions: Sequence[tuple[Tensor, Tensor]] = ()

    def alone(self, sample: int, length: int) -> Look:
        """Return one text without its padding, read by its last token."""
        one = slice(sample, sample + 1)
        layers = [tuple(_cut(scan, one, length) for scan in scans) for scans in self.layers]
        gradients = [tuple(gradient[one, :, :length] for gradient in pair) for pair in self.gradients]
        slopes = None if self.stream_gradients is None else self.stream_gradients[:, one, :length]
        convolutions = [(kernel, slope[one, :, :length]) for kernel, slope in self.convolutions]
        return Look(layers, length - 1, gradients, self.streams[:, one, :length], slopes, convolutions)


def looks(model: Model, batch: Batch, targets: Targets = None, lrp: Collection[str] = ()) -> list[Look]:
    """Run the model once, and back once from the given classes; pictures stay together, texts lose their padding.

    Padding stands behind a text, so that what comes before never reads it: cutting it off is exact.

    Args:
        model: a Mamba or Mamba-2 of transformers, or Vision Mamba.
        batch: its encoded samples.
        targets: class of each sample, for gradients.
        lrp: rules of :func:`lrp_mamba.mamba_lrp` to go back by, in place of plain gradients.

    Raises:
        TypeError: a model without scans.
    """
    capture = mamba_lrp(model.module, lrp) if lrp else capture_scans(model.module)
    with torch.set_grad_enabled(targets is not None), capture as trace:
        gradients, slopes = [], None
        if targets is None:
            model.module(**batch.inputs)
        else:
            logits = model.logits(batch.inputs)
            given(targets).score(logits).sum().backward()
            gradients = trace.scan_gradients()
            slopes = torch.stack([trace.stream_gradient(i) for i in range(len(trace.streams))])
        streams = torch.stack([stream.detach() for stream in trace.streams])
        convolutions = list(zip(trace.kernels, trace.slopes, strict=True)) if isinstance(trace, ScanTrace) else []
        seen = Look(trace.scans, trace.class_position, gradients, streams, slopes, convolutions)
    return [seen] if batch.grid else [seen.alone(i, batch.length(i)) for i in range(len(batch))]


def _cut(scan: Scan, sample: slice, length: int) -> Scan:
    given = (scan.u, scan.delta, scan.B, scan.C, scan.gate)
    u, delta, B, C, gate = (None if one is None else one[sample, ..., :length] for one in given)
    assert u is not None and delta is not None and B is not None and C is not None
    return replace(scan, u=u, delta=delta, B=B, C=C, gate=gate)


def hidden_attention(
    model: Model, batch: Batch, targets: Targets, signs: str = "absolute", start: int | None = None,
    form: str = "right",
) -> Scores:  # fmt: skip
    """Raw hidden attention of the class token, averaged over layers (see :func:`hidden_maps.raw_row`).

    Options:
        signs: ``"absolute"`` or ``"clamped"``.
        start: first layer; ``None`` for 0, or in the published form for 15 of 24.
        form: ``"right"`` or ``"published"``.
    """
    _unsigned(signs)

    def score(seen: Look, start: int) -> Tensor:
        rows = hidden_maps.class_rows(seen.layers[start:], seen.position)
        return hidden_maps.published_raw(rows, 0) if form == "published" else hidden_maps.raw_row(rows, signs)

    return _scored(looks(model, batch), score, start, form)


def hidden_rollout(
    model: Model, batch: Batch, targets: Targets, signs: str = "absolute", start: int = 0
) -> Scores:  # fmt: skip
    """Rollout of whole, not negative maps (see :func:`hidden_maps.rolled`); options as in :func:`hidden_attention`."""
    _unsigned(signs)

    def score(seen: Look, start: int) -> Tensor:
        return hidden_maps.rolled(hidden_maps.layer_maps(seen.layers[start:], signs), seen.position)

    return _scored(looks(model, batch), score, start)


def unified_attention(
    model: Model, batch: Batch, targets: Targets, start: int = 0, rolled: bool = False
) -> Scores:  # fmt: skip
    """Hidden attention with convolution, skip and gate folded in: what a token reads of the tokens *before* the mixer.

    Options:
        start: first layer.
        rolled: roll the layers out instead of averaging them.

    Raises:
        TypeError: Vision Mamba, whose two convolutions are not captured.

    Source: Zimerman, Ali & Wolf (2024), arXiv:2405.16504.
    """

    def score(seen: Look, start: int) -> Tensor:
        return (hidden_maps.rolled if rolled else hidden_maps.raw)(unified_maps(seen, start), seen.position)

    return _scored(looks(model, batch), score, start)


def unified_maps(seen: Look, start: int = 0) -> Tensor:
    """Return the maps of :func:`unified_attention` from one layer on, ``(layer, sample, query, key)``; same error."""
    if not seen.convolutions:
        raise TypeError("convolutions are captured of text models only; of Vision Mamba take hidden_attention.")
    return torch.stack([
        ssm.of_scan(scans[0], "absolute", True, kernel, slope)
        for scans, (kernel, slope) in zip(seen.layers[start:], seen.convolutions[start:], strict=True)
    ])  # fmt: skip


def hidden_rollout_published(model: Model, batch: Batch, targets: Targets, start: int | None = None) -> Scores:
    """The published "rollout", a discounted sum of class-token rows (see :func:`hidden_maps.published_rollout`)."""

    def score(seen: Look, start: int) -> Tensor:
        vectors = hidden_maps.class_rows(seen.layers, seen.position).mean(2)
        return hidden_maps.published_rollout(vectors, seen.position, start).clamp(min=0)

    return _scored(looks(model, batch), score, start, "published")


def mamba_attribution(
    model: Model, batch: Batch, targets: Targets, start: int | None = None, form: str = "right"
) -> Scores:  # fmt: skip
    """Hidden attention weighted by its gradient (see :func:`hidden_maps.weighted`, or the published form)."""

    def score(seen: Look, start: int) -> Tensor:
        if form == "right":
            return hidden_maps.weighted(seen.layers, seen.gradients, seen.position, start)
        assert seen.stream_gradients is not None
        rows = hidden_maps.class_rows(seen.layers, seen.position)
        return hidden_maps.published_attribution(rows, seen.stream_gradients[1:], seen.position, start).clamp(min=0)

    return _scored(looks(model, batch, targets), score, start, form)


def relevance(model: Model, batch: Batch, targets: Targets, rules: Collection[str] = RULES) -> Scores:
    """MambaLRP: gradient times token entering the first block, backwards by rules (see :func:`lrp_mamba.mamba_lrp`).

    Options:
        rules: some of ``"silu"``, ``"scan"``, ``"gate"``, ``"norm"``.
    """
    found: Scores = []
    for seen in looks(model, batch, targets, rules):
        assert seen.stream_gradients is not None
        sums = (seen.streams * seen.stream_gradients).sum(-1)
        moved = class_first(sums, seen.position, -1) if batch.grid else sums
        depth = sums.sum(-1)
        found += [
            (moved[0, i], {"rules": tuple(rules), "relevance_by_depth": tuple(depth[:, i].tolist())})
            for i in range(sums.shape[1])
        ]
    return found


def _unsigned(signs: str) -> None:
    check.one_of("signs", signs, ("absolute", "clamped"))


def _scored(
    seen: list[Look], score: Callable[[Look, int], Tensor], start: int | None, form: str = "right"
) -> Scores:  # fmt: skip
    """Score every look from its first layer on; the reader of a picture comes first, texts keep their order."""
    check.one_of("form", form, FORMS)
    layers = len(seen[0].layers)
    if start is None:
        start = layers * 15 // 24 if form == "published" else 0
    check.index("start", start, layers)
    start %= layers
    found: Scores = []
    for one in seen:
        rows = score(one, start)
        picture = one.layers[0][-1].backward
        found += [(row, {"start": start}) for row in (class_first(rows, one.position, -1) if picture else rows)]
    return found
