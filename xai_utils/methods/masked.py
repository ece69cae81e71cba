"""Masked language models: sentences with one [MASK], what a model puts there, and one captured pass over a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture import capture_attention
from xai_utils.maths import attcat, densray
from xai_utils.models import Model, encoding
from xai_utils.models.encoding import Batch
from xai_utils.samples.kinds import Text

TARGETS = ("difference", "likeliest")
SPECIALS = ("kept", "masked")


@dataclass(frozen=True)
class Masked:
    """One captured pass over sentences with one [MASK] each, detached from the model.

    Attributes:
        batch: the encoded sentences.
        position: place of [MASK] in each, ``(sample,)``.
        attention: ``(layer, sample, head, query, key)``.
        hidden: what enters each block, and last what leaves the last one, ``(layer + 1, sample, token, width)``.
        gradient: of the target by ``hidden``, same shape.
        probabilities: of both words of the pair at [MASK], ``(sample, 2)``.
        score: logit of the first word minus that of the second, ``(sample,)``.
        likeliest: most likely word at [MASK] in each sentence.
        real: ``(sample, token)`` bool, false for padding.
        explained: ``(sample, token)`` bool, false for padding, special tokens and [MASK].
    """

    batch: Batch
    position: Tensor
    attention: Tensor
    hidden: Tensor
    gradient: Tensor
    probabilities: Tensor
    score: Tensor
    likeliest: tuple[str, ...]
    real: Tensor
    explained: Tensor

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


def token_id(model: Model, word: str) -> int:
    """Return the id of a word that is one token of the model's vocabulary; ``ValueError`` shows its pieces if not."""
    pieces = model.tokenizer.tokenize(word)
    if len(pieces) != 1 or pieces[0] == model.tokenizer.unk_token:
        raise ValueError(
            f"{word!r} is {pieces} for {model.name}, not a single token, so there is no one logit for it; take a word "
            "of its vocabulary, such as 'he'."
        )
    return int(model.tokenizer.convert_tokens_to_ids(pieces[0]))


def encode_masked(model: Model, texts: Sequence[str]) -> tuple[Batch, Tensor]:
    """Encode sentences and find their [MASK]; ``ValueError`` unless each has exactly one."""
    token = model.tokenizer.mask_token
    batch = encoding.encode(model, [Text(text.replace("[MASK]", token), text) for text in texts])
    found = batch.inputs["input_ids"] == model.tokenizer.mask_token_id
    for text, count in zip(texts, found.sum(1).tolist(), strict=True):
        if count != 1:
            raise ValueError(f"{text!r} has {count} [MASK]; expected exactly one, written [MASK], in capitals.")
    return batch, found.long().argmax(1)


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
        ValueError: see :func:`token_id` and :func:`encode_masked`; or a model without that head.
    """
    check.one_of("target", target, TARGETS)
    check.one_of("specials", specials, SPECIALS)
    first, second = (token_id(model, word) for word in pair)
    batch, position = encode_masked(model, texts)
    ids, real = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
    is_mask = ids == model.tokenizer.mask_token_id
    inputs = dict(batch.inputs)
    if specials == "masked":
        inputs["attention_mask"] = inputs["attention_mask"] * (~special | is_mask)
    with torch.enable_grad(), capture_attention(model.module, model.blocks, hidden=True) as trace:
        logits = at_mask(model, inputs, position)
        score = logits[:, first] - logits[:, second]
        (score if target == "difference" else logits.amax(-1)).sum().backward()
        hidden = torch.stack([state.detach() for state in trace.hidden])
        gradient = torch.stack([trace.hidden_grad(place) for place in range(len(trace.hidden))])
    logits = logits.detach()
    return Masked(
        batch, position, trace.stack(), hidden, gradient, logits.softmax(-1)[:, [first, second]], score.detach(),
        tuple(model.tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())), real, real & ~special,
    )  # fmt: skip


def at_mask(model: Model, inputs: Mapping[str, Tensor], position: Tensor) -> Tensor:
    """Return the logits of all words at one place of every sentence, ``(sample, word)``."""
    logits = getattr(model.module(**inputs), "logits", None)
    words = len(model.tokenizer)
    if logits is None or logits.ndim != 3 or logits.shape[-1] < words:
        raise ValueError(f"{model.name} does not predict masked words; take minilm-mlm, or mlm:owner/name of a hub.")
    return logits[torch.arange(len(position)), position, :words]


@torch.inference_mode()
def pair_probabilities(model: Model, texts: Sequence[str], pair: tuple[str, str] = ("he", "she")) -> Tensor:
    """Return the probabilities of both words at the [MASK] of every sentence, ``(sample, 2)``; no gradient."""
    ids = [token_id(model, word) for word in pair]
    batch, position = encode_masked(model, texts)
    return at_mask(model, batch.inputs, position).softmax(-1)[:, ids]


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
        batch = encoding.encode(model, [Text(text) for text in texts[start : start + size]])
        ids = batch.inputs["input_ids"]
        special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
        shift = torch.arange(start, start + len(ids), device=ids.device)[:, None]
        hide = ((torch.arange(ids.shape[1], device=ids.device) + shift) % every == 0) & ~special
        given = {**batch.inputs, "input_ids": ids.masked_fill(hide, model.tokenizer.mask_token_id)}
        found.append(torch.nn.functional.cross_entropy(model.module(**given).logits[hide], ids[hide], reduction="none"))
        owner.append(hide.nonzero()[:, 0] + start)
    return torch.cat(found), torch.cat(owner)
