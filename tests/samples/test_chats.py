"""Chats: whose every character is, on templates of several kinds, and refusals by name."""

from dataclasses import replace

import pytest
import tiny

from xai_utils import models
from xai_utils.samples import chats

PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<me>{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "system"},  # stands in what the template writes as well
    {"role": "assistant", "content": "yes user"},
    {"role": "user", "content": "why"},
]


class Reader:
    """A tokenizer of one word a token whose only business is its template."""

    def __init__(self, template, begin=None):
        self.inner = tiny.tokenizer.__wrapped__()
        self.inner.chat_template, self.chat_template = template, template
        self.inner.bos_token = self.bos_token = begin
        self.bos_token_id = 1

    def apply_chat_template(self, messages, **options):
        return self.inner.apply_chat_template(messages, **options)

    def __call__(self, text):
        return {"input_ids": [1, 5, 2]}


def by_speaker(chat):
    return {who: [chat.text[slice(*one)] for one in spans] for who, spans in chat.speakers.items()}


def test_every_character_is_somebodys():
    chat = chats.rendered(Reader(PLAIN), MESSAGES)
    assert chat.text == "<system> be kind <user> system <assistant> yes user <user> why <me>"
    assert by_speaker(chat) == {
        "system": ["be kind"], "user": ["system", "why"], "assistant": ["yes user"],
        "template": ["<system> ", " <user> ", " <assistant> ", " <user> ", " <me>"],
    }  # fmt: skip
    ends = [end for _, (_, end) in chat.parts]
    assert [start for _, (start, _) in chat.parts] == [0, *ends[:-1]] and ends[-1] == len(chat.text)
    assert chats.rendered(Reader(PLAIN), MESSAGES, answering=False).text.endswith("why ")


def test_a_template_that_strips_blanks_keeps_its_speakers():
    spaced = [{**one, "content": f"  {one['content']}\n"} for one in MESSAGES]
    chat = chats.rendered(Reader(PLAIN.replace("m['content']", "m['content'] | trim")), spaced)
    assert by_speaker(chat)["user"] == ["system", "why"]
    kept = chats.rendered(Reader(PLAIN), spaced)
    assert by_speaker(kept)["user"] == ["  system\n", "  why\n"]


def test_a_beginning_of_text_is_written_once():
    begun = chats.rendered(Reader("[CLS]" + PLAIN, "[CLS]"), MESSAGES)
    assert begun.text.startswith("<system>") and begun.parts[0] == ("template", (0, 9))
    assert begun.parts[1:] == chats.rendered(Reader(PLAIN), MESSAGES).parts[1:]


def test_the_real_model_has_a_template_that_adds_a_speaker_of_its_own():
    model = models.load("smollm2")
    chat = chats.rendered(model.tokenizer, [{"role": "user", "content": "Hello."}])
    assert (
        by_speaker(chat)["user"] == ["Hello."] and "You are a helpful AI assistant" in by_speaker(chat)["template"][0]
    )
    assert chat.text.endswith("<|im_start|>assistant\n")
    told = chats.rendered(model.tokenizer, [{"role": "system", "content": "Be brief."}, MESSAGES[3]])
    assert list(told.speakers) == ["system", "user", "template"] and "helpful" not in told.text
    assert replace(chat, name="x").parts == chat.parts


@pytest.mark.parametrize(
    ("template", "messages", "name", "message"),
    [
        (None, MESSAGES, None, "no chat template: its model was not made for chats.*such as smollm2"),
        (PLAIN, MESSAGES, "tools", "no chat template 'tools': the tokenizer has one, without a name"),
        (
            {"default": PLAIN, "rag": PLAIN},
            MESSAGES,
            "tools",
            "chat template is 'tools', expected one of: default, rag",
        ),
        (PLAIN, [], None, "the chat has no message"),
        (PLAIN, [{"role": "user"}], None, "expected 'role' and 'content'"),
        (PLAIN, [{"role": "user", "content": " "}], None, "both text and not empty"),
        ("{{ raise_exception('no system here') }}", MESSAGES, None, "refuses messages of system, user.*no system here"),
        (PLAIN.replace("m['content']", "m['content'] | upper"), MESSAGES, None, "changes what is said"),
        ("{{ messages[-1]['content'] }}", MESSAGES, None, "message 0, of the role 'system', not exactly once"),
        (PLAIN + PLAIN, MESSAGES, None, "not exactly once"),
    ],
)
def test_what_cannot_be_rendered_is_refused(template, messages, name, message):
    with pytest.raises(ValueError, match=message):
        chats.rendered(Reader(template), messages, name)


def test_one_of_several_templates_is_taken_by_its_name():
    both = Reader({"default": PLAIN, "short": "{{ messages[0]['content'] }}"})
    assert chats.rendered(both, MESSAGES[:1], "short").text == "be kind"
    assert chats.rendered(both, MESSAGES[:1]).text == "<system> be kind <me>"
