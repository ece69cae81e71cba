"""What people's models, texts and pictures do to explanations: one case a test, from reports of faults elsewhere.

Each is right, or refused with a reason that helps. Cases of a module alone are tests of that module.
"""

import re

import numpy as np
import pytest
import tiny
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from xai_utils import methods, models, samples
from xai_utils.evaluation import judged, scoring
from xai_utils.methods.observation import observe
from xai_utils.models import removal
from xai_utils.models.encoding import encode
from xai_utils.samples import Text, sets
from xai_utils.survey import architectures, families
from xai_utils.survey.families import FAMILIES, save

SHORT, LONG = (
    Text("a warm plot", "short"),
    Text("two funny friends and the very warm film of two dull friends .", "long"),
)


def of_family(name, folder, side="right", dtype="float64"):
    return models.load(save(FAMILIES[name], folder, side=side), dtype=dtype)


def same(one, other, near=1e-9):
    torch.testing.assert_close(one, other, rtol=near, atol=near * float(other.abs().max()))


# Positions


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Mistral", "Gemma", "BLOOM"])
def test_a_sweep_of_a_model_that_pads_on_the_left_scores_a_text_as_alone(name, tmp_path):
    model = of_family(name, tmp_path, side="left")
    wanted = {"delta_af", "deletion"}
    together = _scores(model, [SHORT, LONG], wanted)
    apart = [_scores(model, [one], wanted)[0] for one in (SHORT, LONG)]
    assert [*together[0]] == [*apart[0]] and len(together[0]) > 2
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose([*one.values()], [*other.values()], rtol=1e-6, atol=1e-9)


def _scores(model, some, wanted):
    asked = scoring.probe(model, tuple(some), 0)
    maps = methods.explain("gradient_x_input", model, list(some), list(asked.targets))
    return scoring.measure(model, asked, maps, wanted, 0)


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("timm ViT, mean of the patches", range(16)),
        ("timm SigLIP without a head", range(16)),
        ("timm DeiT, distilled", range(2)),
    ],
)
def test_maps_of_pictures_are_read_where_the_answer_is(name, reads, tmp_path):
    model = of_family(name, tmp_path)
    assert observe(model, tiny.samples("vit")[:1], gradient=False).view(0).reads == tuple(reads)


def test_a_classifier_that_pools_by_the_mean_is_read_so(tmp_path):
    """ModernBERT has both; its rollout is that of all rows, not of [CLS]."""
    folder = tmp_path / "mean"
    folder.mkdir()
    family = families.Family("text", "modernbert", shape=FAMILIES["ModernBERT"].shape | {"classifier_pooling": "mean"})
    model = models.load(save(family, folder), dtype="float64")
    seen = observe(model, [SHORT], gradient=False).view(0)
    assert seen.reads == (0, 1, 2, 3, 4)
    same(methods.explain("attention", model, SHORT).scores, seen.attention[-1].mean(0).mean(0))


# What is taken for attention

OWN_ATTENTION = ("RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "ERNIE", "MegatronBERT", "RemBERT",
                 "Data2Vec text", "BigBird", "RoFormer", "GPT-2", "GPT-NeoX", "OPT", "Qwen3", "ALBERT", "DeBERTa",
                 "MPNet", "DINOv2", "ViT-MSN", "BEiT")  # fmt: skip


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_attention_is_what_the_library_returns(name, tmp_path):
    model = of_family(name, tmp_path)
    assert architectures._own_gap(model, architectures._samples(model)) == 0


@pytest.mark.parametrize("name", ["ALBERT", "DeBERTa", "MPNet", "MobileBERT"])
def test_gradients_need_no_attention_and_a_batch_is_a_loop(name, tmp_path):
    model = of_family(name, tmp_path)
    for method in ("gradient_norm", "gradient_x_input"):
        for one, found in zip([SHORT, LONG], methods.explain(method, model, [SHORT, LONG], 1), strict=True):
            same(found.scores, methods.explain(method, model, one, 1).scores)


@pytest.mark.parametrize("name", ["Longformer", "Funnel", "SqueezeBERT", "SwinV2"])
def test_what_has_no_map_of_all_tokens_says_so_and_can_be_explained_by_removal(name, tmp_path):
    model = of_family(name, tmp_path)
    sample = tiny.samples("vit")[0] if model.kind == "vision" else SHORT
    with pytest.raises(TypeError, match=r"tokens were given|are no shares|windows"):
        methods.explain("rollout", model, sample)
    assert methods.explain("leave_one_out", model, sample, 0).scores.any()


@pytest.mark.parametrize("name", ["BART", "T5"])
def test_a_module_with_an_encoder_and_a_decoder_is_refused_when_it_is_wrapped(name):
    module = families._transformers(FAMILIES[name]).eval()
    with pytest.raises(ValueError, match=r"an encoder and a decoder.*Take a model of one stack"):
        models.wrap(module, tokenizer=tiny.tokenizer())


