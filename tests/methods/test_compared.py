"""An encoder without a head is explained by what makes its embedding like one, or more like one than like another."""

import json

import numpy as np
import pytest
import tiny
import torch
import transformers as hf
from torch import nn

from xai_utils import methods, models, samples
from xai_utils.methods import METHODS
from xai_utils.methods.observation import observe
from xai_utils.models import Preprocessing, Question, removal
from xai_utils.models.kinds import POOLINGS, pooled
from xai_utils.survey.families import FAMILIES, save, sharpened

TEXTS, REFERENCE = tiny.SENTENCES, samples.text("the very dull film of two friends")
HOW = Preprocessing(tiny.SIDE, tiny.SIDE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def bare(name="bert"):
    """Return a tiny encoder without its head."""
    if name == "vit":
        return models.wrap(tiny.module("vit").vit, preprocessing=HOW, prefix=1, name="bare")
    return models.wrap(tiny.module(name).bert, tokenizer=tiny.tokenizer(), name="bare")


def pictures(count=3):
    return tiny.samples("vit", count)


def by_hand(model, sample, reference, pooling):
    """Return embedding, states behind the embedding block, and the direction of the reference, written out."""
    states, found = [], []
    for one in (sample, reference):
        inputs = models.encode(model, [one]).inputs
        first = model.module.embeddings(inputs["input_ids"]).detach().requires_grad_()
        last = model.module.encoder(first, attention_mask=None)[0][0]
        states.append(first)
        found.append(last.mean(0) if pooling == "mean" else last[0 if pooling == "first" else -1])
    return found[0], states[0], found[1].detach()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("measure", ["cosine", "projection"])
def test_gradients_are_those_written_out(pooling, measure):
    model = bare()
    like = models.compared(model, {"dull": REFERENCE}, measure, pooling)
    embedding, states, direction = by_hand(model, TEXTS[0], REFERENCE, pooling)
    along = embedding @ direction / direction.norm()
    number = along / embedding.norm() if measure == "cosine" else along
    (gradient,) = torch.autograd.grad(number, states)
    found = methods.explain("gradient_x_input", like, TEXTS[0])
    torch.testing.assert_close(found.scores, (gradient * states).sum(-1)[0].detach(), rtol=1e-9, atol=1e-12)
    assert found.target_name == "dull" and found.unit.startswith({"cosine": "cosine", "projection": "length"}[measure])
    logits = observe(like, [TEXTS[0]]).logits
    torch.testing.assert_close(logits[0, 0], number.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_batch_gives_what_a_loop_gives_by_every_method(kind):
    model = bare(kind)
    some = list(TEXTS) if kind == "bert" else pictures()
    other = [REFERENCE, samples.text("a warm plot and")] if kind == "bert" else tiny.samples("resnet", 5)[3:]
    tried = set()
    for measure in ("cosine", "projection"):
        like = models.compared(model, dict(zip(("one", "two"), other, strict=True)), measure)
        for name in methods.methods_for(like):
            if METHODS[name].family == "null" or name == "attention_gradcam":  # which is zero for these
                continue
            question = Question("one", against="two") if METHODS[name].asks else None
            together = methods.explain(name, like, some, question)
            for one, found in zip(some, together, strict=True):
                alone = methods.explain(name, like, one, question)
                near = 1e-4 * float(alone.scores.abs().max())
                torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=near)
            tried.add(name)
    wanted = {"rollout", "gradient_x_input", "gradient_norm", "integrated_gradients", "generic_attention", "attnlrp",
              "cp_lrp", "leave_one_out", "gradient_rollout"}  # fmt: skip
    assert wanted <= tried and not tried & {"transformer_attribution", "full_lrp"}


def test_what_makes_it_more_like_one_is_the_difference_of_two_maps():
    like = models.compared(bare(), {"one": REFERENCE, "two": TEXTS[1]})
    for name in ("gradient_x_input", "leave_one_out"):
        one, two = (methods.explain(name, like, TEXTS[0], target).scores for target in ("one", "two"))
        both = methods.explain(name, like, TEXTS[0], Question("one", against="two"))
        torch.testing.assert_close(both.scores, one - two, rtol=1e-9, atol=1e-12)
        assert both.unit == "cosine" and both.target_name == "one − two"


def test_sums_are_what_they_have_to_be():
    """Integrated gradients add up to the cosine lost on the way; relevance, of a projection without biases, to it."""
    like = models.compared(bare(), {"dull": REFERENCE})
    found = methods.explain("integrated_gradients", like, TEXTS[0], tolerance=1e-6, most_steps=512)
    assert found.details["converged"] and abs(found.details["gap"]) < 1e-6
    module = tiny.module("bert").bert
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias") and "embeddings" not in name:
                parameter.zero_()
    plain = models.wrap(module, tokenizer=tiny.tokenizer())
    like = models.compared(plain, {"dull": REFERENCE}, "projection")
    number = float(observe(like, [TEXTS[0]]).logits[0, 0])
    assert float(methods.explain("cp_lrp", like, TEXTS[0]).scores.sum()) == pytest.approx(number, rel=1e-9)


def test_removal_asks_for_the_cosine_of_what_is_left():
    model = bare()
    like = models.compared(model, {"dull": REFERENCE})
    found = methods.explain("leave_one_out", like, TEXTS[1], operator="delete")
    left = samples.text("a plot")
    vectors = models.embeddings(model, [TEXTS[1], left, REFERENCE])
    whole, without = (torch.cosine_similarity(one, vectors[2], dim=0) for one in vectors[:2])
    assert float(found.scores[2]) == pytest.approx(float(whole - without), abs=1e-9)
    with pytest.raises(ValueError, match="gives a cosine and no probability"):
        removal.scorer(like, TEXTS[1])


def test_the_readers_are_the_tokens_that_are_pooled():
    model = bare()
    for pooling, wanted in {"first": [[0], [0]], "last": [[10], [4]], "mean": [[*range(11)], [*range(5)]]}.items():
        like = models.compared(model, {"dull": REFERENCE}, pooling=pooling)
        for gradient in (False, True, False):
            seen = observe(like, TEXTS[:2], gradient=gradient)
            assert [list(seen.view(i).reads) for i in range(2)] == wanted, (pooling, gradient)
    own = models.compared(model, {"itself": TEXTS[0]}, pooling="mean")  # whose gradient is zero says nothing of readers
    assert observe(own, TEXTS[:1], gradient=False).view(0).reads == tuple(range(11))
    seen = models.compared(bare("vit"), {"noise": pictures()[2]})
    assert observe(seen, pictures()[:2], gradient=False).view(0).reads == tuple(range(1, 17))


def test_a_sample_that_is_its_own_reference_has_no_gradient_and_is_told_so():
    model = bare()
    like = models.compared(model, {"itself": TEXTS[0], "other": REFERENCE})
    for name in ("gradient_x_input", "gradient_rollout", "pixel_gradient"):
        some, target = ([TEXTS[0]], "itself") if name != "pixel_gradient" else (pictures()[:1], "noise")
        asked = like if name != "pixel_gradient" else models.compared(bare("vit"), {"noise": pictures()[0]})
        with pytest.raises(ValueError, match="1 of 1 samples cannot be told from their reference"):
            methods.explain(name, asked, some, target)
    assert methods.explain("gradient_x_input", like, TEXTS[0], Question("itself", against="other")).scores.any()
    assert methods.explain("gradient_x_input", like, TEXTS[1], "itself").scores.any()
    for name in ("leave_one_out", "integrated_gradients"):
        found = methods.explain(name, like, TEXTS[0], "itself", **({"operator": "delete"} if "leave" in name else {}))
        assert found.scores.sum() > 0, "all that is left out, or not yet there, makes it less like itself"
    own = models.compared(model, {"itself": TEXTS[0]}, "projection")  # its own direction
    length = models.embeddings(model, [TEXTS[0]]).norm()
    torch.testing.assert_close(observe(own, [TEXTS[0]]).logits[0, 0], length, rtol=1e-9, atol=0)
    assert methods.explain("gradient_x_input", own, TEXTS[0]).scores.any()


@pytest.mark.parametrize(
    ("references", "said"),
    [
        ({}, "expected names with samples"),
        ([REFERENCE], "expected names with samples"),
        ({"cat": pictures()[0]}, "takes sentences, not a picture"),
        ({"zero": torch.zeros(24)}, "1 of 1 embeddings are zero"),
        ({"nan": torch.full((24,), torch.nan)}, "1 of 1 embeddings are zero or NaN"),
        ({"flat": torch.ones(2, 24)}, "expected one embedding each"),
        ({"one": torch.ones(24), "two": torch.ones(23)}, "all as wide"),
    ],
)
def test_unusable_references_are_refused(references, said):
    with pytest.raises(ValueError, match=said):
        models.compared(bare(), references)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="tiny bert has a head; ask for 'bad'"):
        models.compared(tiny.model("bert"), {"dull": REFERENCE})
    scans = hf.MambaModel(hf.MambaConfig(vocab_size=24, hidden_size=8, num_hidden_layers=1)).eval()
    with pytest.raises(ValueError, match="scans reads by scans, and is not compared"):
        models.compared(models.Model("scans", scans, (), 0, 0, tiny.tokenizer(), None, ""), {"dull": REFERENCE})
    with pytest.raises(ValueError, match="measure is 'angle', expected one of: cosine, projection"):
        models.compared(bare(), {"dull": REFERENCE}, "angle")
    with pytest.raises(ValueError, match="24 numbers wide and the references 16"):
        methods.explain("gradient_norm", models.compared(bare(), {"short": torch.ones(16)}), TEXTS[0])
    with pytest.raises(ValueError, match="a picture have no last one"):
        models.compared(bare("vit"), {"noise": pictures()[0]}, pooling="last")
    with pytest.raises(ValueError, match="pooling is 'median', expected one of: mean, first, last"):
        models.compared(bare(), {"dull": REFERENCE}, pooling="median")
    for name, said in {"attnlrp": "measure='projection'", "full_lrp": "a comparison has none"}.items():
        with pytest.raises(TypeError, match=said):
            methods.explain(name, models.compared(bare(), {"dull": REFERENCE}), TEXTS[0])
    with pytest.raises(TypeError, match=r"no classifier, .* or models.compared"):
        methods.explain("gradient_norm", bare(), TEXTS[0])


