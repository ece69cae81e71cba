"""One captured pass over a batch: everything that attention and gradient methods look at, kept for redrawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_utils.capture.attention import capture_attention
from xai_utils.capture.scans import capture_scans, scanning
from xai_utils.maths.hidden_maps import direction_maps
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, Target, asked
from xai_utils.samples.kinds import Sample


@dataclass(frozen=True)
class View:
    """What a method sees of one sample; no padding, prefix tokens included.

    Attributes:
        attention: ``(layer, head, query, key)``.
        gradient: of the number asked for by ``attention``, same shape, or ``None``.
        states: what enters each block (behind BERT's embedding LayerNorm) and leaves the last one, ``(layer + 1, token,
            width)``, or ``None``.
        state_gradients: of the number asked for by ``states``, same shape, or ``None``.
        readers: ``(token,)`` bool, the positions whose final state the answer is read from ([CLS]; also the
            distillation token where there are two heads; [MASK]), or ``None``.
        prefix: leading positions of a picture that stand for no patch.
        reading: the one position that row methods read.
    """

    attention: Tensor
    gradient: Tensor | None = None
    states: Tensor | None = None
    state_gradients: Tensor | None = None
    readers: Tensor | None = None
    prefix: int = 0
    reading: int = 0

    @property
    def embedding(self) -> Tensor | None:
        """``(token, width)`` entering the first block, or ``None``."""
        return None if self.states is None else self.states[0]

    @property
    def embedding_gradient(self) -> Tensor | None:
        """Gradient at :attr:`embedding`, or ``None``."""
        return None if self.state_gradients is None else self.state_gradients[0]


@dataclass(frozen=True)
class Observation:
    """One captured pass over a batch, detached from the model.

    Attributes:
        model: the model.
        batch: the encoded samples.
        attention: ``(layer, sample, head, query, key)``, padded to the longest sample.
        asked: what is asked of each sample; ``None`` for a model without a head.
        logits: ``(sample, answer)`` or ``None``.
        reading: the position that each answer is read from, ``(sample,)``.
        gradient: of the sum of the numbers asked for by ``attention``, or ``None``.
        states: ``(layer + 1, sample, token, width)``, see :class:`View`, or ``None``.
        state_gradients: likewise.
        readers: ``(sample, token)`` bool, see :class:`View`, or ``None``.
    """

    model: Model
    batch: Batch
    attention: Tensor
    asked: Asked | None
    logits: Tensor | None
    reading: Tensor
    gradient: Tensor | None = None
    states: Tensor | None = None
    state_gradients: Tensor | None = None
    readers: Tensor | None = None

    @property
    def targets(self) -> tuple[int, ...] | None:
        """Class index of each sample; ``None`` for a model without a head."""
        return None if self.asked is None else self.asked.targets

    def view(self, sample: int) -> View:
        """Return one sample without its padding."""
        n = self.batch.length(sample)

        def square(maps: Tensor | None) -> Any:
            return None if maps is None else maps[:, sample, :, :n, :n]

        def rows(states: Tensor | None) -> Any:
            return None if states is None else states[:, sample, :n]

        return View(
            square(self.attention), square(self.gradient), rows(self.states), rows(self.state_gradients),
            None if self.readers is None else self.readers[sample, :n], self.batch.prefix, int(self.reading[sample]),
        )  # fmt: skip


def observe(
    model: Model,
    samples: Sequence[Sample] | Mapping[str, Tensor],
    target: Target = None,
    gradient: bool = True,
    specials: str = "kept",
) -> Observation:
    """Run one captured forward pass, and one backward pass from what is asked if ``gradient``.

    The numbers asked of all samples are added and back-propagated once; samples do not meet in the model, so each
    gets its own gradient. Memory: ``layers x batch x heads x tokens² x 4`` bytes for the maps, twice with gradients.

    Of Vision Mamba, ``attention`` is its hidden attention as shares, one "head" for each direction (see
    :func:`hidden_maps.direction_maps`), with the class token moved from the middle to the front; of a Mamba of texts,
    with its one direction. It has no gradient of its own (``mamba_attribution`` takes it on the scans).

    Args:
        model: the model.
        samples: sentences or pictures, or tensors of one's own (see :func:`encoding.encode`).
        target: what is asked, see :class:`targets.Question`.
        gradient: also go back.
        specials: ``"kept"``, or ``"masked"``: hide special tokens but [MASK] from attention (another model, published
            for gender scores).
    """
    batch = encode(model, samples)
    if gradient and not model.classes:
        raise ValueError(f"{model.name} has no classifier, so no class to explain; try minilm-sst2.")
    if scanning(model.module):
        return _observe_scans(model, batch, target, gradient)
    inputs = batch.inputs if specials == "kept" else without_specials(model, batch.inputs)
    reading = model.reading(batch.inputs) if model.classes else torch.zeros(len(batch), dtype=torch.long)
    with torch.set_grad_enabled(gradient), capture_attention(model.module, model.blocks, hidden=gradient) as trace:
        logits, question = _answer(model, inputs, target)
        if not gradient:
            return Observation(model, batch, trace.stack(), question, logits, reading)
        assert logits is not None and question is not None
        question.score(logits).sum().backward()
        slopes = torch.stack([trace.hidden_grad(place) for place in range(len(trace.hidden))])
        states = torch.stack([state.detach() for state in trace.hidden])
        return Observation(
            model, batch, trace.stack(), question, logits.detach(), reading, trace.stack_grad(), states, slopes,
            slopes[-1].any(-1),
        )  # fmt: skip


def _answer(model: Model, inputs: Mapping[str, Tensor], target: Target) -> tuple[Tensor | None, Asked | None]:
    """Run the model inside a capture; of one without a head there is nothing to ask."""
    if not model.classes:
        model.module(**inputs)
        return None, asked(model, 0, target)
    logits = model.logits(inputs)
    return logits, asked(model, logits, target)


def without_specials(model: Model, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hide [CLS], [SEP] and their like from attention, [MASK] not."""
    ids = inputs["input_ids"]
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
    return {**inputs, "attention_mask": inputs["attention_mask"] * (~special | (ids == model.tokenizer.mask_token_id))}


def _observe_scans(model: Model, batch: Batch, target: Target, gradient: bool) -> Observation:
    with torch.set_grad_enabled(gradient), capture_scans(model.module) as trace:
        logits, question = _answer(model, batch.inputs, target)
        if gradient:
            assert logits is not None and question is not None
            question.score(logits).sum().backward()
    at = trace.class_position
    last = [batch.length(i) - 1 for i in range(len(batch))]  # a text is read by its last token
    reading = torch.tensor(last if batch.grid is None else [0] * len(batch))
    attention = class_first(class_first(direction_maps(trace.scans), at, -1), at, -2)
    if not gradient:
        return Observation(model, batch, attention, question, logits, reading)
    assert logits is not None
    slopes = torch.stack([class_first(trace.stream_gradient(i), at, 1) for i in range(len(trace.streams))])
    states = torch.stack([class_first(stream.detach(), at, 1) for stream in trace.streams])
    return Observation(
        model, batch, attention, question, logits.detach(), reading, None, states, slopes, slopes[-1].any(-1)
    )


def class_first(tensor: Tensor, position: int, axis: int) -> Tensor:
    """Move the token at ``position`` of an axis to its front; the others keep their order."""
    before, own, behind = tensor.split([position, 1, tensor.shape[axis] - position - 1], axis)
    return torch.cat([own, before, behind], axis)
