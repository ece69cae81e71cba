"""What a model is here: where it comes from, what a loader returns, and a model ready to be explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xai_utils import check


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input.

    Attributes:
        size: side of the square the model sees, pixels.
        resize: the shorter side before the centre crop, pixels; equal to ``size`` for no margin.
        mean: per channel, subtracted from values in [0, 1].
        std: per channel, divided by.
        interpolation: a name of ``PIL.Image.Resampling``, lower case.
        squash: resize both sides to ``resize`` (the aspect ratio changes).
        processor: the checkpoint's own, ``(row, column, channel) uint8 -> (channel, row, column)``; it makes the input
            where there is one, and the fields above say what it does.
        cells: ``(rows, columns)`` that maps are made of, for a model whose tokens are no patches of the picture.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    squash: bool = False
    processor: Callable[[np.ndarray], Tensor] | None = field(default=None, repr=False, compare=False)
    cells: tuple[int, int] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Loaded:
    """What a loader returns: the bare model and how to feed it."""

    module: nn.Module
    classes: tuple[str, ...]
    tokenizer: Any = None
    preprocessing: Preprocessing | None = None
    prefix: int = 0
    head: str = "classes"
    pooling: str | None = None


#: units of answers that are no probabilities, by the link of their model
UNITS = {"none": "number", "cosine": "cosine", "projection": "length along the reference"}
MEASURES = ("cosine", "projection")
POOLINGS = ("mean", "first", "last")
OWN = ("image_embeds", "text_embeds")  #: embeddings that a model of transformers makes itself


class Unavailable(OSError):
    """A model of a hub that is neither cached nor reachable."""


def words_of(module: Any) -> int:
    """Return how many ids a text model embeds; ``ValueError`` for one without a table of them (CANINE, Perceiver)."""
    try:
        table = module.get_input_embeddings()
    except NotImplementedError:
        table = None
    if (weight := getattr(table, "weight", None)) is None:
        raise ValueError(
            f"{type(module).__name__} has no table of word embeddings, so its words are not known; take a model of "
            "word pieces or bytes (BERT, RoBERTa, GPT-2, Llama)."
        )
    return len(weight)


def predicts_words(module: nn.Module, tokenizer: Any) -> Loaded:
    """Return a model whose answer is the word at [MASK]: its classes are the words of the vocabulary."""
    return Loaded(module, vocabulary(tokenizer), tokenizer, head="mask")


def vocabulary(tokenizer: Any) -> tuple[str, ...]:
    """Return every piece of a tokenizer's vocabulary, in the order of its ids."""
    return tuple(str(word) for word in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the embeddings of a model without a head are compared with; it stands in the place of a head.

    Attributes:
        directions: of the references, each of length 1, ``(reference, width)``.
        measure: ``"cosine"``, or ``"projection"``, the length of an embedding along a reference.
        pooling: see :meth:`Model.embedding`.
    """

    directions: Tensor
    measure: str
    pooling: str | None

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Compare ``(sample, width)`` with every reference, ``(sample, reference)``.

        Raises:
            ValueError: embeddings of another width, or of zero.
        """
        if embeddings.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"embeddings are {embeddings.shape[1]} numbers wide and the references {self.directions.shape[1]}, so "
                "they are not of one space; take references of this model, or of its other half."
            )
        along = embeddings @ self.directions.to(embeddings).T
        return along if self.measure == "projection" else along / lengths(embeddings)


def lengths(embeddings: Tensor) -> Tensor:
    """Return the length of every embedding, ``(sample, 1)``; ``ValueError`` for one of zero, without a direction."""
    found = embeddings.norm(dim=-1, keepdim=True)
    if not (found > 0).all():
        raise ValueError(
            f"{int((~(found > 0)).sum())} of {len(found)} embeddings are zero or NaN and point nowhere, so nothing is "
            "like them; look at the samples, and at pooling."
        )
    return found


def pooled(states: Tensor, mask: Tensor | None, prefix: int, pooling: str) -> Tensor:
    """Make one embedding of what stands at the tokens (or, of a convolutional network, at the places).

    Args:
        states: ``(sample, token, width)`` or ``(sample, channel, row, column)``.
        mask: of the real tokens of texts, ``(sample, token)``; ``None`` for pictures.
        prefix: leading tokens of a picture that stand for no patch.
        pooling: ``"mean"`` over real tokens or patches, the ``"first"`` token ([CLS]), or the ``"last"`` of a text.
    """
    check.one_of("pooling", pooling, POOLINGS)
    if mask is None and (pooling == "last" or (pooling == "first" and not prefix)):
        raise ValueError(f"the tokens of a picture have no {pooling} one that sums it up; take pooling='mean'.")
    if states.ndim == 4:
        return states.mean((2, 3))
    if pooling == "first":
        return states[:, 0]
    if mask is None:
        return states[:, prefix:].mean(1)
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    weights = mask.to(states) / mask.sum(1, keepdim=True)
    return (states * weights[..., None]).sum(1)


