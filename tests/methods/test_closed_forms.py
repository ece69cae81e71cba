"""One text in closed form: the network says the same, words are pooled alike by every form, refusals."""

import pytest
import tiny
import torch

from xai_utils.maths import attention_layer, lime, mask_ratio
from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import CLOSED, FORMS, Document, Sampling
from xai_utils.samples import Text

TEXT = Text("the plot is slow and the film is very , very dull", rationale=((45, 49),))


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def model():
    return tiny.attention_classifier()


@pytest.fixture
def read(model) -> Document:
    return closed_forms.read(model, TEXT)


def scores(model, texts, target=1):
    return closed_forms.class_scores(model, texts)[:, target].double()


def test_it_knows_its_words(read):
    assert read.words == ("the", "plot", "is", "slow", "and", "film", "very", ",", "dull")
    assert read.word_of.tolist() == [-1, 0, 1, 2, 3, 4, 0, 5, 2, 6, 7, 6, 8]
    assert read.labels[0] == "[CLS]" and read.labels[1:] == tuple(TEXT.text.split())
    assert [word for word, marked in zip(read.words, read.marked, strict=True) if marked] == ["dull"]
    assert read.known.all() and read.unknown == []


def test_scores_and_gradients_are_the_networks(model, read):
    assert read.score == pytest.approx(float(scores(model, [TEXT.text])), abs=1e-12)
    other = closed_forms.read(model, TEXT, "negative")
    assert other.score == pytest.approx(float(scores(model, [TEXT.text], 0)), abs=1e-12)
    assert (read.target, other.target) == (1, 0)
    ids = model.tokenizer(TEXT.text, return_tensors="pt")["input_ids"]
    embedded = model.module.embed(ids).clone().requires_grad_()
    model.module.read(embedded)[0, 1].backward()
    same(read.gradient().mean(0), embedded.grad[0])
    same(read.autograd(), embedded.grad[0])
    same(read.head(2).autograd(), read.gradient()[2])


def test_what_was_published_lacks_what_the_class_token_asks(read):
    lacking = read.gradient() - read.gradient(query_term=False)
    same(lacking[:, 0], read.query_term())
    assert not lacking[:, 1:].any() and read.query_term().any()


def test_the_opposite_score_has_the_same_attention(read):
    other = read.against()
    assert other.score == pytest.approx(-read.score) and torch.equal(other.attention(), read.attention())
    same(read.attention_matrix()[:, 0], read.attention())


def test_masks_need_no_pass(model, read):
    masks = lime.sample(len(read.words), 50, 0)
    texts = closed_forms.masked_texts(read, masks)
    assert texts[0].split().count("[UNK]") == int((~masks[0][read.word_of[1:]]).sum())
    same(mask_ratio.outputs(read.ratio(), masks).mean(1), scores(model, texts))
    assert closed_forms.masking_gap(model, read, 50, 0) < 1e-12
    assert closed_forms.masking_gap(model, read.against(), 50, 0) > 0.1


def test_sampled_lime_shares_its_masks_or_not(read):
    exact, how = read.exact_lime(), Sampling(4000, ridge=0)
    shared, own = (read.sampled_lime(7, how, shared) for shared in (True, False))
    same(own[0], shared[0])
    same(own[2], read.head(2).sampled_lime(9, how)[0])
    assert not torch.allclose(own[1], shared[1])
    for found in (shared, own):
        assert float((found - exact).norm() / exact.norm()) < 0.1


def test_the_three_limes_are_different_formulas(read):
    exact, limit, published = (one.mean(0) for one in (read.exact_lime(), read.limit_lime(), read.published_lime()))
    flat = read.flattened(0.01)
    same(flat.limit_lime(), flat.exact_lime(float("inf")), atol=1e-2 * float(flat.exact_lime().abs().max()))
    for one, other in ((exact, limit), (exact, published), (limit, published)):
        assert float((one - other).norm() / exact.norm()) > 0.05


def test_a_repeated_word_has_one_score_its_sum(read):
    per_place = torch.arange(13.0)
    assert read.by_word(per_place).tolist() == [1 + 6, 2, 3 + 8, 4, 5, 7, 9 + 11, 10, 12]
    found = closed_forms.word_scores(read)
    assert tuple(found) == tuple(FORMS) and {len(one) for one in found.values()} == {9}
    weights = read.attention().mean(0)
    assert float(found["attention mean"].sum()) == pytest.approx(1 - float(weights[0]), abs=1e-12)
    assert all((one >= 0).all() for label, one in found.items() if not FORMS[label].signed)


