"""Masked language models and a pair of words: what is put at [MASK], and gender scores of one captured pass.

The pass itself is that of every other model, :func:`observation.observe`, asked for one word against another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import attcat, densray
from xai_utils.methods import observation
from xai_utils.methods.observation import Observation
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Question
from xai_utils.samples.kinds import Text

TARGETS = ("difference", "likeliest")
SPECIALS = ("kept", "masked")


@dataclass(frozen=True)
class Masked:
    """One captured pass over sentences with one [MASK] each, and what it says of a pair of words.

    Attributes:
        seen: the pass; ``seen.states[:-1]`` are the inputs of the blocks, ``seen.reading`` the places of [MASK].
        probabilities: of both words of the pair at [MASK], ``(sample, 2)``.
        score: logit of the first word minus that of the second, ``(sample,)``.
        likeliest: most likely word at [MASK] in each sentence.
        real: ``(sample, token)`` bool, false for padding.
        explained: ``(sample, token)`` bool, false for padding, special tokens and [MASK].
    """

    seen: Observation
    probabilities: Tensor
    score: Tensor
    likeliest: tuple[str, ...]
    real: Tensor
    explained: Tensor

    @property
    def batch(self) -> Batch:
        """The encoded sentences."""
        return self.seen.batch

    @property
    def position(self) -> Tensor:
        """Place of [MASK] in each, ``(sample,)``."""
        return self.seen.reading

    @property
    def attention(self) -> Tensor:
        """``(layer, sample, head, query, key)``."""
        return self.seen.attention

    @property
    def hidden(self) -> Tensor:
        """What enters each block and leaves the last one, ``(layer + 1, sample, token, width)``."""
        assert self.seen.states is not None
        return self.seen.states

    @property
    def gradient(self) -> Tensor:
        """Gradient of the target by :attr:`hidden`, same shape."""
        assert self.seen.state_gradients is not None
        return self.seen.state_gradients

    def attcat(self, reading: str = "mask row") -> Tensor:
        """Return AttCAT by layer, ``(layer, sample, token)``, from block inputs; see :mod:`attcat`."""
        check.one_of("reading", reading, attcat.READINGS)
        row = reading == "mask row"
        weight = attcat.paid(self.attention, self.position) if row else attcat.received(self.attention, self.real)
        return attcat.attcat(weight, attcat.cat(self.hidden[:-1], self.gradient[:-1]))

    def paid(self) -> Tensor:
        """Return the attention that [MASK] pays, ``(layer, sample, token)``."""
        return attcat.paid(self.attention, self.position)

    def ray(self, vectors: Tensor) -> Tensor:
        """Return DensRay scores of block inputs, ``(layer, sample, token)``, for directions ``(layer, width)``."""
        count = len(self.attention)
        if len(vectors) < count or vectors.shape[-1] != self.hidden.shape[-1]:
            raise ValueError(
                f"directions of shape {tuple(vectors.shape)} do not fit {count} layers of width "
                f"{self.hidden.shape[-1]}; train them on the model that is explained."
            )
        return torch.stack(
            [densray.project(states, q) for states, q in zip(self.hidden, vectors[:count], strict=False)]
        )

    def attdr(self, vectors: Tensor) -> Tensor:
        """Return attention paid by [MASK] times DensRay score, layers matched, ``(layer, sample, token)``."""
        return densray.attdr(self.paid(), self.ray(vectors))

    def tokens(self, sample: int) -> tuple[int, ...]:
        """Return the places of one sample that an explanation shows: [MASK] too, specials not."""
        shown = self.explained[sample].clone()
        shown[self.position[sample]] = True
        return tuple(shown.nonzero().flatten().tolist())

    def covers(self, words: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Return which tokens belong to a word of each text, ``(sample, token)`` bool; all pieces, last occurrence."""
        found = torch.zeros_like(self.real)
        for i, (word, text) in enumerate(zip(words, texts, strict=True)):
            start = text.lower().rfind(word.lower())
            if start < 0:
                raise ValueError(f"{text!r} does not hold the word {word!r}.")
            for t, (first, last) in enumerate(self.batch.spans[i]):
                found[i, t] = last > first and first < start + len(word) and last > start
        return found


