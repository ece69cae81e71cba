"""Probes: sentences with one [MASK] and a word that is asked about, what a model says of them, and scores of tokens.

The pass is that of every other model, :func:`observation.observe`, asked for one word of a pair against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture import intervene
from xai_utils.maths import attcat
from xai_utils.methods import observation
from xai_utils.methods.observation import Observation
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Question
from xai_utils.samples.gender import Probe
from xai_utils.samples.kinds import Text

#: Scores of every token by layer, see :meth:`Observed.scores`; DensRay and AttDR need directions.
SCORES = ("AttCAT", "DensRay", "AttDR", "attention of [MASK]", "AttCAT, column mean", "CAT")
TARGETS = ("difference", "likeliest")
SPECIALS = ("kept", "masked")


@dataclass(frozen=True)
class Observed:
    """Probes of one pair of words, and one captured pass over all of them.

    Attributes:
        probes: the sentences.
        seen: the pass; ``seen.states[:-1]`` are the inputs of the blocks, ``seen.reading`` the places of [MASK].
    """

    probes: tuple[Probe, ...]
    seen: Observation

    @property
    def pair(self) -> tuple[str, str]:
        """The two words whose logits are compared."""
        return self.probes[0].pair

    @property
    def probabilities(self) -> Tensor:
        """Of both words of the pair at [MASK], ``(sample, 2)``."""
        assert self.seen.logits is not None
        return self.seen.logits.softmax(-1)[:, _ids(self.seen.model, self.pair)].cpu()

    @property
    def log_odds(self) -> np.ndarray:
        """Logit of the first word minus that of the second, ``(sample,)``."""
        assert self.seen.logits is not None
        first, second = self.seen.logits[:, _ids(self.seen.model, self.pair)].T
        return _numbers(first - second)

    @property
    def either(self) -> np.ndarray:
        """Probability that one of the two words stands at [MASK], ``(sample,)``."""
        return _numbers(self.probabilities.sum(1))

    @property
    def likeliest(self) -> list[str]:
        """Most likely word at [MASK] in each sentence."""
        assert self.seen.logits is not None
        return [self.seen.model.classes[one] for one in self.seen.logits.argmax(-1).tolist()]

    @property
    def mask(self) -> Tensor:
        """Which token is [MASK], ``(sample, token)`` bool."""
        return torch.zeros_like(self._ids, dtype=torch.bool).scatter(1, self.seen.reading[:, None], True)

    @property
    def explained(self) -> Tensor:
        """Which tokens an explanation is about, ``(sample, token)`` bool: no padding, special tokens and [MASK]."""
        special = torch.tensor(self.seen.model.tokenizer.all_special_ids, device=self._ids.device)
        return self._real & ~torch.isin(self._ids, special)

    @property
    def _ids(self) -> Tensor:
        return self.seen.batch.inputs["input_ids"]

    @property
    def _real(self) -> Tensor:
        return self.seen.batch.inputs["attention_mask"].bool()

    @property
    def chances(self) -> str:
        """The mean probabilities of both words, to be shown."""
        both = zip(self.pair, self.probabilities.mean(0).tolist(), strict=True)
        return ", ".join(f"P({word}) = {chance:.3f}" for word, chance in both)

    def __str__(self) -> str:
        named = np.mean([word in self.pair for word in self.likeliest])
        return f"{self.chances}, sum {self.either.mean():.3f}; likeliest word is one of the two: {named:.0%}"

    def scores(self, name: str, rays: Tensor | None = None) -> Tensor:
        """Return one of :data:`SCORES` of every token, ``(layer, sample, token)``.

        AttCAT is the attention that [MASK] pays (or the mean that a token receives) times CAT, the token's activation
        times its gradient; DensRay the coordinate of the token's state along the layer's direction; AttDR the attention
        that [MASK] pays times that. States are those that enter the block whose attention it is.

        Args:
            name: which.
            rays: directions ``(layer, width)`` of this model; needed for DensRay and AttDR.

        Raises:
            ValueError: an unknown score, or no directions of this model where they are needed.
        """
        check.one_of("score", name, SCORES)
        if name == "DensRay":
            return self._densray(rays)
        paid = attcat.paid(self.seen.attention, self.seen.reading)
        if name == "AttDR":
            return attcat.attcat(paid, self._densray(rays))
        if name == "attention of [MASK]":
            return paid
        assert self.seen.states is not None and self.seen.state_gradients is not None
        cat = attcat.cat(self.seen.states[:-1], self.seen.state_gradients[:-1])
        if name == "CAT":
            return cat
        return attcat.attcat(paid if name == "AttCAT" else attcat.received(self.seen.attention, self._real), cat)

    def _densray(self, rays: Tensor | None) -> Tensor:
        assert self.seen.states is not None
        count, *_, width = self.seen.states[:-1].shape
        if rays is None or len(rays) < count or rays.shape[-1] != width:
            raise ValueError(
                f"directions of shape {None if rays is None else tuple(rays.shape)} do not fit {count} layers of width "
                f"{width}; train them on the model that is explained."
            )
        return (self.seen.states[:-1] @ rays[:count, None, :, None].to(self.seen.states)).squeeze(-1)

    def where(self, other: bool = False) -> Tensor:
        """Return which tokens are pieces of each probe's word, ``(sample, token)`` bool; its last occurrence.

        Raises:
            ValueError: a sentence that does not hold its word (or its ``other`` word).
        """
        found = torch.zeros_like(self._real)
        for i, probe in enumerate(self.probes):
            word = (probe.other if other else probe.word).lower()
            start = probe.text.lower().rfind(word)
            if start < 0:
                raise ValueError(f"{probe.text!r} does not hold the word {word!r}.")
            for t, (first, last) in enumerate(self.seen.batch.spans[i]):
                found[i, t] = last > first and first < start + len(word) and last > start
        return found

    def of_word(self, name: str, rays: Tensor | None = None, other: bool = False) -> Tensor:
        """Return a score of each probe's word, its pieces added up, ``(layer, sample)``; see :meth:`scores`."""
        return (self.scores(name, rays) * self.where(other)).sum(-1)

    def sums(self, name: str, rays: Tensor | None = None, other: bool = False) -> np.ndarray:
        """Return :meth:`of_word` added up over the layers, ``(sample,)``."""
        return _numbers(self.of_word(name, rays, other).sum(0))

    def shown(self, name: str, rays: Tensor | None = None, sample: int = 0) -> tuple[Tensor, list[str]]:
        """Return a score of one probe's tokens, ``(layer, token)``, and the tokens: no specials, but [MASK]."""
        places = (self.explained | self.mask)[sample].nonzero().flatten().tolist()
        return self.scores(name, rays)[:, sample, places].cpu(), [self.seen.batch.labels[sample][t] for t in places]