def test_an_embedding_of_zero_is_refused():
    class Nothing(nn.Module):
        main_input_name = "input_ids"

        def __init__(self):
            super().__init__()
            self.one, self.config = nn.Linear(3, 3), hf.BertConfig(**tiny.BERT)

        def forward(self, input_ids, attention_mask=None):
            return torch.zeros(*input_ids.shape, 3)

    model = models.Model("nothing", Nothing().eval(), (), 0, 0, tiny.tokenizer(), None, "")
    like = models.compared(model, {"x": torch.ones(3)})
    with pytest.raises(ValueError, match="2 of 2 embeddings are zero or NaN and point nowhere"):
        like.logits(models.encode(like, TEXTS[:2]).inputs)


def test_tokens_are_pooled_without_padding_and_prefix():
    states = torch.arange(12.0).view(1, 4, 3)
    mask = torch.tensor([[1, 1, 1, 0]])
    assert pooled(states, mask, 0, "mean").tolist() == [[3, 4, 5]]
    assert pooled(states, mask, 0, "last").tolist() == [[6, 7, 8]] and pooled(states, mask, 0, "first")[0, 0] == 0
    assert pooled(states, None, 1, "mean").tolist() == [[6, 7, 8]]
    assert pooled(torch.ones(2, 5, 3, 3), None, 0, "mean").shape == (2, 5)
    with pytest.raises(ValueError, match="no first one"):
        pooled(states, None, 0, "first")


