"""Taking tokens away: what the model is shown, one mask at a time, and what is refused."""

import numpy as np
import pytest
import tiny
import torch
from scipy.ndimage import gaussian_filter

from xai_utils import metrics, models, runtime, samples
from xai_utils.models import removal
from xai_utils.models.encoding import encode
from xai_utils.samples import Picture, Text

SENTENCE = Text("the film is not dull , but slow .")
TEXTS, VISION = ("bert", "distilbert", "gpt2"), ("timm-vit", "vit")


def masks(tokens, count=7, special=()):
    keep = torch.rand(count, tokens, generator=torch.Generator().manual_seed(3)) < 0.6
    keep[:, list(special)] = True
    keep[0] = True
    return keep


def shown(model, inputs, target, output="probability"):
    with torch.inference_mode():
        logits = model.logits(inputs).double()
    return (logits.softmax(-1) if output == "probability" else logits)[:, target]


def same(left, right, atol=1e-10):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def specials(batch):
    return [i for i, (start, end) in enumerate(batch.spans[0]) if start == end]


@pytest.mark.parametrize("name", ["bert", "distilbert"])
@pytest.mark.parametrize("output", removal.OUTPUTS)
def test_masked_words_become_the_mask_token(name, output):
    model = tiny.model(name)
    batch = encode(model, [SENTENCE])
    keep = masks(len(batch.labels[0]), special=specials(batch))
    scores = removal.scorer(model, SENTENCE, 2, "mask", output)(keep)
    for row, score in zip(keep, scores, strict=True):
        ids = batch.inputs["input_ids"].clone()
        ids[0, ~row] = model.tokenizer.mask_token_id
        same(score[None], shown(model, batch.inputs | {"input_ids": ids}, 2, output))
    assert len(set(scores.tolist())) > 3


@pytest.mark.parametrize("name", TEXTS)
def test_deleting_words_is_the_shorter_sentence(name):
    model = tiny.model(name)
    batch = encode(model, [SENTENCE])
    keep = masks(len(batch.labels[0]), special=specials(batch))
    scores = removal.scorer(model, SENTENCE, 1, "delete")(keep)
    for row, score in zip(keep, scores, strict=True):
        words = [label for label, kept in zip(batch.labels[0], row, strict=True) if kept and label[0] != "["]
        same(score[None], shown(model, encode(model, [Text(" ".join(words))]).inputs, 1))