def observe(
    model: Model,
    texts: Sequence[str],
    pair: tuple[str, str] = ("he", "she"),
    target: str = "difference",
    specials: str = "kept",
) -> Masked:
    """Run one captured pass and one backward pass from the targets of all sentences at once.

    Args:
        model: a model with the head that predicts masked words.
        texts: sentences with one [MASK] each.
        pair: two words of one token; the score is the logit of the first minus that of the second.
        target: ``"difference"``, that score, signed; or ``"likeliest"``, the logit of the most likely word (published).
        specials: ``"kept"``, or ``"masked"``: hide [CLS] and [SEP] from attention as published (another model).

    Raises:
        ValueError: a word of several tokens, a sentence without exactly one [MASK], or a model without that head.
    """
    check.one_of("target", target, TARGETS)
    check.one_of("specials", specials, SPECIALS)
    first, second = _ids(model, pair)
    question = Question(first, second) if target == "difference" else None
    seen = observation.observe(model, _sentences(texts), question, specials=specials)
    assert seen.logits is not None
    ids = seen.batch.inputs["input_ids"]
    real = seen.batch.inputs["attention_mask"].bool()
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
    both = seen.logits[:, [first, second]]
    return Masked(
        seen, seen.logits.softmax(-1)[:, [first, second]], both[:, 0] - both[:, 1],
        tuple(model.classes[one] for one in seen.logits.argmax(-1).tolist()), real, real & ~special,
    )  # fmt: skip


def encode_masked(model: Model, texts: Sequence[str]) -> tuple[Batch, Tensor]:
    """Encode sentences and find their [MASK]; ``ValueError`` unless each has exactly one."""
    batch = encode(model, _sentences(texts))
    return batch, model.reading(batch.inputs)


def _sentences(texts: Sequence[str]) -> list[Text]:
    return [Text(text, text) for text in texts]


def _ids(model: Model, pair: tuple[str, str]) -> list[int]:
    if model.head != "mask":
        raise ValueError(f"{model.name} does not predict masked words; take minilm-mlm, or mlm:owner/name of a hub.")
    return [model.class_index(word) for word in pair]


@torch.inference_mode()
def pair_probabilities(model: Model, texts: Sequence[str], pair: tuple[str, str] = ("he", "she")) -> Tensor:
    """Return the probabilities of both words at the [MASK] of every sentence, ``(sample, 2)``; no gradient."""
    ids = _ids(model, pair)
    return model.logits(encode(model, _sentences(texts)).inputs).softmax(-1)[:, ids]


@torch.inference_mode()
def word_losses(model: Model, texts: Sequence[str], every: int = 6, size: int = 64) -> tuple[Tensor, Tensor]:
    """Hide every ``every``-th word piece, shifted from text to text.

    Returns:
        ``-log P`` of every hidden piece, ``(place,)``; the exponential of its mean is the perplexity of masked words.
        And the text each belongs to, ``(place,)``: places of one text are no independent samples.
    """
    check.at_least_one("every", every)
    found, owner = [], []
    for start in range(0, len(texts), size):
        batch = encode(model, [Text(text) for text in texts[start : start + size]])
        ids = batch.inputs["input_ids"]
        special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
        shift = torch.arange(start, start + len(ids), device=ids.device)[:, None]
        hide = ((torch.arange(ids.shape[1], device=ids.device) + shift) % every == 0) & ~special
        given = {**batch.inputs, "input_ids": ids.masked_fill(hide, model.tokenizer.mask_token_id)}
        found.append(torch.nn.functional.cross_entropy(model.module(**given).logits[hide], ids[hide], reduction="none"))
        owner.append(hide.nonzero()[:, 0] + start)
    return torch.cat(found), torch.cat(owner)