def test_minilm_finds_the_sentence_that_means_the_same():
    """Real weights, mean over tokens as its authors pool: paraphrases are near, and the word they share says why."""
    model = models.load("minilm")
    cat, physics = samples.text("a cat sat on the mat"), samples.text("quantum physics is hard")
    like = models.compared(model, {"cat": cat, "physics": physics})
    query = samples.text("the kitten was sitting on a rug")
    logits = observe(like, [query], gradient=False).logits[0]
    assert logits[0] > 0.5 > 0.2 > logits[1]
    found = methods.explain("leave_one_out", like, query, Question("cat", against="physics"))
    assert found.top(1) == ("kitten",)


def sentences(folder, mode, *more):
    """Save a tiny encoder as sentence-transformers does, with its own way to pool."""
    save(FAMILIES["BERT without a head"], folder)
    kinds = ["Transformer", "Pooling", *more]
    listed = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"st.models.{kind}"} for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **mode}))
    return models.load(f"hf:{folder}", dtype="float64")


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
    ],
)
def test_an_encoder_of_sentences_is_pooled_as_its_checkpoint_says(mode, wanted, tmp_path):
    model = sentences(tmp_path, mode, "Normalize")
    inputs = models.encode(model, TEXTS[:1]).inputs
    own = pooled(model.module(**inputs)[0], inputs["attention_mask"], 0, wanted)
    torch.testing.assert_close(model.embedding(inputs), own)
    assert model.pooling == wanted