def observe(model: Model, probes: Sequence[Probe], target: str = "difference", specials: str = "kept") -> Observed:
    """Run one captured pass and one backward pass over probes that compare the same two words.

    Args:
        model: of masked words.
        probes: sentences with one [MASK] each.
        target: ``"difference"``, the logit of the first word minus that of the second, signed; or ``"likeliest"``, the
            logit of the most likely word (published).
        specials: ``"kept"``, or ``"masked"``: hide [CLS] and [SEP] from attention as published (another model).

    Raises:
        ValueError: no probe, probes of several pairs (see :func:`by_pair`), a word of several tokens, a sentence
            without exactly one [MASK], or a model without that head.
    """
    check.one_of("target", target, TARGETS)
    check.one_of("specials", specials, SPECIALS)
    pairs = sorted({probe.pair for probe in probes})
    if len(pairs) != 1:
        raise ValueError(f"{len(probes)} probes compare {pairs}; expected one pair of words in a pass.")
    if model.head != "mask":
        raise ValueError(f"{model.name} does not predict masked words; take minilm-mlm, or mlm:owner/name of a hub.")
    first, second = _ids(model, pairs[0])
    question = Question(first, second) if target == "difference" else None
    return Observed(tuple(probes), observation.observe(model, _sentences(probes), question, specials=specials))


def by_pair(model: Model, probes: Sequence[Probe], size: int = 256) -> Iterator[Observed]:
    """Observe probes of any pairs, one pass for up to ``size`` of the same pair."""
    for some in _groups(probes, size):
        yield observe(model, [probes[i] for i in some])


@torch.inference_mode()
def probabilities(model: Model, probes: Sequence[Probe], size: int = 128) -> Tensor:
    """Return the probabilities of both words, ``(probe, 2)``, float64; no gradient.

    At each probe's [MASK]; of a model that predicts the next word, behind a probe that is the beginning of a sentence.
    """
    found = torch.empty(len(probes), 2, dtype=torch.float64)
    for some in _groups(probes, size):
        asked = [probes[i] for i in some]
        ids, batch = _ids(model, asked[0].pair), encode(model, _sentences(asked))
        found[some] = _answers(model, batch).softmax(-1)[:, ids].double().cpu()
    return found


@torch.inference_mode()
def logits(model: Model, probes: Sequence[Probe], specials: str = "kept") -> Tensor:
    """Return the logits of all words at each probe's [MASK], ``(probe, word)``; ``specials`` as in :func:`observe`."""
    check.one_of("specials", specials, SPECIALS)
    batch = encode(model, _sentences(probes))
    if specials == "masked":
        batch = replace(batch, inputs=observation.without_specials(model, batch.inputs))
    return _answers(model, batch)


def _answers(model: Model, batch: Batch) -> Tensor:
    """Return the logits of all words where the answer is read; the head of a masked model sees only [MASK]."""
    if model.head != "mask":
        return model.logits(batch.inputs)
    rows, read = torch.arange(len(batch), device=model.device), model.reading(batch.inputs)
    return answers_at(model, batch, lambda states: states[rows, read])


def answers_at(model: Model, batch: Batch, chosen: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits of all words at chosen places, ``(place, word)``: the long vocabulary is met only there.

    Args:
        model: of masked words.
        batch: what it reads.
        chosen: picks ``(place, width)`` from the states ``(sample, token, width)`` that leave the last block.
    """
    module: Any = model.module
    with intervene.edited(model, {module.config.num_hidden_layers: lambda states: chosen(states)[None]}):
        return module(**batch.inputs).logits[0]


def _groups(probes: Sequence[Probe], size: int) -> Iterator[list[int]]:
    for pair in dict.fromkeys(probe.pair for probe in probes):
        which = [i for i, probe in enumerate(probes) if probe.pair == pair]
        yield from (which[start : start + size] for start in range(0, len(which), size))


def _sentences(probes: Sequence[Probe]) -> list[Text]:
    return [Text(probe.text, probe.text) for probe in probes]


def _ids(model: Model, pair: tuple[str, str]) -> list[int]:
    if model.head == "classes":
        raise ValueError(f"{model.name} does not predict words; take minilm-mlm, or mlm:owner/name of a hub.")
    return [model.class_index(word) for word in pair]


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
