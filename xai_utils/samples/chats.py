"""Chats: what several speakers said, rendered by a tokenizer's own template, with who said which characters.

A template is a program; what it writes around the words is its own. To find what belongs to whom, the chat is rendered
a second time with a mark in place of every speech: what stands between the marks is the template's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xai_utils import check
from xai_utils.samples.kinds import Text
from xai_utils.samples.spans import Span

TEMPLATE = "template"  #: speaker of what nobody said
_MARK = "\ue000{}\ue001"  #: private characters, which no text holds


@dataclass(frozen=True)
class Chat(Text):
    """A chat as a language model reads it.

    Attributes:
        parts: ``(speaker, span)`` of everything in the text, in order and without gaps; the speaker is a role, or
            :data:`TEMPLATE`.
    """

    parts: tuple[tuple[str, Span], ...] = ()

    @property
    def speakers(self) -> dict[str, list[Span]]:
        """Spans of every speaker; in order of their first word, the template last."""
        found: dict[str, list[Span]] = {}
        for speaker, span in sorted(self.parts, key=lambda part: part[0] == TEMPLATE):
            found.setdefault(speaker, []).append(span)
        return found


def rendered(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    template: str | None = None,
    answering: bool = True,
    name: str = "own chat",
) -> Chat:
    """Render a chat by a tokenizer's own template.

    Args:
        tokenizer: of a model, ``model.tokenizer``; its template is written for the model.
        messages: ``{"role": ..., "content": ...}`` each, in order; both not empty. A beginning of text that the
            tokenizer adds itself is left out.
        template: name of one of several templates; ``None`` for the only or the default one.
        answering: end with what begins an answer, so that the next word is the assistant's first.
        name: of the sample.

    Raises:
        ValueError: no chat template, or none of this name; messages of another form; roles that the template does not
            take; or a template that changes, leaves out or repeats what is said, so that nobody can tell whose it is.
    """
    chosen = _template(tokenizer, template)
    for message in messages:
        if set(message) != {"role", "content"} or not all(
            isinstance(one, str) and one.strip() for one in message.values()
        ):
            raise ValueError(f"a message is {dict(message)!r}; expected 'role' and 'content', both text and not empty.")
    if not messages:
        raise ValueError("the chat has no message.")
    text = _render(tokenizer, messages, chosen, answering)
    marked = [{**message, "content": _MARK.format(i)} for i, message in enumerate(messages)]
    between = _between(_render(tokenizer, marked, chosen, answering), messages)
    if text not in (_joined(between, said) for said in _ways(messages)):
        raise ValueError("the chat template changes what is said, so that it cannot be told what belongs to whom.")
    said = next(said for said in _ways(messages) if _joined(between, said) == text)
    parts = _parts(between, [message["role"] for message in messages], said)
    return _without_beginning(tokenizer, Chat(text, name, kind="chat", parts=parts))


def _template(tokenizer: Any, name: str | None) -> str | None:
    known = getattr(tokenizer, "chat_template", None)
    if not known:
        raise ValueError(
            f"{type(tokenizer).__name__} has no chat template: its model was not made for chats. Write the prompt as "
            "plain text, or take a model that has one, such as smollm2."
        )
    if name is None:
        return None
    if isinstance(known, str):
        raise ValueError(f"there is no chat template {name!r}: the tokenizer has one, without a name; leave it out.")
    check.one_of("chat template", name, tuple(known))
    return name


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]], template: str | None, answering: bool) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=answering
        )
    except Exception as error:  # a template raises what it likes
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(f"the chat template refuses messages of {roles}: {error}") from error


def _between(marked: str, messages: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what the template writes before, between and behind the speeches."""
    found, rest = [], marked
    for i, message in enumerate(messages):
        if marked.count(_MARK.format(i)) != 1 or _MARK.format(i) not in rest:
            raise ValueError(
                f"the chat template writes message {i}, of the role {message['role']!r}, not exactly once and in its "
                "place; check the role."
            )
        before, _, rest = rest.partition(_MARK.format(i))
        found.append(before)
    return [*found, rest]


def _ways(messages: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """Return what was said as it is, and without blanks at its ends, as many templates write it."""
    said = [message["content"] for message in messages]
    return said, [one.strip() for one in said]


def _joined(between: Sequence[str], said: Sequence[str]) -> str:
    return "".join(a + b for a, b in zip(between, (*said, ""), strict=True))


def _parts(between: Sequence[str], roles: Sequence[str], said: Sequence[str]) -> tuple[tuple[str, Span], ...]:
    found, at = [], 0
    for written, role, spoken in zip(between, (*roles, ""), (*said, ""), strict=True):
        for speaker, piece in ((TEMPLATE, written), (role, spoken)):
            if piece:
                found.append((speaker, (at, at + len(piece))))
                at += len(piece)
    return tuple(found)


def _without_beginning(tokenizer: Any, chat: Chat) -> Chat:
    """Leave out the beginning of text where the tokenizer will add it once more."""
    begin = getattr(tokenizer, "bos_token", None)
    if not begin or not chat.text.startswith(begin) or tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        return chat
    cut = len(begin)
    moved = [(speaker, (max(start - cut, 0), end - cut)) for speaker, (start, end) in chat.parts]
    return Chat(chat.text[cut:], chat.name, kind="chat", parts=tuple(one for one in moved if one[1][1] > 0))