@dataclass(frozen=True)
class Spec:
    """One line of the table: where a model comes from and what we expect to find.

    Attributes:
        load: function ``(source, revision) -> Loaded``.
        source: folder under ``data/models``, or hub id.
        blocks: number of attention blocks that :mod:`capture` sees and compares; 0 for a model without, and ``None``
            where the table cannot know (``hf:`` and ``timm:`` names).
        revision: pinned commit of the hub, where the table names one.
        instead: bundled model to try without a network.
    """

    load: Callable[[str, str | None], Loaded]
    source: str
    blocks: int | None
    revision: str | None = None
    instead: str = ""


@dataclass(frozen=True)
class Model:
    """A model ready to be explained: evaluation mode, on its device, named.

    Attributes:
        name: as given to :func:`load`.
        module: the untouched transformers, timm or torchvision model, or our own.
        classes: what an answer can be, in the order of the logits: class names, or the words of the vocabulary for a
            head that predicts a word; empty for a model without a head.
        blocks: number of attention blocks, 0 for a model without attention, ``None`` where that is not known.
        prefix: leading tokens of a picture that stand for no patch.
        tokenizer: for text models, else ``None``.
        preprocessing: for vision models, else ``None``.
        sha256: of all weights and buffers, in the order of the state dict.
        head: ``"classes"``, ``"mask"`` for the word at [MASK], or ``"next"`` for the word that follows.
        padding: what the model can take together: ``"any"`` texts, texts of ``"equal"`` lengths because it reads
            padding, or one text ``"alone"``. :meth:`logits` keeps to it.
        pooling: how the checkpoint of an encoder says that tokens become one embedding, see :func:`pooled`; ``None``
            where it says nothing.
        compare: what embeddings are compared with (see :func:`table.compared`); its references are the ``classes``.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]
    blocks: int | None
    prefix: int
    tokenizer: Any
    preprocessing: Preprocessing | None
    sha256: str
    head: str = "classes"
    padding: str = "any"
    pooling: str | None = None
    compare: Comparison | None = None

    @property
    def kind(self) -> str:
        """``"text"`` or ``"vision"``."""
        reads = getattr(self.module, "main_input_name", "")
        return "text" if self.tokenizer is not None or reads == "input_ids" else "vision"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def link(self) -> str:
        """How logits become probabilities: ``"softmax"``, ``"sigmoid"`` (several labels at once) or ``"none"``.

        Of a comparison its measure: cosines and lengths are no logits either, see :data:`UNITS`.
        """
        if self.compare is not None:
            return self.compare.measure
        if len(self.classes) == 1:
            return "none"
        problem = getattr(getattr(self.module, "config", None), "problem_type", None)
        return "sigmoid" if problem == "multi_label_classification" else "softmax"

    def reading(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the position that each sample's answer is read from, ``(sample,)``, prefix tokens counted."""
        first = next(iter(inputs.values()))
        if self.head == "classes":
            return torch.zeros(len(first), dtype=torch.long, device=first.device)
        if self.head == "next":
            return inputs["attention_mask"].sum(1) - 1  # padding stands behind
        found = inputs["input_ids"] == self.tokenizer.mask_token_id
        for ids, count in zip(inputs["input_ids"], found.sum(1).tolist(), strict=True):
            if count != 1:
                said = self.tokenizer.decode(ids, skip_special_tokens=True)
                raise ValueError(f"{said!r} has {count} [MASK]; expected exactly one, written [MASK], in capitals.")
        return found.long().argmax(1)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a score for every answer, ``(sample, answer)``: classes, or words at the position that is read.

        Raises:
            ValueError: a model without a head, or one whose head gives something else than it should.
        """
        if not self.classes:
            raise ValueError(f"{self.name} has no classifier, so no class to explain; try minilm-sst2.")
        if self.padding == "any" or "attention_mask" not in inputs:
            return self._answer(inputs)
        groups = apart(inputs["attention_mask"], self.padding)
        found = torch.cat([self._answer(_cut(inputs, rows, length)) for rows, length in groups])
        return found[torch.cat([rows for rows, _ in groups]).argsort()]

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return :meth:`logits`, or of a model without a head what it makes of every token."""
        if self.classes:
            return self.logits(inputs)
        output = self.module(**inputs)
        return output if isinstance(output, Tensor) else output[0]  # type: ignore[no-any-return]

    def _answer(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.head != "classes":
            return self._words(inputs)
        if self.compare is not None:
            return self.compare(self.embedding(inputs, self.compare.pooling))
        output = self.module(**inputs)
        return output if isinstance(output, Tensor) else output.logits

    def embedding(self, inputs: Mapping[str, Tensor], pooling: str | None = None) -> Tensor:
        """Return what a model without a head makes of every sample, ``(sample, width)``.

        Args:
            inputs: of the model.
            pooling: see :func:`pooled`; ``None`` takes the embedding that the model makes itself (timm's, CLIP's
                projections) where it makes one, else pools as its checkpoint says, else the mean.
        """
        output: Any = self.module(**inputs)
        known = () if isinstance(output, Tensor) else (*(output[name] for name in OWN if name in output), output[0])
        own = known[0] if known else output
        if own.ndim != 2:
            return pooled(own, inputs.get("attention_mask"), self.prefix, pooling or self.pooling or "mean")
        if pooling is not None:
            raise ValueError(f"{self.name} makes one embedding by itself, so there is nothing to pool; leave it out.")
        return own  # type: ignore[no-any-return]

    def _words(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of all words at the one position that is read; a long vocabulary is met only there."""
        read = self.reading(inputs)
        places, at = read.unique(return_inverse=True)
        if "logits_to_keep" in signature(self.module.forward).parameters:
            found = self.module(**inputs, logits_to_keep=places).logits
        else:
            with _only_at(self.module, read):
                found = self.module(**inputs).logits
            at = read if found.shape[1] > 1 else torch.zeros_like(read)
        if found.ndim != 3 or found.shape[-1] < len(self.classes):
            raise ValueError(f"{self.name} does not predict words; take minilm-mlm, or mlm:owner/name of a hub.")
        return found[torch.arange(len(found), device=found.device), at, : len(self.classes)]

    def class_index(self, target: int | str) -> int:
        """Return the index of a class or word given by index or name; the error lists what exists."""
        if isinstance(target, bool) or not isinstance(target, (Integral, str)):
            raise ValueError(f"the class is {target!r}, a {type(target).__name__}; expected its number or its name.")
        if not isinstance(target, str):
            check.index(f"class of {self.name}", target, len(self.classes))
            return target % len(self.classes)
        if self.head != "classes":
            return self._word_index(target)
        if target in self.classes:
            return self.classes.index(target)
        near = [name for name in self.classes if target.lower() in name.lower()][:8]
        shown = near or self.classes[:12]
        raise ValueError(f"{self.name} has no class {target!r}; such as: {', '.join(shown)}.")

    def _word_index(self, word: str) -> int:
        """Find a word that is one piece; the next word of a text has a blank before it, unless a blank is written."""
        spelt = [f" {word}", word] if self.head == "next" and not word.startswith(" ") else [word]
        for one in spelt:
            pieces = self.tokenizer.tokenize(one)
            if len(pieces) == 1 and pieces[0] != self.tokenizer.unk_token:
                return int(self.tokenizer.convert_tokens_to_ids(pieces[0]))
        pieces = self.tokenizer.tokenize(spelt[0])
        if not pieces or self.tokenizer.unk_token in pieces:
            raise ValueError(f"{self.name} does not know the word {word!r}; take one of its vocabulary, such as 'he'.")
        first = self.tokenizer.convert_tokens_to_ids(pieces[:1])
        whole = (
            f", or all pieces by the sum of their log-probabilities: stepwise.explain of answers.given(model, prompt, "
            f"{word!r}) with kind='log_probability'"
            if self.head == "next"
            else ""
        )
        raise ValueError(
            f"{word!r} is {pieces} for {self.name}, not a single token, so there is no one logit for it; take a word "
            f"of its vocabulary, such as 'he', or the first piece by its id, {first}{whole}."
        )


@contextmanager
def _only_at(module: Any, read: Tensor) -> Iterator[None]:
    """Let the last layer of a model of masked words, as wide as its vocabulary, meet one position of each sample."""

    def chosen(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states, *rest = given
        return (states[torch.arange(len(states)), read][:, None], *rest) if states.ndim == 3 else given

    decoder = getattr(module, "get_output_embeddings", lambda: None)()
    handle = decoder.register_forward_pre_hook(chosen) if isinstance(decoder, nn.Module) else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def apart(mask: Tensor, padding: str) -> list[tuple[Tensor, int]]:
    """Sort the rows of an attention mask into what a model can take together: rows and their length without padding."""
    lengths = mask.sum(1)
    if padding == "alone":
        return [(torch.tensor([row], device=mask.device), length) for row, length in enumerate(lengths.tolist())]
    return [((lengths == length).nonzero()[:, 0], length) for length in lengths.unique().tolist()]


def _cut(inputs: Mapping[str, Tensor], rows: Tensor, length: int) -> dict[str, Tensor]:
    return {name: values[rows, :length] for name, values in inputs.items()}
