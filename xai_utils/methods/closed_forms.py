"""Every explanation of a text by the attention classifier in closed form: no further pass, and no estimate.

The bridge between the model and the formulas of :mod:`attention_layer`, :mod:`mask_ratio` and :mod:`lime`. :func:`read`
turns a text into a :class:`Document`, which needs the model no more; :data:`FORMS` is the table of its explanations.
They score positions or distinct words; a word that stands in several places gets their sum, under every form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import attention_layer, lime, mask_ratio
from xai_utils.maths.attention_layer import Layer
from xai_utils.models import Model
from xai_utils.models.attention_classifier import SPECIAL, UNKNOWN, AttentionClassifier
from xai_utils.models.encoding import encode, rationale_mask
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample, Text


@dataclass(frozen=True)
class Sampling:
    """How LIME is estimated where it is sampled, as the lime package has it; a width of ``inf`` weighs all masks alike.

    Attributes:
        count: of masks.
        width: of the kernel, in cosine distance.
        ridge: penalty of the regression.
    """

    count: int = 5000
    width: float = 0.25
    ridge: float = 1.0


@dataclass(frozen=True)
class Document:
    """A text in front of the classifier, in double precision. A head's answer is a row; the model's is the mean.

    Attributes:
        labels: text of every position; the first is the class token.
        layer: the classifier's weights for the explained class.
        embeddings: ``(token, width)`` word plus position.
        hidden: the same text with the unknown word at every place but the first.
        words: the distinct words, lower case, in order of appearance.
        word_of: ``(token,)`` number of the word at each position, -1 for the class token.
        marked: ``(word,)`` whether the word is part of the sample's rationale.
        known: ``(token,)`` whether the vocabulary has the token.
        text: what was read.
        target: number of the explained class.
    """

    labels: tuple[str, ...]
    layer: Layer
    embeddings: Tensor
    hidden: Tensor
    words: tuple[str, ...]
    word_of: Tensor
    marked: Tensor
    known: Tensor
    text: Text
    target: int

    @property
    def score(self) -> float:
        """Score of the explained class."""
        return float(self.outputs().mean())

    @property
    def unknown(self) -> list[str]:
        """The distinct words that the vocabulary does not have."""
        return list(dict.fromkeys(label for label, known in zip(self.labels, self.known, strict=True) if not known))

    def outputs(self) -> Tensor:
        """Return the score of each head, ``(head,)``."""
        return attention_layer.output(self.layer, self.embeddings)

    def attention(self) -> Tensor:
        """Return what the class token reads, ``(head, token)``."""
        return attention_layer.attention(self.layer, self.embeddings)

    def attention_matrix(self) -> Tensor:
        """Return what every token would read, ``(head, query, key)``; the model uses the first row only."""
        return attention_layer.attention_matrix(self.layer, self.embeddings)

    def gradient(self, query_term: bool = True) -> Tensor:
        """Return the gradient of every head, ``(head, token, width)``; as published without the query term."""
        return attention_layer.gradient(self.layer, self.embeddings, query_term)

    def query_term(self) -> Tensor:
        """Return how each head's score changes with what the class token asks, ``(head, width)``."""
        return attention_layer.asked(self.layer, self.embeddings)

    def autograd(self) -> Tensor:
        """Differentiate the score by back-propagation instead, ``(token, width)``, to compare with the closed form."""
        tokens = self.embeddings.clone().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(attention_layer.output(self.layer, tokens).mean(), tokens)
        return found

    def integrated_gradients(self) -> Tensor:
        """Return integrated gradients from the text of unknown words, ``(token,)``."""
        return attention_layer.integrated_gradients(self.layer, self.embeddings, self.hidden)

    def ratio(self) -> mask_ratio.Ratio:
        """Return the scores on masks as a ratio of affine functions."""
        reader = self.embeddings[0]
        return mask_ratio.ratio(
            attention_layer.scores(self.layer, self.embeddings), attention_layer.votes(self.layer, self.embeddings),
            attention_layer.scores(self.layer, self.hidden, reader), attention_layer.votes(self.layer, self.hidden),
            self.word_of,
        )  # fmt: skip

    def exact_lime(self, width: float = Sampling.width) -> Tensor:
        """Return what LIME tends to with endless masks, ``(head, word)``; needs two different words."""
        return lime.exact(self.ratio(), width)

    def published_lime(self) -> Tensor:
        """Return the published approximation of LIME, ``(head, word)``."""
        return lime.published(self.ratio())

    def limit_lime(self, width: float = inf) -> Tensor:
        """Return what exact LIME tends to for many words, none of which dominates, ``(head, word)``."""
        return lime.large_limit(self.ratio(), width)

    def sampled_lime(self, seed: int, how: Sampling, shared: bool = True) -> Tensor:
        """Estimate LIME from random masks, ``(head, word)``.

        Args:
            seed: of the masks.
            how: masks, kernel and regression.
            shared: one set of masks for all heads; else head k has its own, drawn with ``seed + k``.
        """
        if not shared:
            heads = range(self.layer.heads)
            return torch.cat([self.head(head).sampled_lime(seed + head, how) for head in heads])
        masks = lime.sample(len(self.words), how.count, seed)
        return lime.regress(masks, mask_ratio.outputs(self.ratio(), masks), how.width, how.ridge).T

    def by_word(self, scores: Tensor) -> Tensor:
        """Add up scores ``(..., token)`` over the places of each word, ``(..., word)``; the class token is left out."""
        found = scores.new_zeros((*scores.shape[:-1], len(self.words)))
        return found.index_add(-1, self.word_of[1:], scores[..., 1:])

    def head(self, head: int) -> Document:
        """Return the same text in front of one head alone."""
        return replace(self, layer=self.layer.head(head))

    def against(self) -> Document:
        """Return the same text with the opposite score explained."""
        return replace(self, layer=self.layer.against())

    def flattened(self, factor: float) -> Document:
        """Return the same text in front of keys made smaller, so that no token dominates the attention."""
        return replace(self, layer=replace(self.layer, key=factor * self.layer.key))

    def single(self) -> Document:
        """Return the same text with everything rounded to single precision."""
        layer = Layer(*(getattr(self.layer, name).float() for name in ("query", "key", "value", "readout")))
        return replace(self, layer=layer, embeddings=self.embeddings.float(), hidden=self.hidden.float())


