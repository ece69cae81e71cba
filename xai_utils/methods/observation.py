"""One captured pass over a batch: everything that attention and gradient methods look at, kept for redrawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_utils.capture import capture_attention
from xai_utils.capture.scans import capture_scans, scanning
from xai_utils.maths.hidden_maps import direction_maps
from xai_utils.models import Model
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.targets import Target, targets_of
from xai_utils.samples.kinds import Sample


@dataclass(frozen=True)
class View:
    """What a method sees of one sample; no padding, prefix tokens included.

    Attributes:
        attention: ``(layer, head, query, key)``.
        gradient: of the class score by ``attention``, same shape, or ``None``.
        embedding: ``(token, width)`` entering the first block (behind BERT's embedding LayerNorm), or ``None``.
        embedding_gradient: of the class score by ``embedding``, or ``None``.
        readers: ``(token,)`` bool, the positions whose final state the class score is read from ([CLS]; also the
            distillation token where there are two heads), or ``None``.
        prefix: leading positions of a picture that stand for no patch.
    """

    attention: Tensor
    gradient: Tensor | None = None
    embedding: Tensor | None = None
    embedding_gradient: Tensor | None = None
    readers: Tensor | None = None
    prefix: int = 0


@dataclass(frozen=True)
class Observation:
    """One captured pass over a batch, detached from the model.

    Attributes:
        model: the model.
        batch: the encoded samples.
        attention: ``(layer, sample, head, query, key)``, padded to the longest sample.
        targets: class index per sample; ``None`` for a model without a classifier.
        logits: ``(sample, class)`` or ``None``.
        gradient: of the sum of the target logits by ``attention``, or ``None``.
        embedding: ``(sample, token, width)`` entering the first block, or ``None``.
        embedding_gradient: gradient at ``embedding``, or ``None``.
        readers: ``(sample, token)`` bool, see :class:`View`, or ``None``.
    """

    model: Model
    batch: Batch
    attention: Tensor
    targets: tuple[int, ...] | None
    logits: Tensor | None
    gradient: Tensor | None = None
    embedding: Tensor | None = None
    embedding_gradient: Tensor | None = None
    readers: Tensor | None = None

    def view(self, sample: int) -> View:
        """Return one sample without its padding."""
        n = self.batch.length(sample)

        def square(maps: Tensor | None) -> Any:
            return None if maps is None else maps[:, sample, :, :n, :n]

        def rows(states: Tensor | None) -> Any:
            return None if states is None else states[sample, :n]

        return View(
            square(self.attention), square(self.gradient), rows(self.embedding), rows(self.embedding_gradient),
            rows(self.readers), self.batch.prefix,
        )  # fmt: skip


def observe(model: Model, samples: Sequence[Sample], target: Target = None, gradient: bool = True) -> Observation:
    """Run one captured forward pass, and one backward pass from the target classes if ``gradient``.

    The target logits of all samples are added and back-propagated once; samples do not meet in the model, so each
    gets its own gradient. Memory: ``layers x batch x heads x tokens² x 4`` bytes for the maps, twice with gradients.

    Of Vision Mamba, ``attention`` is its hidden attention as shares, one "head" for each direction (see
    :func:`hidden_maps.direction_maps`), with the class token moved from the middle to the front; of a Mamba of texts,
    with its one direction. It has no gradient of its own (``mamba_attribution`` takes it on the scans).
    """
    batch = encode(model, samples)
    if gradient and not model.classes:
        raise ValueError(f"{model.name} has no classifier, so no class to explain; try minilm-sst2.")
    if scanning(model.module):
        return _observe_scans(model, batch, target, gradient)
    with torch.set_grad_enabled(gradient), capture_attention(model.module, model.blocks, hidden=gradient) as trace:
        logits = model.logits(batch.inputs) if model.classes else model.module(**batch.inputs) and None
        targets = targets_of(model, logits, target)
        if not gradient:
            return Observation(model, batch, trace.stack(), targets, logits)
        assert logits is not None and targets is not None
        logits[range(len(targets)), targets].sum().backward()
        return Observation(
            model, batch, trace.stack(), targets, logits.detach(),
            trace.stack_grad(), trace.hidden[0].detach(), trace.hidden_grad(0), trace.hidden_grad(-1).any(-1),
        )  # fmt: skip


def _observe_scans(model: Model, batch: Batch, target: Target, gradient: bool) -> Observation:
    with torch.set_grad_enabled(gradient), capture_scans(model.module) as trace:
        logits = model.logits(batch.inputs) if model.classes else model.module(**batch.inputs) and None
        targets = targets_of(model, logits, target)
        if gradient:
            assert logits is not None and targets is not None
            logits[range(len(targets)), targets].sum().backward()
    at = trace.class_position
    attention = class_first(class_first(direction_maps(trace.scans), at, -1), at, -2)
    if not gradient:
        return Observation(model, batch, attention, targets, logits)
    assert logits is not None
    slope, last = (class_first(trace.stream_gradient(place), at, 1) for place in (0, -1))
    tokens = class_first(trace.streams[0].detach(), at, 1)
    return Observation(model, batch, attention, targets, logits.detach(), None, tokens, slope, last.any(-1))


def class_first(tensor: Tensor, position: int, axis: int) -> Tensor:
    """Move the token at ``position`` of an axis to its front; the others keep their order."""
    before, own, behind = tensor.split([position, 1, tensor.shape[axis] - position - 1], axis)
    return torch.cat([own, before, behind], axis)
