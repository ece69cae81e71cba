"""One text in closed form: the network says the same, words are pooled alike by every method, refusals."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.maths import attention_layer, lime, mask_ratio
from xai_utils.methods import closed_forms as document
from xai_utils.methods import lime_library
from xai_utils.methods.closed_forms import Document
from xai_utils.samples import Text
from xai_utils.sweep import closed_forms

TEXT = Text("the plot is slow and the film is very , very dull", rationale=((45, 49),))


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def model():
    return tiny.attention_classifier()


@pytest.fixture
def read(model) -> Document:
    return document.read(model, TEXT)


def scores(model, texts, target=1):
    return document.class_scores(model, texts)[:, target].double()


def test_it_knows_its_words(read):
    assert read.words == ("the", "plot", "is", "slow", "and", "film", "very", ",", "dull")
    assert read.word_of.tolist() == [-1, 0, 1, 2, 3, 4, 0, 5, 2, 6, 7, 6, 8]
    assert read.labels[0] == "[CLS]" and read.labels[1:] == tuple(TEXT.text.split())
    assert [word for word, marked in zip(read.words, read.marked, strict=True) if marked] == ["dull"]
    assert read.known.all()


def test_scores_and_gradients_are_the_networks(model, read):
    assert read.score == pytest.approx(float(scores(model, [TEXT.text])), abs=1e-12)
    other = document.read(model, TEXT, "negative")
    assert other.score == pytest.approx(float(scores(model, [TEXT.text], 0)), abs=1e-12)
    ids = model.tokenizer(TEXT.text, return_tensors="pt")["input_ids"]
    embedded = model.module.embed(ids).clone().requires_grad_()
    model.module.read(embedded)[0, 1].backward()
    same(attention_layer.gradient(read.layer, read.embeddings).mean(0), embedded.grad[0])
    same(document.autograd(read), embedded.grad[0])
    same(document.autograd(read, 2), attention_layer.gradient(read.layer, read.embeddings)[2])


def test_masks_need_no_pass(model, read):
    masks = lime.sample(len(read.words), 50, 0)
    texts = document.masked_texts(read, masks)
    assert texts[0].split().count("[UNK]") == int((~masks[0][read.word_of[1:]]).sum())
    same(mask_ratio.outputs(read.ratio(), masks).mean(1), scores(model, texts))


def test_a_repeated_word_has_one_score_its_sum(read):
    per_place = torch.arange(13.0)
    assert read.by_word(per_place).tolist() == [1 + 6, 2, 3 + 8, 4, 5, 7, 9 + 11, 10, 12]
    found = document.explain(read)
    assert tuple(found) == document.METHODS and {len(one) for one in found.values()} == {9}
    weights = attention_layer.attention(read.layer, read.embeddings).mean(0)
    assert float(found["attention mean"].sum()) == pytest.approx(1 - float(weights[0]), abs=1e-12)
    assert set(document.SIGNED) < set(found)
    unsigned = [found[name] for name in document.METHODS if name not in document.SIGNED]
    assert all((one >= 0).all() for one in unsigned)


def test_heads_add_up(read):
    whole = document.explain(read)
    heads = [document.explain(read, head=head) for head in range(3)]
    for name in ("attention mean", "gradient mean", "gradient × input", "LIME", "integrated gradients"):
        same(torch.stack([one[name] for one in heads]).mean(0), whole[name])


def test_flattened_attention_is_nearly_uniform(read):
    flat = attention_layer.attention(document.flattened(read, 0.0).layer, read.embeddings)
    same(flat, torch.full_like(flat, 1 / 13))


def test_integrated_gradients_explain_the_words(read):
    found = document.explain(read, ["integrated gradients"])["integrated gradients"]
    bare = float(attention_layer.output(read.layer, read.hidden).mean())
    assert float(found.sum()) == pytest.approx(read.score - bare, abs=1e-6)


def test_unknown_words_are_words_without_effect(model):
    found = document.explain(document.read(model, Text("zebra the plot gnu")))
    assert found["integrated gradients"][[0, 3]].tolist() == [0, 0]
    assert found["attention mean"][0] > 0


@pytest.mark.parametrize("text", ["zebra", "zebra gnu okapi"])
def test_unknown_words_alone_are_refused(model, text):
    with pytest.raises(ValueError, match=r"no word of .* is in the vocabulary of tiny attention"):
        document.read(model, Text(text))


def test_one_word_has_a_gradient_but_no_lime(model):
    read = document.read(model, Text("dull dull"))
    assert document.explain(read, ["gradient L2"])["gradient L2"].shape == (1,)
    with pytest.raises(ValueError, match="1 word to mask"):
        document.explain(read)


def test_other_inputs_are_refused(model, read):
    with pytest.raises(ValueError, match="34 tokens, but tiny attention reads at most 32"):
        document.read(model, Text("dull " * 33))
    with pytest.raises(ValueError, match="is empty"):
        document.read(model, Text(" "))
    with pytest.raises(TypeError, match="is no attention classifier"):
        document.read(tiny.model("bert"), TEXT)
    with pytest.raises(ValueError, match="no method gradient"):
        document.explain(read, ["gradient"])


# The lime package


def asks(model, calls):
    def score(texts):
        calls.extend(texts)
        return document.class_scores(model, texts).numpy()

    return score


def test_the_package_deletes_words_by_default(model, read):
    calls = []
    run = lime_library.run(read.labels[1:], asks(model, calls), 1, count=60, mask="[UNK]")
    assert len(calls) == 60 and run.asked == tuple(calls[:5])
    assert not any("[UNK]" in text for text in calls)
    assert all(set(text.split()) <= set(read.words) for text in calls)
    assert len(run.slopes) == len(read.words)


def test_the_package_in_place_on_words_that_occur_once_is_ours(model):
    read = document.read(model, Text("the plot is slow and very dull"))
    slopes = lime_library.run(read.labels[1:], asks(model, []), 1, 4000, bow=False, mask="[UNK]").slopes
    exact = lime.exact(read.ratio()).mean(0)
    assert closed_forms.error(slopes, exact) < 0.1
    deleted = lime_library.run(read.labels[1:], asks(model, []), 1, 4000).slopes
    assert closed_forms.error(deleted, exact) > 0.3
    again = lime_library.run(read.labels[1:], asks(model, []), 1, 4000).slopes
    np.testing.assert_array_equal(deleted.numpy(), again.numpy())


# The sweep


TEXTS = [TEXT, Text("a warm funny film of friends"), Text("not a dull plot , but slow"), Text("the film is the plot")]


def test_a_sweep_goes_on_where_it_stopped(model, tmp_path, monkeypatch):
    options = {"count": 200, "part": 2, "quiet": True}
    whole = closed_forms.sweep(model, TEXTS, tmp_path / "whole", **options)
    assert len(whole) == 4 and whole.notna().all().all()
    measured = closed_forms.measure

    def second_fails(read, *rest):
        if read.text is TEXTS[2]:
            raise KeyboardInterrupt
        return measured(read, *rest)

    monkeypatch.setattr(closed_forms, "measure", second_fails)
    with pytest.raises(KeyboardInterrupt):
        closed_forms.sweep(model, TEXTS, tmp_path / "parts", **options)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["part-000000.parquet", "settings.json"]
    seen = []
    monkeypatch.setattr(closed_forms, "measure", lambda read, *rest: seen.append(read.text) or measured(read, *rest))
    again = closed_forms.sweep(model, TEXTS, tmp_path / "parts", **options)
    assert seen == TEXTS[2:] and again.equals(whole)


def test_a_folder_of_another_sweep_is_refused(model, tmp_path):
    closed_forms.sweep(model, TEXTS[:1], tmp_path, count=100, quiet=True)
    for options, named in (({"count": 101}, "count"), ({"count": 100, "width": 0.5}, "width")):
        with pytest.raises(ValueError, match=f"made with other {named}"):
            closed_forms.sweep(model, TEXTS[:1], tmp_path, quiet=True, **options)
    with pytest.raises(ValueError, match="other texts"):
        closed_forms.sweep(model, TEXTS[1:2], tmp_path, count=100, quiet=True)


def test_the_measures_are_what_they_say(read):
    row = closed_forms.measure(read, 3000, 0.25, 1.0, 0)
    assert (row["words"], row["tokens"]) == (9, 13)
    assert row["gradient"] < 1e-12 < row["gradient_single"] < 1e-5
    assert row["published_gradient"] > 1e-3 and 0 < row["sampled"] < 0.3 and row["published"] > 0.1
    parts = read.ratio()
    right = lime.exact(parts).mean(0)
    assert row["published"] == pytest.approx(float((lime.published(parts).mean(0) - right).norm() / right.norm()))