def read(model: Model, sample: Sample, target: int | str = -1) -> Document:
    """Read one text; refuses one without a known word, in which there is nothing to explain.

    Args:
        model: an attention classifier from :func:`models.load`.
        sample: the text.
        target: class whose score is explained; the last one, as published ("positive").

    Raises:
        TypeError: another kind of model.
        ValueError: a picture, an empty text, one longer than the model's positions, or no word of it is known.
    """
    module = _classifier(model)
    batch = encode(model, [sample])
    assert isinstance(sample, Text)  # encode has refused a picture
    ids, spans = batch.inputs["input_ids"][0].cpu(), batch.spans[0]
    unknown = SPECIAL.index(UNKNOWN)
    known = ids != unknown
    if not known[1:].any():
        raise ValueError(
            f"no word of {sample.text!r} is in the vocabulary of {model.name}; all its masks are one text."
        )
    labels = tuple(sample.text[start:end].lower() for start, end in spans[1:])
    words = tuple(dict.fromkeys(labels))
    word_of = torch.tensor([-1, *(words.index(label) for label in labels)])
    inside = torch.from_numpy(rationale_mask(sample, spans))
    marked = torch.zeros(len(words), dtype=torch.bool).index_put((word_of[inside],), torch.tensor(True))
    hidden_ids = torch.full_like(ids, unknown).index_put((torch.tensor([0]),), ids[:1])
    shown, hidden = (_embedded(model, one) for one in (ids, hidden_ids))
    number = model.class_index(target)
    layer = module.layer(number)
    return Document((batch.labels[0][0], *labels), layer, shown, hidden, words, word_of, marked, known, sample, number)


def _classifier(model: Model) -> AttentionClassifier:
    if not isinstance(model.module, AttentionClassifier):
        raise TypeError(f"{model.name} is no attention classifier, so nothing here holds for it; try attention-sst2.")
    return model.module


def _embedded(model: Model, ids: Tensor) -> Tensor:
    """Embed ``(token,)`` ids in double precision, ``(token, width)``."""
    with torch.no_grad():
        return _classifier(model).embed(ids[None].to(model.device))[0].cpu().double()


@dataclass(frozen=True)
class Form:
    """One line of the table of closed forms.

    Attributes:
        score: document to ``(word,)``, for the mean over heads.
        signed: whether a negative score speaks against the class.
        name: in the table of all methods; empty for one that this table has for every model.
    """

    score: Callable[[Document], Tensor]
    signed: bool
    name: str = ""


def _of_gradient(label: str, signed: bool, name: str) -> Form:
    """Return the form that reduces the gradient in one of the published ways."""

    def score(read: Document) -> Tensor:
        return read.by_word(attention_layer.summaries(read.gradient().mean(0), read.embeddings)[label])

    return Form(score, signed, name)