@pytest.mark.parametrize("name", ["CTRL, next words", "GPT, next words"])
def test_models_that_write_over_their_embeddings_or_give_lists_have_gradients(name, tmp_path):
    model = of_family(name, tmp_path)
    for one, found in zip([SHORT, LONG], methods.explain("gradient_x_input", model, [SHORT, LONG], 1), strict=True):
        same(found.scores, methods.explain("gradient_x_input", model, one, 1).scores, 1e-5)


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        ("CTRL, next words", "integrated_gradients", "no other vectors can be put in place of its words"),
        ("I-BERT", "integrated_gradients", "come with scales of their own"),
        ("RWKV, next words", "gradient_norm", "gradients do not pass through it"),
        ("RWKV, next words", "integrated_gradients", "gradients do not pass through it"),
        ("LFM2, next words", "rollout", "1 of 3 attention blocks showed their map"),
    ],
)
def test_what_cannot_be_taken_back_to_words_is_refused_and_removal_goes_on(name, method, said, tmp_path):
    model = of_family(name, tmp_path)
    with pytest.raises(TypeError, match=f"{method} cannot explain .*{said}"):
        methods.explain(method, model, SHORT)
    assert methods.explain("leave_one_out", model, SHORT).scores.any()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CANINE", "has no table of word embeddings"),
        ("ViT MAE without a head", r"answers otherwise each time it is asked, by .*ViTMAEModel draws at random"),
    ],
)
def test_models_without_words_or_with_dice_are_refused_when_they_are_loaded(name, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        of_family(name, tmp_path)


def test_a_model_of_pictures_that_takes_no_pixels_is_refused_when_it_is_loaded(tmp_path):
    """SigLIP 2 takes patches that are cut before."""
    shape = {"num_labels": 5, "vision_config": families.VISION, "text_config": families.TEXT}
    with pytest.raises(ValueError, match=r"takes no picture as \(sample, channel, row, column\)"):
        models.load(save(families.Family("vision", "siglip2", "ImageClassification", shape), tmp_path))


# Answers that are no softmax


def test_several_labels_are_shown_and_scored_by_their_own_probabilities():
    module = tiny.module("bert")
    module.config.problem_type = "multi_label_classification"
    model = models.wrap(module, tokenizer=tiny.tokenizer(), name="labels")
    logits = model.logits(encode(model, [SHORT]).inputs)[0].detach()
    whole = torch.ones(1, 5, dtype=torch.bool)
    for label in range(3):
        assert float(removal.scorer(model, SHORT, label)(whole)) == pytest.approx(float(logits[label].sigmoid()))
    asked = scoring.probe(model, (SHORT,), 0)
    assert float(asked.full[0]) == pytest.approx(float(logits.max().sigmoid()))
    found = judged.areas(model, [SHORT], {"own": methods.explain("gradient_x_input", model, [SHORT])})
    assert found.notna().all(axis=None)


def test_a_head_of_one_number_has_no_curves_of_probability_and_is_told_so():
    model = models.wrap(tiny.regression(), tokenizer=tiny.tokenizer(), name="grade")
    with pytest.raises(ValueError, match=r"grade answers by a number and no probability.*output='logit'"):
        scoring.probe(model, (SHORT,), 0)
    with pytest.raises(ValueError, match="gives one number and no probability"):
        removal.scorer(model, SHORT)
    whole = float(removal.scorer(model, SHORT, output="logit")(torch.ones(1, 5, dtype=torch.bool)))
    assert whole == pytest.approx(float(model.logits(encode(model, [SHORT]).inputs).detach()))


# The checkpoint's own settings


def test_half_precision_on_disk_is_single_precision_here(tmp_path):
    tiny.module("bert", dtype=torch.float16).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert model.dtype == torch.float32
    for name in ("diffusion_rollout", "flow", "integrated_gradients"):
        assert methods.explain(name, model, SHORT).scores.isfinite().all()


def test_without_a_mark_for_padding_one_text_and_two_are_explained(tmp_path):
    tiny.module("bert", dtype=torch.float32).save_pretrained(tmp_path)
    read = tiny.tokenizer()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(read.backend_tokenizer.to_str()), unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=32,
    ).save_pretrained(tmp_path)  # fmt: skip
    model = models.load(f"hf:{tmp_path}")
    assert model.tokenizer.pad_token is None
    together = methods.explain("gradient_x_input", model, [SHORT, LONG])
    same(together[0].scores, methods.explain("gradient_x_input", model, SHORT).scores, 1e-4)
    assert methods.explain("leave_one_out", model, SHORT, operator="delete").scores.any()
    with pytest.raises(ValueError, match=r"has no \[PAD\], so there is no baseline sentence; give word=ID"):
        methods.explain("integrated_gradients", model, SHORT)
    assert methods.explain("integrated_gradients", model, SHORT, word=5).scores.any()