@pytest.mark.parametrize("name", VISION)
@pytest.mark.parametrize("operator", removal.OPERATORS["vision"])
def test_patches_are_painted_over(name, operator):
    model, (sample,) = tiny.model(name), tiny.samples(name, 1)
    batch = encode(model, [sample])
    ((key, pixels),) = batch.inputs.items()
    keep = masks(tiny.GRID[0] * tiny.GRID[1])
    scores = removal.scorer(model, sample, 3, operator)(keep)
    for row, score in zip(keep, scores, strict=True):
        changed = pixels.clone()
        for channel in range(3):
            whole = pixels[0, channel]
            blurred = gaussian_filter(whole.numpy(), removal.BLUR * tiny.PATCH)
            black = torch.full_like(whole, -model.preprocessing.mean[channel] / model.preprocessing.std[channel])
            mean = torch.full_like(whole, whole.mean())
            instead = {"mean": mean, "blur": torch.from_numpy(blurred), "black": black}[operator]
            for patch in (~row).nonzero().flatten().tolist():
                top, left = tiny.PATCH * (patch // tiny.GRID[1]), tiny.PATCH * (patch % tiny.GRID[1])
                area = np.s_[top : top + tiny.PATCH, left : left + tiny.PATCH]
                changed[0, channel][area] = instead[area]
        same(score[None], shown(model, {key: changed}, 3), 1e-6)


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_a_batch_gives_what_a_loop_gives_and_nothing_removed_is_the_model(name):
    model, (sample,) = tiny.model(name), tiny.samples(name, 1)
    batch = encode(model, [sample])
    keep = masks(len(batch.labels[0]), special=specials(batch) if batch.spans else ())
    whole = shown(model, batch.inputs, slice(None))
    for operator in removal.OPERATORS[model.kind]:
        score = removal.scorer(model, sample, None, operator)
        same(score(keep), removal.scorer(model, sample, None, operator, batch_size=2)(keep), 1e-6)
        same(score(keep), torch.cat([score(row[None]) for row in keep]), 1e-6)
        same(score(keep)[:1], whole.amax(-1), 1e-6)  # the predicted class


def test_curves_of_a_model_begin_and_end_at_the_same_pictures():
    model, (sample,) = tiny.model("timm-vit"), tiny.samples("timm-vit", 1)
    score, orders = removal.scorer(model, sample), torch.stack([torch.randperm(16), torch.randperm(16)])
    gone = metrics.removal_curve(score, orders, 16, (0, 0.25, 0.5, 0.75, 1))
    back = metrics.removal_curve(score, orders.flip(-1), 16, (0, 0.25, 0.5, 0.75, 1), insert=True)
    same(gone, back.flip(-1), 1e-6)  # inserting in reversed order is deleting backwards


@pytest.mark.parametrize(("name", "options", "words"), [
    ("bert", {"operator": "blur"}, "operator for text is 'blur', expected one of: mask, delete"),
    ("vit", {"operator": "mask"}, "operator for vision is 'mask', expected one of: mean, blur"),
    ("bert", {"output": "loss"}, "output is 'loss', expected one of: probability, logit"),
    ("bert", {"batch_size": 0}, "batch_size is 0"),
    ("bert", {"target": "splendid"}, "has no class 'splendid'"),
])  # fmt: skip
def test_unknown_choices_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        removal.scorer(tiny.model(name), tiny.samples(name, 1)[0], **options)


def test_unusable_masks_are_refused():
    score = removal.scorer(tiny.model("bert"), SENTENCE)
    tokens = len(encode(tiny.model("bert"), [SENTENCE]).labels[0])
    for bad in (
        torch.ones(2, tokens),
        torch.ones(tokens).bool(),
        torch.ones(2, 4).bool(),
        torch.ones(0, tokens).bool(),
    ):
        with pytest.raises(ValueError, match=f"expected bool \\(mask, {tokens} tokens\\)"):
            score(bad)
    with pytest.raises(ValueError, match="removes a special token"):
        score(torch.zeros(1, tokens).bool())


def test_a_picture_with_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        removal.scorer(tiny.model("vit"), Picture(np.full((3, 32, 32), np.nan, dtype=np.float32), "nan", {}))


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_many_samples_are_asked_in_full_batches_with_the_answers_of_each_alone(name):
    model, some = tiny.model(name), tiny.samples(name)
    batches = [encode(model, [one]) for one in some]
    keeps = [
        {op: masks(len(b.labels[0]), special=specials(b) if b.spans else ()) for op in removal.operators_for(model)}
        for b in batches
    ]
    sizes = []
    stop = model.module.register_forward_hook(lambda _module, _args, out: sizes.append(1))
    found = removal.ask(model, batches, keeps, batch_size=16)
    stop.remove()
    rows = sum(len(keep) for masked in keeps for keep in masked.values())
    assert len(sizes) == 1 + -(-rows // 16)  # one to measure how much a row takes
    for sample, answer, masked in zip(some, found, keeps, strict=True):
        for operator, keep in masked.items():
            score = removal.scorer(model, sample, 1, operator, "logit")
            same(answer[operator][:, 1], score(keep), 1e-5)


@pytest.mark.parametrize("operator, word", [("unknown", "[UNK]"), ("word", "the")])
def test_words_are_written_over(operator, word):
    model = tiny.model("bert")
    batch = encode(model, [SENTENCE])
    keep = masks(len(batch.labels[0]), special=specials(batch))
    scores = removal.scorer(model, SENTENCE, 1, operator)(keep)
    for row, score in zip(keep, scores, strict=True):
        ids = batch.inputs["input_ids"].clone()
        ids[0, ~row] = model.tokenizer.convert_tokens_to_ids(word)
        same(score[None], shown(model, batch.inputs | {"input_ids": ids}, 1))


def test_operators_of_a_model_are_those_that_its_vocabulary_has():
    assert removal.operators_for(tiny.model("bert")) == ("mask", "delete", "unknown", "word")
    assert removal.operators_for(tiny.attention_classifier())[0] == "delete"
    assert removal.operators_for(tiny.model("timm-vit")) == ("mean", "blur", "black")


# Texts that are too long


def test_a_text_is_cut_behind_its_tokens_and_says_so(monkeypatch):
    monkeypatch.setattr(runtime.record, "data", {})
    model, whole = tiny.model("bert"), Text("the film is not dull , but slow .", "first", rationale=((4, 8), (16, 20)))
    (cut, short) = models.shortened(model, [whole, tiny.SENTENCES[1]], 6)
    assert cut.text == "the film is not" and cut.name == "first, first 4 of 9 tokens" and cut.rationale == ((4, 8),)
    assert short is tiny.SENTENCES[1]
    assert runtime.record.data == {"texts for tiny bert": "1 of 2 cut after 6 tokens"}
    wanted = model.tokenizer(whole.text, truncation=True, max_length=6)["input_ids"]
    assert models.encode(model, [cut]).inputs["input_ids"][0].tolist() == wanted
    assert models.shortened(model, [tiny.SENTENCES[1]], 6) == [tiny.SENTENCES[1]]
    (fits,) = models.shortened(model, [Text("the film " * 40, "long")])
    assert models.encode(model, [fits]).inputs["input_ids"].shape == (1, 32), "as many as the model reads"


def test_what_cannot_be_cut_is_refused():
    model = tiny.model("bert")
    with pytest.raises(ValueError, match=r"2 tokens leave no room for 'second' beside 2 specials"):
        models.shortened(model, [tiny.SENTENCES[1]], 2)
    with pytest.raises(ValueError, match="tokens is 0, expected at least 1"):
        models.shortened(model, [tiny.SENTENCES[1]], 0)
    with pytest.raises(ValueError, match=r"is a pair of .* tokens, and only single texts are cut"):
        models.shortened(model, [samples.text("the film is slow", "a warm plot")], 5)


def test_half_a_word_is_never_read_as_another():
    """Of minilm's pieces, 'unbelievably' is cut where what is left is still the same pieces."""
    model = models.load("minilm-sst2")
    text = Text("an unbelievably overstuffed antiestablishmentarian screenplay .", "long")
    ids = models.encode(model, [text]).inputs["input_ids"][0].tolist()
    for most in range(3, len(ids)):
        (cut,) = models.shortened(model, [text], most)
        left = models.encode(model, [cut]).inputs["input_ids"][0].tolist()
        assert left[:-1] == ids[: len(left) - 1] and len(left) <= most