FORMS: dict[str, Form] = {
    "attention mean": Form(lambda read: read.by_word(read.attention().mean(0)), False, "closed_attention"),
    "attention max": Form(lambda read: read.by_word(read.attention().amax(0)), False, "closed_attention_max"),
    "gradient mean": _of_gradient("gradient mean", True, "closed_gradient_mean"),
    "gradient L1": _of_gradient("gradient L1", False, "closed_gradient_l1"),
    "gradient L2": _of_gradient("gradient L2", False, "closed_gradient_norm"),
    "gradient × input": _of_gradient("gradient × input", True, "closed_gradient_x_input"),
    "LIME": Form(lambda read: read.exact_lime().mean(0), True, "closed_lime"),
    "integrated gradients": Form(lambda read: read.by_word(read.integrated_gradients()), True),
}  #: by the published label
CLOSED = {form.name: label for label, form in FORMS.items() if form.name}  #: name in the table of methods to label


def word_scores(read: Document, labels: Sequence[str] = tuple(FORMS)) -> dict[str, Tensor]:
    """Score every distinct word by closed forms, ``(word,)`` each.

    Args:
        read: the text; :meth:`Document.head` for one head alone.
        labels: among :data:`FORMS`; LIME is the exact one, with the kernel of the lime package.
    """
    for label in labels:
        check.one_of("closed form", label, tuple(FORMS))
    return {label: FORMS[label].score(read) for label in labels}


def highlights(read: Document, labels: Sequence[str] = tuple(FORMS)) -> dict[str, tuple[Tensor, bool]]:
    """Return :func:`word_scores`, each with whether it is signed, as :func:`plots.highlighted` takes them."""
    return {label: (scores, FORMS[label].signed) for label, scores in word_scores(read, labels).items()}


def closed_form(model: Model, sample: Sample, target: int | str, name: str) -> Attribution:
    """Explain one text by a method of :data:`CLOSED`; each token gets the score of its word, the class token none.

    Raises:
        TypeError: another model than the attention classifier.
        ValueError: an unknown name, a picture, or a text of which no word is known.
    """
    check.one_of("closed form", name, tuple(CLOSED))
    seen, form = read(model, sample, target), FORMS[CLOSED[name]]
    words = form.score(seen)
    scores = torch.cat([words.new_zeros(1), words[seen.word_of[1:]]])
    named = model.classes[seen.target]
    return Attribution(scores, seen.labels, name, model.name, seen.target, named, "logit", form.signed)


# Asking the model after all, to compare


def class_scores(model: Model, texts: Sequence[str], batch: int = 512) -> Tensor:
    """Return class scores ``(text, class)`` by forward passes, the way LIME asks: every text is tokenized and read.

    A text may be empty; then the model reads its class token alone.
    """
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            coded = model.tokenizer(list(texts[start : start + batch]), padding=True, return_tensors="pt")
            found.append(model.logits({name: one.to(model.device) for name, one in coded.items()}).cpu())
    return torch.cat(found)


def masked_texts(read: Document, masks: Tensor) -> list[str]:
    """Write a text for each mask ``(mask, word)``, the unknown word in the places of what is not kept."""
    kept = masks[:, read.word_of[1:]].tolist()
    return [
        " ".join(label if keep else UNKNOWN for label, keep in zip(read.labels[1:], row, strict=True)) for row in kept
    ]


def masking_gap(model: Model, read: Document, count: int, seed: int) -> float:
    """Return the largest difference between scores on random masks as a ratio and by forward passes."""
    masks = lime.sample(len(read.words), count, seed)
    passed = class_scores(model, masked_texts(read, masks))[:, read.target].double()
    return float((mask_ratio.outputs(read.ratio(), masks).mean(1) - passed).abs().max())


def padded_share(model: Model, sample: Text, length: int = 256) -> float:
    """Return the share of attention, in [0, 1], that padding would draw in the published set-up.

    There every text is filled up to ``length`` tokens with unknown words, which are attended to. Attention is the same
    for every class.

    Source: code of Lopardo, Precioso & Garreau (2024).
    """
    ids = model.tokenizer(sample.text)["input_ids"]
    filled = torch.tensor(ids + [SPECIAL.index(UNKNOWN)] * (length - len(ids)))
    weights = attention_layer.attention(_classifier(model).layer(0), _embedded(model, filled))
    return float(weights[:, len(ids) :].sum(-1).mean())
