"""One text as the attention classifier reads it, and every explanation of it in closed form, no further pass needed.

The bridge between the model and the pure modules :mod:`attention_layer` and :mod:`lime`. Scores are given by position
or by distinct word; a word that stands in several places gets their sum, under every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xai_utils.maths import attention_layer, lime, mask_ratio
from xai_utils.maths.attention_layer import Layer
from xai_utils.models import Model
from xai_utils.models.attention_classifier import SPECIAL, UNKNOWN, AttentionClassifier
from xai_utils.models.encoding import encode, rationale_mask
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample, Text

METHODS = (
    "attention mean", "attention max", "gradient mean", "gradient L1", "gradient L2", "gradient × input", "LIME",
    "integrated gradients",
)  # fmt: skip
SIGNED = ("gradient mean", "gradient × input", "LIME", "integrated gradients")


@dataclass(frozen=True)
class Document:
    """A text in front of the classifier, in double precision.

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

    @property
    def score(self) -> float:
        """Score of the explained class."""
        return float(attention_layer.output(self.layer, self.embeddings).mean())

    def by_word(self, scores: Tensor) -> Tensor:
        """Add up scores ``(..., token)`` over the places of each word, ``(..., word)``; the class token is left out."""
        found = scores.new_zeros((*scores.shape[:-1], len(self.words)))
        return found.index_add(-1, self.word_of[1:], scores[..., 1:])

    def ratio(self) -> mask_ratio.Ratio:
        """Return the scores on masks as a ratio of affine functions."""
        reader = self.embeddings[0]
        return mask_ratio.ratio(
            attention_layer.scores(self.layer, self.embeddings), attention_layer.votes(self.layer, self.embeddings),
            attention_layer.scores(self.layer, self.hidden, reader), attention_layer.votes(self.layer, self.hidden),
            self.word_of,
        )  # fmt: skip


def read(model: Model, sample: Text, target: int | str = -1) -> Document:
    """Read one text; refuses one without a known word, in which there is nothing to explain.

    Args:
        model: an attention classifier from :func:`models.load`.
        sample: the text.
        target: class whose score is explained; the last one, as published ("positive").

    Raises:
        TypeError: another kind of model.
        ValueError: an empty text, one longer than the model's positions, or no word of it is known.
    """
    module = model.module
    if not isinstance(module, AttentionClassifier):
        raise TypeError(f"{model.name} is no attention classifier, so nothing here holds for it; try attention-sst2.")
    batch = encode(model, [sample])
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
    with torch.no_grad():
        hidden_ids = torch.full_like(ids, unknown).index_put((torch.tensor([0]),), ids[:1])
        shown, hidden = (module.embed(one[None].to(model.device))[0].cpu().double() for one in (ids, hidden_ids))
    layer = module.layer(model.class_index(target))
    return Document((batch.labels[0][0], *labels), layer, shown, hidden, words, word_of, marked, known, sample)


def explain(document: Document, names: Sequence[str] = METHODS, head: int | None = None) -> dict[str, Tensor]:
    """Score every distinct word by the named methods, ``(word,)`` each.

    Args:
        document: the text.
        names: among :data:`METHODS`; LIME is the exact one, with the kernel of the lime package.
        head: one head alone; ``None`` for the model, the mean over its heads.
    """
    if unknown := set(names) - set(METHODS):
        raise ValueError(f"no method {', '.join(sorted(unknown))}; known: {', '.join(METHODS)}.")
    seen = document if head is None else one_head(document, head)
    layer, embeddings = seen.layer, seen.embeddings
    weights = attention_layer.attention(layer, embeddings)
    found = {"attention mean": weights.mean(0), "attention max": weights.amax(0)}
    found |= attention_layer.summaries(attention_layer.gradient(layer, embeddings).mean(0), embeddings)
    if "integrated gradients" in names:
        found["integrated gradients"] = attention_layer.integrated_gradients(layer, embeddings, seen.hidden)
    scored = {name: seen.by_word(one) for name, one in found.items()}
    if "LIME" in names:
        scored["LIME"] = lime.exact(seen.ratio()).mean(0)
    return {name: scored[name] for name in names}


def one_head(document: Document, head: int) -> Document:
    """Return the same text in front of one head alone."""
    return replace(document, layer=document.layer.head(head))


def flattened(document: Document, factor: float) -> Document:
    """Return the same text in front of keys made smaller, so that no token dominates the attention."""
    return replace(document, layer=replace(document.layer, key=factor * document.layer.key))


def single(document: Document) -> Document:
    """Return the same text with everything rounded to single precision."""
    layer = Layer(*(getattr(document.layer, name).float() for name in ("query", "key", "value", "readout")))
    return replace(document, layer=layer, embeddings=document.embeddings.float(), hidden=document.hidden.float())


def autograd(document: Document, head: int | None = None) -> Tensor:
    """Differentiate the score by back-propagation instead, ``(token, width)``, to compare with the closed form."""
    layer = document.layer if head is None else one_head(document, head).layer
    tokens = document.embeddings.clone().requires_grad_()
    with torch.enable_grad():
        attention_layer.output(layer, tokens).mean().backward()
    assert tokens.grad is not None
    return tokens.grad


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


def masked_texts(document: Document, masks: Tensor) -> list[str]:
    """Write a text for each mask ``(mask, word)``, the unknown word in the places of what is not kept."""
    kept = masks[:, document.word_of[1:]].tolist()
    return [
        " ".join(label if keep else UNKNOWN for label, keep in zip(document.labels[1:], row, strict=True))
        for row in kept
    ]


CLOSED = {
    "closed_attention": "attention mean",
    "closed_attention_max": "attention max",
    "closed_gradient_mean": "gradient mean",
    "closed_gradient_l1": "gradient L1",
    "closed_gradient_norm": "gradient L2",
    "closed_gradient_x_input": "gradient × input",
    "closed_lime": "LIME",
}


def closed_form(model: Model, sample: Sample, target: int, method: str) -> Attribution:
    """Explain one text by a method of :data:`CLOSED`; each token gets the score of its word, the class token none.

    Raises:
        TypeError: another model than the attention classifier.
        ValueError: a picture, or a text of which no word is known.
    """
    if not isinstance(sample, Text):
        raise ValueError(f"{model.name} takes sentences, not a {type(sample).__name__.lower()}.")
    seen = read(model, sample, target)
    words = explain(seen, [CLOSED[method]])[CLOSED[method]]
    scores = torch.cat([words.new_zeros(1), words[seen.word_of[1:]]])
    signed = CLOSED[method] in SIGNED
    return Attribution(scores, seen.labels, method, model.name, target, model.classes[target], "logit", signed)