def test_what_has_a_sign_changes_it_with_the_score(read):
    for label, one in closed_forms.word_scores(read.against()).items():
        same(one, (-1 if FORMS[label].signed else 1) * FORMS[label].score(read))


def test_highlights_say_what_has_a_sign(read):
    found = closed_forms.highlights(read, ["LIME", "attention max"])
    assert {label: signed for label, (_, signed) in found.items()} == {"LIME": True, "attention max": False}
    same(found["LIME"][0], closed_forms.word_scores(read, ["LIME"])["LIME"])


def test_heads_add_up(read):
    whole = closed_forms.word_scores(read)
    heads = [closed_forms.word_scores(read.head(head)) for head in range(3)]
    for label in ("attention mean", "gradient mean", "gradient × input", "LIME", "integrated gradients"):
        same(torch.stack([one[label] for one in heads]).mean(0), whole[label])


def test_flattened_attention_is_nearly_uniform(read):
    flat = read.flattened(0.0).attention()
    same(flat, torch.full_like(flat, 1 / 13))


def test_integrated_gradients_explain_the_words(read):
    found = FORMS["integrated gradients"].score(read)
    bare = float(attention_layer.output(read.layer, read.hidden).mean())
    assert float(found.sum()) == pytest.approx(read.score - bare, abs=1e-6)


def test_unknown_words_are_words_without_effect(model):
    read = closed_forms.read(model, Text("zebra the plot gnu zebra"))
    found = closed_forms.word_scores(read, ["integrated gradients", "attention mean"])
    assert found["integrated gradients"][[0, 3]].tolist() == [0, 0]
    assert found["attention mean"][0] > 0 and read.unknown == ["zebra", "gnu"]


@pytest.mark.parametrize("name", CLOSED)
def test_as_a_method_every_token_has_the_score_of_its_word(model, read, name):
    found = closed_forms.closed_form(model, TEXT, "positive", name)
    words = FORMS[CLOSED[name]].score(read)
    assert found.scores.tolist() == [0, *words[read.word_of[1:]].tolist()]
    assert (found.method, found.target, found.target_name) == (name, 1, "positive")
    assert found.signed == FORMS[CLOSED[name]].signed and found.labels == read.labels


@pytest.mark.parametrize("text", ["zebra", "zebra gnu okapi"])
def test_unknown_words_alone_are_refused(model, text):
    with pytest.raises(ValueError, match=r"no word of .* is in the vocabulary of tiny attention"):
        closed_forms.read(model, Text(text))


def test_one_word_has_a_gradient_but_no_lime(model):
    read = closed_forms.read(model, Text("dull dull"))
    assert closed_forms.word_scores(read, ["gradient L2"])["gradient L2"].shape == (1,)
    with pytest.raises(ValueError, match="1 word to mask"):
        closed_forms.word_scores(read)


def test_other_inputs_are_refused(model, read):
    with pytest.raises(ValueError, match="34 tokens, but tiny attention reads at most 32"):
        closed_forms.read(model, Text("dull " * 33))
    with pytest.raises(ValueError, match="is empty"):
        closed_forms.read(model, Text(" "))
    with pytest.raises(TypeError, match="is no attention classifier"):
        closed_forms.read(tiny.model("bert"), TEXT)
    with pytest.raises(ValueError, match="takes sentences, not a picture"):
        closed_forms.closed_form(model, tiny.samples("vit")[0], 1, "closed_lime")
    with pytest.raises(ValueError, match="closed form is 'gradient'"):
        closed_forms.word_scores(read, ["gradient"])
    with pytest.raises(ValueError, match="closed form is 'lime'"):
        closed_forms.closed_form(model, TEXT, 1, "lime")


def test_padding_draws_its_share_of_attention(model):
    ids = torch.tensor([model.tokenizer(TEXT.text)["input_ids"] + [1] * 7])
    assert model.tokenizer.convert_ids_to_tokens([1]) == ["[UNK]"]
    layer = model.module.layer(1)
    weights = attention_layer.attention(layer, model.module.embed(ids)[0])
    assert closed_forms.padded_share(model, TEXT, 20) == pytest.approx(float(weights[:, 13:].sum(1).mean()))
    assert closed_forms.padded_share(model, TEXT, 13) == 0
