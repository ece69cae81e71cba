"""A classifier that is attention and nothing else: small enough for explanations in closed form.

Word embeddings plus fixed positions, one layer of several heads read by the class token alone, one linear map a head,
and the mean over the heads. No bias, no residual connection, no LayerNorm, no feed-forward part. Beside it the same
attention inside a block, with a residual connection and a feed-forward part, where the closed forms end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xai_utils.maths.attention_layer import Layer

CLS, UNKNOWN, PAD = "[CLS]", "[UNK]", "[PAD]"
SPECIAL = (CLS, UNKNOWN, PAD)
#: Words, clitics as the Penn treebank splits them (is n't, it 's), and single signs of punctuation.
TOKEN = r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+(?:-\w+|'(?!(?:s|re|ve|ll|d|m)\b)\w+)*|[^\w\s]"


@dataclass(frozen=True)
class Settings:
    """Sizes of the classifier; the defaults are the published ones."""

    vocabulary: int
    width: int = 128
    key_width: int = 64
    value_width: int = 64
    heads: int = 6
    classes: int = 2
    max_position_embeddings: int = 256  # longest text with its class token; the name is that of transformers
    feed_forward: int = 0  # width of the feed-forward part; 0: attention and nothing else

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (least := int(name != "feed_forward")):
                raise ValueError(f"{name} is {value}, expected at least {least}.")
        if self.width % 2:
            raise ValueError(f"width is {self.width}, expected an even number: positions are pairs of sine and cosine.")


class Reading(nn.Module):
    """Embed tokens and let the class token, the first, read them: what both classifiers have in common."""

    positions: Tensor

    def __init__(self, settings: Settings) -> None:
        """Draw fresh weights, as published: embeddings normal, the rest uniform in ±0.1."""
        super().__init__()
        self.config = settings
        heads, width = settings.heads, settings.width
        self.embedding = nn.Embedding(settings.vocabulary, width)
        self.query = _drawn(heads, settings.key_width, width)
        self.key = _drawn(heads, settings.key_width, width)
        self.value = _drawn(heads, settings.value_width, width)
        self.register_buffer("positions", sinusoids(settings.max_position_embeddings, width), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """Return class scores ``(batch, class)``.

        Args:
            input_ids: ``(batch, token)``, the class token first.
            attention_mask: ``(batch, token)``, 1 for a token and 0 for padding.
        """
        return self.read(self.embed(input_ids), attention_mask)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return word embedding plus position, ``(batch, token, width)``."""
        if input_ids.shape[1] > len(self.positions):
            raise ValueError(
                f"the text has {input_ids.shape[1]} tokens, but there are {len(self.positions)} positions; shorten it."
            )
        return self.embedding(input_ids) + self.positions[: input_ids.shape[1]]

    def read(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return class scores of embedded tokens."""
        raise NotImplementedError

    def mixed(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return what the class token reads, the tokens weighted by attention, ``(batch, head, width)``.

        The one query is folded into the keys, and tokens are mixed before they become values: what a token costs does
        not depend on the widths of keys and values.
        """
        query = torch.einsum("hkw,bw->bhk", self.query, embeddings[:, 0]) / self.config.key_width**0.5
        scores = torch.einsum("bhk,hkw,btw->bht", query, self.key, embeddings)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf"))
        return scores.softmax(-1) @ embeddings

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings, as models of transformers do."""
        return self.embedding


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-0.1, 0.1))


class AttentionClassifier(Reading):
    """Map token ids to class scores; the first token is the class token, the only one that reads.

    Source: Lopardo, Precioso & Garreau (2024), *Attention Meets Post-hoc Interpretability*, section 2.
    Differs from: the published code, which fills every text to 256 tokens with unknown words and attends to them too,
        and which computes the rows of all queries though only the class token's is used.
    """

    def __init__(self, settings: Settings) -> None:
        """Draw fresh weights, as published."""
        super().__init__(settings)
        self.classifier = _drawn(settings.heads, settings.classes, settings.value_width)

    def read(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return class scores ``(batch, class)`` of embedded tokens."""
        mixed = self.mixed(embeddings, attention_mask)
        return torch.einsum("bhw,hvw,hcv->bc", mixed, self.value, self.classifier) / self.config.heads

    def layer(self, target: int) -> Layer:
        """Return the weights as the closed forms want them, for the score of one class, in double precision."""
        parts = (self.query, self.key, self.value, self.classifier[:, target])
        return Layer(*(part.detach().cpu().double() for part in parts))


class BlockClassifier(Reading):
    """The same attention as part of a block: a residual connection around it, and an MLP with another one.

    The answer of the heads, as wide as a token, is added to the class token; so is what an MLP with GELU makes of the
    sum; the classes are read off linearly. No LayerNorm.

    Source: Vaswani et al. (2017), arXiv:1706.03762, section 3, without its normalisation, and with the mean over heads
        in place of the sum, as in :class:`AttentionClassifier`.
    """

    def __init__(self, settings: Settings) -> None:
        """Draw fresh weights: as published, the MLP as PyTorch does."""
        super().__init__(settings)
        width = settings.width
        self.output = _drawn(settings.heads, width, settings.value_width)
        self.classifier = _drawn(settings.classes, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, settings.feed_forward), nn.GELU(), nn.Linear(settings.feed_forward, width)
        )

    def read(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return class scores ``(batch, class)`` of embedded tokens."""
        return self.answer(self.state(embeddings, attention_mask))

    def state(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the class token's state behind attention and its residual connection, ``(batch, width)``."""
        mixed = self.mixed(embeddings, attention_mask)
        said = torch.einsum("bhw,hvw,hov->bo", mixed, self.value, self.output) / self.config.heads
        return embeddings[:, 0] + said

    def answer(self, state: Tensor) -> Tensor:
        """Return class scores ``(batch, class)`` of states ``(batch, width)``, through the MLP."""
        return (state + self.mlp(state)) @ self.classifier.T

    def layer(self, target: int, slope: Tensor | None = None) -> Layer:
        """Return the attention alone as the closed forms want it, its answer read along one fixed direction.

        Args:
            target: the class.
            slope: the direction, ``(width,)``; default: the row of the class, as if the MLP were not there.
        """
        along = self.classifier[target] if slope is None else slope.to(self.classifier)
        readout = torch.einsum("hov,o->hv", self.output, along)
        return Layer(*(part.detach().cpu().double() for part in (self.query, self.key, self.value, readout)))


def build(settings: Settings) -> AttentionClassifier | BlockClassifier:
    """Return a fresh classifier of these sizes; with a feed-forward part it is a whole block."""
    return BlockClassifier(settings) if settings.feed_forward else AttentionClassifier(settings)


def sinusoids(length: int, width: int) -> Tensor:
    """Return positions ``(token, width)``: sine and cosine of ``t * 10000 ** (-2i / width)`` by turns.

    Source: Vaswani et al. (2017), arXiv:1706.03762, section 3.5.
    """
    time = torch.arange(length, dtype=torch.float64)[:, None]
    angle = time * 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


def word_tokenizer(texts: Iterable[str], most: int = 12_000, least: int = 1, limit: int = 256) -> Any:
    """Make a tokenizer of whole lower-case words from the given texts and no others.

    Args:
        texts: training texts.
        most: largest vocabulary, specials included; the most frequent words stay.
        least: how often a word must occur.
        limit: longest text in tokens, class token included.

    Returns:
        A fast tokenizer of transformers with character offsets.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    built = Tokenizer(models.WordLevel({word: place for place, word in enumerate(SPECIAL)}, UNKNOWN))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), "removed", invert=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in built.pre_tokenizer.pre_tokenize_str(text.lower()))
    kept = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    words = dict.fromkeys((*SPECIAL, *kept[: most - len(SPECIAL)]))
    built.model = models.WordLevel({word: place for place, word in enumerate(words)}, UNKNOWN)
    built.post_processor = processors.TemplateProcessing(single=f"{CLS} $A", special_tokens=[(CLS, 0)])
    return wrap(built, limit)


def wrap(built: Any, limit: int) -> Any:
    """Give a tokenizer of the ``tokenizers`` library the interface of transformers."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=built, cls_token=CLS, unk_token=UNKNOWN, pad_token=PAD, model_max_length=limit
    )


def files(module: Reading, tokenizer: Any) -> dict[str, Any]:
    """Return what belongs beside the weights: file name to JSON content."""
    return {
        "config.json": asdict(module.config),
        "tokenizer.json": json.loads(tokenizer.backend_tokenizer.to_str()),
    }


def load(folder: Path) -> tuple[AttentionClassifier | BlockClassifier, Any]:
    """Read the folder that a training wrote: the module in single precision, and its tokenizer.

    Raises:
        ValueError: a file is missing, or weights and ``config.json`` do not belong together.
    """
    from tokenizers import Tokenizer

    missing = [name for name in ("model.safetensors", "config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder.name} lacks {', '.join(missing)}; training writes all three.")
    settings = Settings(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    module = build(settings)
    try:
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"the weights of {folder.name} do not fit its config.json: {error}") from error
    return module.eval(), wrap(Tokenizer.from_file(str(folder / "tokenizer.json")), settings.max_position_embeddings)