# Special tokens and pieces


def test_the_second_text_of_a_pair_has_its_own_token_type(tmp_path):
    called = save(FAMILIES["BERT"], tmp_path)
    words = {word: i for i, word in enumerate((*families.SPECIAL, *families.WORDS))}
    hf.BertTokenizer(vocab=words).save_pretrained(tmp_path)
    model = models.load(called)
    inputs = encode(model, [samples.text("a plot", "two friends")]).inputs
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_what_is_unknown_stays_a_word_as_it_was_written():
    found = methods.explain("leave_one_out", tiny.model("bert"), Text("a 🙂 plot 语 ."), operator="delete")
    assert found.words().labels == ("a", "🙂", "plot", "语", ".")


def test_pieces_that_begin_with_a_blank_stand_on_their_words():
    """Of tokenizers as Llama 3 has them, whose blanks belong to the word behind."""
    built = Tokenizer(BPE({one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    split = pre_tokenizers.Split(pattern=_regex(), behavior="isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    built.decoder = ByteLevel()
    reader = hf.PreTrainedTokenizerFast(tokenizer_object=built, eos_token="!", model_max_length=32)
    model = models.Model("bytes", tiny.module("gpt2"), ("a", "b", "c"), 3, 0, reader, None, "")
    text = "ab é"
    batch = encode(model, [Text(text)])
    assert "".join(text[start:end] for start, end in dict.fromkeys(batch.spans[0])).replace(" ", "") == "abé"


def _regex():
    from tokenizers import Regex

    return Regex(r" ?[^\s]+|\s+")


# Pictures


@pytest.mark.parametrize("name", ["RegNet", "MobileViT", "LeViT", "SegFormer"])
def test_pictures_models_of_stages_are_loaded_and_explained_by_what_suits_them(name, tmp_path):
    model = of_family(name, tmp_path)
    some = tiny.samples("vit")[:2]
    for one, found in zip(some, methods.explain("leave_one_out", model, some, 1), strict=True):
        same(found.scores, methods.explain("leave_one_out", model, one, 1).scores)


def test_clip_as_a_whole_is_refused_with_its_halves_named(tmp_path):
    whole = families.Family("vision", "clip", "", FAMILIES["CLIP"].shape)
    with pytest.raises(ValueError, match=r"texts and pictures at once.*CLIPVisionModelWithProjection"):
        models.load(save(whole, tmp_path))


def test_a_bare_encoder_that_is_wrapped_has_no_invented_classes():
    module = tiny.module("bert").bert
    assert models.wrap(module, tokenizer=tiny.tokenizer()).classes == ()
    assert models.wrap(tiny.module("bert"), tokenizer=tiny.tokenizer()).classes == ("0", "1", "2")


@pytest.mark.parametrize("kind", ["CMYK", "LAB", "GIF"])
def test_pictures_of_other_colours_keep_theirs_and_blanks_in_a_path_are_no_matter(kind, tmp_path):
    colour = Image.fromarray(
        np.kron(np.array([[[200, 30, 60], [20, 160, 90]]], np.uint8), np.ones((8, 8, 1), np.uint8))
    )
    file = tmp_path / ("a picture." + {"CMYK": "jpg", "LAB": "tif", "GIF": "gif"}[kind])
    if kind == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        ImageCms.applyTransform(colour, to_lab).save(file)
    else:
        (colour.convert("CMYK") if kind == "CMYK" else colour.quantize(4)).save(file)
    found = samples.picture(file).image
    assert np.abs(found[:, 4, [4, 12]] * 255 - np.array([[200, 20], [30, 160], [60, 90]])).max() < 24


# Plain input


def test_a_tilde_is_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").write_text("text,label\nfine,1\ndull,0\n")
    Image.new("RGB", (6, 4)).save(tmp_path / "own.png")
    assert [one.text for one in samples.labelled("~/mine.csv")[0]] == ["fine", "dull"]
    assert sets.find({"set": "labelled", "path": "~/mine.csv"}).names == ("mine 0", "mine 1")
    assert samples.picture("~/own.png").image.shape == (3, 4, 6)


@pytest.mark.parametrize("target", [True, 1.0, 1e5, None])
def test_a_class_that_is_no_number_and_no_name_is_said(target):
    with pytest.raises(ValueError, match=rf"the class is {re.escape(repr(target))}, .*expected its number or its name"):
        tiny.model("bert").class_index(target)
    assert tiny.model("bert").class_index(np.int64(-1)) == 2