@pytest.mark.parametrize(
    ("mode", "more", "said"),
    [
        ({"pooling_mode_max_tokens": True}, (), "pooling is 'max_tokens', expected one of: mean, first, last"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, (), "pooling is 'first and mean'"),
        ({"pooling_mode_mean_tokens": True}, ("Dense",), "pooling is 'mean and Dense'"),
    ],
)
def test_an_embedding_that_is_made_otherwise_is_refused(mode, more, said, tmp_path):
    model = sentences(tmp_path, mode, *more)
    assert methods.explain("rollout", model, TEXTS[0]).scores.any(), "which needs no embedding"
    with pytest.raises(ValueError, match=said):
        models.compared(model, {"dull": REFERENCE})
    assert models.compared(model, {"dull": REFERENCE}, pooling="mean").classes == ("dull",)


def clip(folder, half):
    """Save one half of a tiny CLIP with its projection."""
    shape = FAMILIES["CLIP"].shape
    if half == "vision":
        module = hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**shape["vision_config"], projection_dim=16))
        hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        module = hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(**shape["text_config"], projection_dim=16))
        from xai_utils.survey.families import tokenizer

        tokenizer().save_pretrained(folder)
    sharpened(module.eval(), 0).save_pretrained(folder)
    return models.load(f"hf:{folder}")


def test_a_picture_is_compared_with_a_text_by_the_two_halves_of_clip(tmp_path):
    torch.manual_seed(0)
    seen, read = (clip(tmp_path / half, half) for half in ("vision", "text"))
    words = models.embeddings(read, [samples.text("a warm plot"), samples.text("two dull friends")])
    like = models.compared(seen, {"warm": words[0], "dull": words[1]})
    some = pictures()
    inputs = models.encode(seen, some).inputs
    with torch.no_grad():
        own = seen.module(**inputs).image_embeds
        plain = torch.stack([torch.cosine_similarity(own, one[None]) for one in words], 1)
    torch.testing.assert_close(like.logits(inputs).detach(), plain)
    assert words.shape == (2, 16) and observe(like, some, gradient=False).view(0).reads == (0,)  # CLIP reads [CLS]
    for name in ("gradient_x_input", "gradient_rollout", "rollout", "integrated_gradients"):
        assert np.isfinite(methods.explain(name, like, some[0]).scores.numpy()).all()
    with pytest.raises(ValueError, match="makes one embedding by itself"):
        models.compared(seen, {"noise": some[0]}, pooling="mean")


@pytest.mark.parametrize("name", ["timm DINOv2 without a head", "timm SigLIP without a head", "DINOv2 without a head"])
def test_pictures_encoders_of_a_hub_are_compared(name, tmp_path):
    model = models.load(save(FAMILIES[name], tmp_path), dtype="float64")
    some = pictures()
    like = models.compared(model, {"noise": some[2]})
    together = methods.explain("gradient_x_input", like, some[:2])
    for one, found in zip(some, together, strict=False):
        alone = methods.explain("gradient_x_input", like, one).scores
        torch.testing.assert_close(found.scores, alone, rtol=1e-8, atol=1e-9 * float(alone.abs().max()))
    assert methods.explain("leave_one_out", like, some[0]).scores.any()
