"""Texts whose words are explained: where a part begins, what a model generates, and refusals."""

import decoders
import pytest
import tiny
import torch

from xai_utils import models, samples
from xai_utils.models import answers
from xai_utils.models.kinds import Model

LONG = tiny.SENTENCES[2].text  # two funny friends and the very warm film of two dull friends .


def test_a_part_is_found_by_its_characters_or_by_its_words():
    model = decoders.causal("llama")
    one = answers.within(model, LONG, "very warm film")
    assert one.labels == tuple(LONG.split()[:8]) and one.first == 5 and len(one) == 3
    assert (one.prompt.strip(), one.said) == ("two funny friends and the", "very warm film")
    start = LONG.index("very")
    same = answers.within(model, tiny.SENTENCES[2], (start, start + len("very warm film")))
    assert torch.equal(same.ids, one.ids) and same.spans == one.spans and same.explained == range(5, 8)
    given = answers.given(model, "two funny friends and the", "very warm film")
    assert torch.equal(given.ids, one.ids) and given.first == 5


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("cold", "'cold' stands 0 times in the text; expected once"),
        ("two", "'two' stands 2 times"),
        ("two funny", "nothing stands before 'two funny'"),
        ("arm", "'arm' begins inside the token 'warm'"),
        ((3, 4), "holds no word"),
        ((60, 99), "holds no word of a text of 62 characters"),
    ],
)
def test_a_part_that_is_not_there_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        answers.within(decoders.causal("llama"), LONG, part)


def test_an_empty_prompt_a_long_one_and_another_model_are_refused():
    model = decoders.causal("llama")
    for prompt, answer in (("", "warm"), ("two", " ")):
        with pytest.raises(ValueError, match="expected words in both"):
            answers.given(model, prompt, answer)
    with pytest.raises(ValueError, match="41 tokens, but tiny llama reads at most 32"):
        answers.given(model, "the " * 40, "film")
    with pytest.raises(ValueError, match="28 tokens, and 5 more would go beyond the 32 that tiny llama reads"):
        answers.generated(model, "the " * 28, 5)
    with pytest.raises(ValueError, match="empty"):
        answers.generated(model, " ")
    for call in (answers.given, answers.within):
        with pytest.raises(ValueError, match=r"tiny mlm does not say what comes next.*smollm2"):
            call(tiny.mlm(), "the film", "film")


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "mamba"])
def test_generation_is_the_most_probable_token_each_time(family):
    model = decoders.causal(family)
    model.tokenizer.add_special_tokens({})  # nothing ends an answer but [SEP]
    ids = model.tokenizer("two funny friends", return_tensors="pt")["input_ids"]
    expected = []
    with torch.no_grad():
        while len(expected) < 4:
            best = int(model.module(input_ids=ids).logits[0, -1].argmax())
            if best in model.tokenizer.all_special_ids:
                break
            expected.append(best)
            ids = torch.cat([ids, torch.tensor([[best]])], 1)
    if not expected:
        with pytest.raises(ValueError, match=r"ends its answer .* before it has begun"):
            answers.generated(model, "two funny friends", 4)
        return
    found, again = (answers.generated(model, "two funny friends", 4) for _ in range(2))
    assert found.ids[found.first :].tolist() == expected and torch.equal(found.ids, again.ids)
    assert found.text == again.text == "two funny friends " + " ".join(model.classes[one] for one in expected)
    assert [found.text[start:end].strip() for start, end in found.spans] == list(found.labels)
    torch.testing.assert_close(found.inputs(model)["input_ids"][0], found.ids)


def test_tokens_of_half_a_character_are_written_with_its_end():
    model = models.load("smollm2")
    ids = model.tokenizer("It is ☃ here")["input_ids"]
    text, spans = answers._written(model.tokenizer, "It is", ids, 2)
    assert text == "It is ☃ here" and [text[slice(*one)] for one in spans if one[0] < one[1]][-1] == " here"
    assert "".join(text[start:end] for start, end in spans) == " ☃ here"


def test_logits_are_read_at_any_place_of_every_row():
    for family in ("llama", "gpt_neox", "mamba"):
        model = decoders.causal(family)
        batch = models.encode(model, tiny.SENTENCES)
        places = torch.tensor([[2, 5], [0, 1], [3, 10]])
        with torch.no_grad():
            whole = model.module(**batch.inputs).logits
            found = answers.logits_at(model, batch.inputs, places)
        torch.testing.assert_close(found, torch.stack([row[at] for row, at in zip(whole, places, strict=True)]))


def test_what_is_asked_at_every_token():
    model = decoders.causal("llama")
    one = answers.within(model, LONG, "very warm film")
    logits = torch.randn(3, len(model.classes), generator=torch.Generator().manual_seed(0)).double()
    ids = one.ids[one.first :]
    assert answers.question(model, one).score(logits).tolist() == [float(logits[i, ids[i]]) for i in range(3)]
    against = answers.question(model, one, against="dull")
    dull = model.class_index("dull")
    assert against.score(logits).tolist() == pytest.approx(
        [float(logits[i, ids[i]] - logits[i, dull]) for i in range(3)]
    )
    assert answers.question(model, one, "log_probability").unit == "log-probability"


def test_a_chat_is_answered_by_the_real_model():
    model = models.load("smollm2")
    chat = samples.chats.rendered(model.tokenizer, [{"role": "user", "content": "Say: red, red, red."}])
    found = answers.generated(model, chat, 6)
    assert found.text.startswith(chat.text) and 0 < len(found) <= 6 and "<|" not in found.said
    assert isinstance(model, Model) and found.spans[found.first][0] == len(chat.text)
