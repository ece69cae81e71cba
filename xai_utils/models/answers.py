"""A text whose words are to be explained by what stands before them: an answer that was given, or that a model gives.

A causal language model reads what stands before a word and nothing behind it. So every word of a text, not only the one
that comes next, is the answer to the text before it, and one pass through the whole text answers for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.models.encoding import Batch, encode, limit
from xai_utils.models.kinds import Model
from xai_utils.models.targets import Asked, Question, asked
from xai_utils.samples.kinds import Text
from xai_utils.samples.spans import Span


@dataclass(frozen=True, eq=False)
class Answer:
    """The tokens of a text, the last of which are explained, each by everything before it.

    Attributes:
        text: prompt and answer.
        ids: ``(token,)``, of prompt and answer.
        labels: text of every token, as the tokenizer writes it.
        spans: character span of every token, (0, 0) for specials.
        first: number of tokens in the prompt; token ``first`` is the first one that is explained.
    """

    text: str
    ids: Tensor
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    first: int

    def __len__(self) -> int:
        return len(self.labels) - self.first

    @property
    def explained(self) -> range:
        """Positions of the explained tokens."""
        return range(self.first, len(self.labels))

    @property
    def prompt(self) -> str:
        """Text before the first explained token."""
        return self.text[: self.spans[self.first][0]]

    @property
    def said(self) -> str:
        """Text of the explained tokens."""
        return self.text[self.spans[self.first][0] :]

    def inputs(self, model: Model, stop: int | None = None) -> dict[str, Tensor]:
        """Return the model's inputs, one row: all tokens, or those before ``stop``."""
        ids = self.ids[None, :stop].to(model.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def batch(self, model: Model, stop: int | None = None) -> Batch:
        """Return the text as one encoded sample: all its tokens, or those before ``stop``."""
        return Batch(self.inputs(model, stop), (self.labels[:stop],), spans=(self.spans[:stop],))


def given(model: Model, prompt: str, answer: str) -> Answer:
    """Take an answer that somebody gives.

    Args:
        model: a causal language model.
        prompt: what comes before, not empty.
        answer: what is explained. A blank is put before it unless one is there, or at the end of the prompt.

    Raises:
        ValueError: a model that does not say what comes next, an empty prompt or answer, a text beyond the context, or
            an answer that begins inside a token.
    """
    if not prompt.strip() or not answer.strip():
        raise ValueError(f"the prompt is {prompt!r} and the answer {answer!r}; expected words in both.")
    between = "" if prompt[-1].isspace() or answer[0].isspace() else " "
    return within(model, prompt + between + answer, (len(prompt + between), len(prompt + between + answer)))


def within(model: Model, text: str | Text, part: Span | str) -> Answer:
    """Take a part of a text, at any place; it is explained by what stands before it, what stands behind is left out.

    Args:
        model: a causal language model.
        text: the whole.
        part: character span, or words that stand in the text exactly once.

    Raises:
        ValueError: as :func:`given`; a part that is not there, is there twice, or has nothing before it.
    """
    whole = text.text if isinstance(text, Text) else text
    start, end = _place(whole, part)
    _next(model)
    batch = encode(model, [Text(whole)])
    spans = batch.spans[0]
    touched = [i for i, (begin, stop) in enumerate(spans) if begin < end and start < stop]
    first = touched[0] if touched else 0
    if not touched or whole[spans[first][0] : start].strip():
        token = whole[slice(*spans[first])]
        raise ValueError(
            f"{whole[start:end]!r} begins inside the token {token!r}; begin it where a token begins, as at a blank."
        )
    if first == 0:
        raise ValueError(f"nothing stands before {whole[start:end]!r}, so there is nothing to explain it by.")
    count = touched[-1] + 1
    ids = batch.inputs["input_ids"][0, :count].cpu()
    return Answer(whole[: spans[count - 1][1]], ids, batch.labels[0][:count], spans[:count], first)


def generated(model: Model, prompt: str | Text, tokens: int = 20) -> Answer:
    """Let a model answer, always by its most probable token (transformers' own ``generate``); the same every time.

    It ends where the model ends its answer, or after so many tokens; the token that ends it is not part of it.

    Args:
        model: a causal language model.
        prompt: what it answers, a text or one of :func:`chats.rendered`.
        tokens: how many at most.

    Raises:
        ValueError: a model that does not say what comes next, an empty prompt, a prompt that with so many tokens goes
            beyond the context, or an answer that ends before it has begun.
    """
    check.at_least_one("tokens", tokens)
    _next(model)
    whole = prompt if isinstance(prompt, Text) else Text(prompt)
    batch = encode(model, [whole])
    first, most = batch.length(0), limit(model)
    if first + tokens > most:
        raise ValueError(
            f"the prompt has {first} tokens, and {tokens} more would go beyond the {most} that {model.name} reads; "
            "shorten the prompt, or ask for fewer tokens."
        )
    module: Any = model.module
    with torch.no_grad():
        ids = module.generate(
            **batch.inputs, max_new_tokens=tokens, do_sample=False, num_beams=1,
            pad_token_id=model.tokenizer.pad_token_id,
        )[0].cpu()  # fmt: skip
    ends = set(model.tokenizer.all_special_ids)
    said = [int(one) for one in ids[first:]]
    stop = next((i for i, one in enumerate(said) if one in ends), len(said))
    if not stop:
        raise ValueError(
            f"{model.name} ends its answer to {whole.text[-40:]!r} before it has begun; change the prompt."
        )
    text, spans = _written(model.tokenizer, whole.text, ids[: first + stop].tolist(), first)
    labels = tuple(model.tokenizer.convert_ids_to_tokens(said[:stop]))
    return Answer(text, ids[: first + stop], batch.labels[0] + labels, batch.spans[0] + spans, first)


def _written(tokenizer: Any, prompt: str, ids: Sequence[int], first: int) -> tuple[str, tuple[Span, ...]]:
    """Write generated tokens behind a prompt, and return where each of them stands."""

    def told(count: int) -> str:
        return tokenizer.decode(ids[: first + count], clean_up_tokenization_spaces=False)

    before, count = len(told(0)), len(ids) - first
    said = [told(i + 1)[before:] for i in range(count)]
    ends = [len(prompt) + len(one.rstrip("\ufffd")) for one in said[:-1]]  # half a character is written with its end
    ends.append(len(prompt) + len(said[-1]))
    return prompt + said[-1], tuple(zip([len(prompt), *ends[:-1]], ends, strict=True))


def _place(text: str, part: Span | str) -> Span:
    if not isinstance(part, str):
        start, end = part
        if not 0 <= start < end <= len(text) or not text[start:end].strip():
            raise ValueError(f"the part {part} holds no word of a text of {len(text)} characters.")
        return start, end
    count = text.count(part) if part.strip() else 0
    if count != 1:
        raise ValueError(f"{part!r} stands {count} times in the text; expected once, or give its characters.")
    start = text.index(part)
    return start, start + len(part)


def _next(model: Model) -> None:
    if model.head != "next":
        raise ValueError(f"{model.name} does not say what comes next; take a language model, such as smollm2.")


def question(model: Model, answer: Answer, kind: str = "logit", against: str | int | None = None) -> Asked:
    """Return what is asked at every explained token: how much the model expects this token there.

    Args:
        model: a causal language model.
        answer: its tokens.
        kind: a name in :data:`TARGETS`.
        against: another word, the same at every token; then it is the difference that is asked for.
    """
    ids = answer.ids[answer.first :].tolist()
    found = asked(model, len(answer), Question(ids, against, "" if against is not None else kind))
    assert found is not None  # a language model has words
    return found


def logits_at(model: Model, inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """Return the logits of the words behind some positions.

    Args:
        model: a causal language model.
        inputs: rows of tokens, padding behind them.
        places: ``(row, step)``, positions that are read in each row.

    Returns:
        ``(row, step, word)``.
    """
    start = int(places.min())
    if "logits_to_keep" in signature(model.module.forward).parameters:
        kept = torch.arange(start, int(places.max()) + 1, device=places.device)
        found = model.module(**inputs, logits_to_keep=kept).logits
    else:
        found = model.module(**inputs).logits[:, start:]
    rows = torch.arange(len(places), device=places.device)[:, None]
    return found[rows, places - start, : len(model.classes)]
