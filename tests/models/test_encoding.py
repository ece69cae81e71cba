"""Encoding: tokens and their places in the sentence, pictures and their masks as the model sees them."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import steady
from timm.data import create_transform
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from torchvision.transforms.functional import center_crop
from transformers import PreTrainedTokenizerFast

from xai_utils import methods, models, samples
from xai_utils.models import Model, Preprocessing, bundled
from xai_utils.models.encoding import _labels, encode, patch_grid, rationale_mask, view, view_mask, word_mask
from xai_utils.samples import Picture, Text
from xai_utils.survey.families import FAMILIES, save, tokenizer

GREY = ((0.5,) * 3, (0.25,) * 3)
DEIT = Preprocessing(224, 248, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def vision(size=32, patch=8, resize=None, squash=False):
    """Build a tiny vision transformer with random weights."""
    shape = {"img_size": size, "patch_size": patch, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
    module = bundled.build_vision("VisionTransformer", shape).eval()
    preprocessing = Preprocessing(size, resize or size, *GREY, squash=squash)
    return Model("tiny", module, ("a", "b", "c"), 1, 1, None, preprocessing, "")


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.float32) / 255


# Sentences


@pytest.fixture(scope="module")
def reviews():
    return samples.reviews()


def test_labels_are_the_pieces_of_the_sentence_at_their_spans(minilm, reviews):
    batch = encode(minilm, reviews)
    assert len(batch) == len(reviews) and batch.grid is None and batch.prefix == 0
    for sample, labels, spans in zip(reviews, batch.labels, batch.spans, strict=True):
        assert (labels[0], labels[-1]) == ("[CLS]", "[SEP]") and spans[0] == spans[-1] == (0, 0)
        before = 0
        for label, (start, end) in zip(labels[1:-1], spans[1:-1], strict=True):
            assert before <= start < end and sample.text[start:end].lower() == label.removeprefix("##")
            assert not sample.text[before:start].strip()
            before = end
        assert not sample.text[before:].strip()


def test_a_batch_holds_what_each_sentence_holds_alone(minilm, reviews):
    some = sorted(reviews[:12], key=lambda sample: len(sample.text))
    batch = encode(minilm, some)
    assert len({batch.length(i) for i in range(len(batch))}) > 3
    for i, sample in enumerate(some):
        alone, length = encode(minilm, [sample]), batch.length(i)
        assert alone.labels[0] == batch.labels[i] and alone.spans[0] == batch.spans[i]
        assert alone.inputs.keys() == batch.inputs.keys() >= {"input_ids", "attention_mask"}
        for name, values in alone.inputs.items():
            assert values.shape == (1, length) and torch.equal(values[0], batch.inputs[name][i, :length])
        assert batch.inputs["attention_mask"][i].tolist() == [1] * length + [0] * (
            batch.inputs["attention_mask"].shape[1] - length
        )


def test_a_rationale_marks_the_tokens_it_touches(minilm, reviews):
    for sample, spans in zip(reviews, encode(minilm, reviews).spans, strict=True):
        marked = [any(place in range(*part) for part in sample.rationale) for place in range(len(sample.text))]
        found = rationale_mask(sample, spans)
        assert found.dtype == bool and found.tolist() == [any(marked[start:end]) for start, end in spans]
        assert found.any() and not found.all() and not found[0] and not found[-1]


def test_a_rationale_ends_before_the_next_token():
    spans = [(0, 0), (0, 4), (5, 9), (9, 12), (0, 0)]
    assert rationale_mask(Text("", rationale=((5, 9),)), spans).tolist() == [False, False, True, False, False]
    assert rationale_mask(Text("", rationale=((0, 1), (8, 10))), spans).tolist() == [False, True, True, True, False]
    assert not rationale_mask(Text(""), spans).any()


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("naïve café", ("[CLS]", "naive", "cafe", "[SEP]")),
        ("🙂 good", ("[CLS]", "🙂", "good", "[SEP]")),
        ("  padded   out ", ("[CLS]", "padded", "out", "[SEP]")),
    ],
)
def test_spans_of_unusual_sentences_still_point_into_them(minilm, text, labels):
    batch = encode(minilm, [samples.text(text)])
    assert batch.labels == (labels,)
    assert [text[start:end] for start, end in batch.spans[0][1:-1]] == text.split()


def test_the_longest_sentence_that_fits_is_taken_whole(minilm):
    assert encode(minilm, [Text("good " * 510)]).length(0) == 512
    with pytest.raises(ValueError, match="has 513 tokens, but minilm reads at most 512"):
        encode(minilm, [Text("good " * 511)])


# Pictures


@steady
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    size=st.integers(8, 24),
    margin=st.integers(0, 8),
    squash=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_mask_lands_on_the_pixels_of_its_picture(height, width, size, margin, squash, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    nearest = Preprocessing(size, size + margin, *GREY, "nearest", squash)
    seen = view(np.stack([mask] * 3).astype(np.float32), nearest)
    assert seen.shape == (3, size, size) and seen.dtype == np.float32
    assert np.array_equal(seen[0] > 0.5, view_mask(mask, nearest))


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(300, 451, 40, 200), (451, 300, 200, 40), (224, 224, 0, 100)]
)
def test_a_mask_follows_a_smooth_resize_up_to_its_border(height, width, top, left):
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + 100, left : left + 80] = True
    for preprocessing in (DEIT, Preprocessing(224, 224, *GREY, "bilinear", squash=True)):
        seen, found = view(np.stack([mask] * 3).astype(np.float32), preprocessing)[0], view_mask(mask, preprocessing)
        inner = (np.abs(seen - 0.5) > 0.49) & np.isin(seen, (0, 1))
        assert found.any() and inner.mean() > 0.95 and np.array_equal(seen[inner] > 0.5, found[inner])


def seen_by_timm(picture, preprocessing):
    """Put a picture through timm's own evaluation transform, without the normalisation."""
    transform = create_transform(
        (3, preprocessing.size, preprocessing.size),
        crop_pct=preprocessing.size / preprocessing.resize,
        interpolation=preprocessing.interpolation,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    return transform(Image.fromarray(np.round(picture.transpose(1, 2, 0) * 255).astype(np.uint8))).numpy()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", ["cat", "coffee", "astronaut", "rocket"])
def test_the_view_is_that_of_timm(name, interpolation):
    picture, preprocessing = samples.picture(name).image, Preprocessing(224, 248, *GREY, interpolation)
    assert np.abs(view(picture, preprocessing) - seen_by_timm(picture, preprocessing)).max() <= 1 / 255 + 1e-6


@steady
@given(height=st.integers(20, 90), width=st.integers(20, 90), margin=st.integers(0, 9), seed=st.integers(0, 9))
def test_the_view_of_any_size_is_that_of_timm(height, width, margin, seed):
    picture, preprocessing = noise(height, width, seed), Preprocessing(32, 32 + margin, *GREY)
    assert np.abs(view(picture, preprocessing) - seen_by_timm(picture, preprocessing)).max() <= 1 / 255 + 1e-6


def test_the_longer_side_is_rounded_down_without_error():
    picture, preprocessing = noise(343, 392), Preprocessing(224, 224, *GREY)
    assert np.abs(view(picture, preprocessing) - seen_by_timm(picture, preprocessing)).max() <= 1 / 255 + 1e-6


def test_a_picture_of_the_right_size_is_left_alone():
    picture = noise(32, 32) * 0.9 + 0.01
    assert view(picture, Preprocessing(32, 32, *GREY)) is picture
    cropped = view(picture, Preprocessing(32, 36, *GREY))
    assert cropped.shape == (3, 32, 32) and not np.array_equal(cropped, picture)


def test_squashing_keeps_the_whole_picture_and_cropping_its_middle():
    picture = np.zeros((3, 40, 80), dtype=np.float32)
    picture[0, :, :20], picture[1, :, 60:] = 1, 1  # red on the left, green on the right
    whole, middle = (view(picture, Preprocessing(40, 40, *GREY, "nearest", squash)) for squash in (True, False))
    assert (whole[0, :, :10] == 1).all() and (whole[1, :, 30:] == 1).all() and (whole[:, :, 10:30] == 0).all()
    assert (middle == 0).all()
    assert np.array_equal(middle, center_crop(torch.from_numpy(picture), [40, 40]).numpy())


@pytest.mark.parametrize("model", [vision(), vision(resize=36), vision(squash=True), vision(size=24, patch=4)])
def test_pictures_are_normalised_and_patches_named_row_by_row(model):
    pictures = [Picture(noise(50, 70, seed), f"noise {seed}", {}) for seed in range(3)]
    batch, grid = encode(model, pictures), patch_grid(model)
    size, patch = model.preprocessing.size, model.module.patch_embed.patch_size[0]
    assert batch.grid == grid == (size // patch, size // patch) and batch.prefix == 1 and len(batch) == 3
    assert batch.labels == (tuple(f"{row},{column}" for row in range(grid[0]) for column in range(grid[1])),) * 3
    assert batch.length(0) == 1 + grid[0] * grid[1]
    for i, picture in enumerate(pictures):
        assert np.array_equal(batch.views[i], view(picture.image, model.preprocessing))
    np.testing.assert_allclose(batch.inputs["x"].numpy(), (batch.views - 0.5) / 0.25, rtol=0, atol=1e-6)
    with torch.inference_mode():
        assert model.logits(batch.inputs).shape == (3, 3)


def test_each_channel_has_its_own_mean_and_spread():
    model = vision()
    uneven = Model("tiny", model.module, model.classes, 1, 1, None, Preprocessing(32, 32, DEIT.mean, DEIT.std), "")
    batch = encode(uneven, [samples.picture(np.full((32, 32, 3), 0.5))])
    wanted = [(0.5 - mean) / std for mean, std in zip(DEIT.mean, DEIT.std, strict=True)]
    np.testing.assert_allclose(batch.inputs["x"][0].mean((1, 2)).numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize(("size", "rows"), [(112, 14), (224, 14)])
def test_a_network_without_patches_gets_fourteen_by_fourteen(size, rows):
    module = bundled.build_vision("ResNet", {"layers": [1, 1], "channels": [4, 8], "num_classes": 3}).eval()
    model = Model("tiny", module, ("a", "b", "c"), 0, 0, None, Preprocessing(size, size, *GREY), "")
    assert patch_grid(model) == (rows, rows)
    batch = encode(model, [Picture(noise(size, size), "noise", {})])
    assert batch.length(0) == rows * rows and batch.prefix == 0


# Refusals


def test_a_very_long_sentence_is_refused_with_the_limit(minilm):
    long = Text("word " * 10_000, name="a novel")
    with pytest.raises(ValueError, match=r"'a novel' has 10002 tokens, but minilm reads at most 512.*cut off"):
        encode(minilm, [Text("short"), long])


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_sentence_is_refused_by_name(minilm, empty):
    with pytest.raises(ValueError, match="text of 'nothing' is empty"):
        encode(minilm, [Text(empty, name="nothing")])


def test_the_wrong_kind_of_sample_is_refused(minilm):
    picture = Picture(noise(32, 32), "noise", {})
    with pytest.raises(ValueError, match="minilm takes sentences, not a picture"):
        encode(minilm, [Text("good"), picture])
    with pytest.raises(ValueError, match="tiny takes pictures, not a text"):
        encode(vision(), [Text("good")])
    with pytest.raises(ValueError, match="minilm takes sentences, not a str"):
        encode(minilm, ["good"])


def test_no_sample_at_all_is_refused(minilm):
    with pytest.raises(ValueError, match="no sample to encode"):
        encode(minilm, [])


def test_a_picture_with_nan_is_refused_by_name():
    picture = noise(32, 32)
    picture[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="picture 'broken' holds NaN or infinity"):
        encode(vision(), [Picture(noise(32, 32), "whole", {}), Picture(picture, "broken", {})])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_picture_with_nan_is_refused_before_it_is_resized():
    picture = noise(40, 40)
    picture[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="picture 'broken' holds NaN or infinity"):
        encode(vision(), [Picture(picture, "broken", {})])


def test_words_are_what_holds_more_than_punctuation_and_blanks():
    text = "Well, naïve 7-up costs $5 … 好 😀 (it's)_."
    spans = [found.span() for found in re.finditer(r"\w+|[^\w\s]", text)]
    ranked = word_mask(Text(text), [(0, 0), *spans])
    told = [text[start:end] for (start, end), word in zip([(0, 0), *spans], ranked, strict=True) if word]
    assert told == ["Well", "naïve", "7", "up", "costs", "5", "好", "😀", "it", "s"]


# Texts as people type them, and tokenizers as they come


def of_family(name, folder, side="right"):
    return models.load(save(FAMILIES[name], folder, side=side), dtype="float64")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_stands_behind_whatever_the_tokenizers_side(side, tmp_path):
    model = of_family("Llama", tmp_path, side)
    some = [Text("a warm plot"), Text("two funny friends and the very warm film")]
    batch = encode(model, some)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [5, 10] and batch.inputs["attention_mask"][0, :5].all()
    assert batch.labels[0] == ("[CLS]", "a", "warm", "plot", "[SEP]")
    for one, found in zip(some, methods.explain("rollout", model, some), strict=True):
        torch.testing.assert_close(found.scores, methods.explain("rollout", model, one).scores)


@pytest.mark.parametrize(("family", "padding"), [("BERT", "any"), ("FNet", "equal"), ("ModernBERT", "equal")])
def test_a_model_that_reads_padding_gets_none(family, padding, tmp_path):
    model = of_family(family, tmp_path)
    assert model.padding == padding
    some = [Text("a warm plot"), Text("two funny friends and the very warm film"), Text("the dull plot")]
    alone = torch.cat([model.logits(encode(model, [one]).inputs) for one in some])
    torch.testing.assert_close(model.logits(encode(model, some).inputs), alone)
    if padding == "equal":
        with pytest.raises(ValueError, match="reads padding, so it takes one text at a time"):
            methods.observe(model, some)


def test_a_typed_mark_is_refused_and_a_pair_is_a_sample(tmp_path):
    model = of_family("BERT", tmp_path)
    with pytest.raises(ValueError, match=r"holds '\[SEP\]'.*samples\.text\(first, second\)"):
        encode(model, [samples.text("a plot [SEP] a film")])
    pair = samples.text("a plot", "two friends")
    batch = encode(model, [pair])
    assert batch.labels[0] == ("[CLS]", "a", "plot", "[SEP]", "two", "friends", "[SEP]")
    assert [pair.text[start:end] for start, end in batch.spans[0] if start < end] == ["a", "plot", "two", "friends"]


def test_bytes_and_unknown_words_are_read_as_they_were_written():
    bytes_of = Tokenizer(BPE({one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    bytes_of.pre_tokenizer, bytes_of.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    reader = PreTrainedTokenizerFast(tokenizer_object=bytes_of)
    assert _labels(reader, "a 语", *ids_and_spans(reader, "a 语")) == ("a", "Ġ", "语", "语", "语")
    words = tokenizer()
    found = _labels(words, "a 🙂 plot", *ids_and_spans(words, "a 🙂 plot"))
    assert found == ("[CLS]", "a", "🙂", "plot", "[SEP]")


def ids_and_spans(reader, text):
    coded = reader(text, return_offsets_mapping=True)
    return coded["input_ids"], coded["offset_mapping"]
