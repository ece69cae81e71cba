"""Samples: the bundled reviews are sound, pictures come in every usable form, the rest is refused with a reason."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from xai_utils import runtime, samples
from xai_utils.samples import scenes

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY + 5, 255 - GREY], axis=2)


@pytest.fixture(autouse=True)
def record(monkeypatch):
    monkeypatch.setattr(runtime, "record", runtime.Record())
    return runtime.record


@pytest.fixture
def saved(tmp_path):
    """Save pixels as a picture file and return its path."""

    def save(pixels, name="own.png", mode=None, **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


# Reviews


@pytest.fixture(scope="module")
def reviews():
    return samples.reviews()


def test_reviews_are_many_different_and_balanced(reviews):
    assert len(reviews) >= 200
    assert len({review.name for review in reviews}) == len({review.text for review in reviews}) == len(reviews)
    labels = [review.label for review in reviews]
    assert set(labels) == {0, 1} and abs(np.mean(labels) - 0.5) <= 0.02
    for kind in ("plain", "negation", "contrast"):
        some = [review.label for review in reviews if review.kind == kind]
        assert len(some) >= 30 and abs(np.mean(some) - 0.5) <= 0.15
    assert {review.kind for review in reviews} == {"plain", "negation", "contrast"}


def test_rationales_are_whole_words_in_order(reviews):
    for review in reviews:
        assert review.rationale and review.text == review.text.strip()
        assert list(review.rationale) == sorted(review.rationale)
        ends = [0, *(end for _, end in review.rationale)]
        for (start, end), before in zip(review.rationale, ends, strict=False):
            assert before <= start < end <= len(review.text)
            padded = f" {review.text} "
            assert not padded[start].isalnum() and not padded[end + 1].isalnum(), review
            assert review.text[start].isalnum() and review.text[end - 1].isalnum(), review


def test_rationales_leave_something_out(reviews):
    shares = [sum(end - start for start, end in review.rationale) / len(review.text) for review in reviews]
    assert max(shares) < 0.9 and np.mean(shares) < 0.5


def test_the_first_reviews_are_recorded(record):
    assert samples.reviews(3) == samples.reviews()[:3]
    assert [review.name for review in samples.reviews(2)] == ["fr001", "fr002"]
    assert record.data["film_reviews"].startswith("2 sentences of data/texts/")


# Sentences


def test_an_own_sentence_is_kept_as_it_is(record):
    sentence = samples.text("  A film that – dare I say it? – works. ")
    assert sentence.text == record.data["sentence"] == "  A film that – dare I say it? – works. "
    assert (sentence.label, sentence.rationale) == (None, ())


@pytest.mark.parametrize("empty", ["", "   ", "\n\t", None, True, b"film"])
def test_a_sentence_without_a_word_is_refused(empty):
    with pytest.raises(ValueError, match=r"expected at least one word|and no text"):
        samples.text(empty)
    assert samples.text(1999).text == "1999", "a command line makes a number of it"


def test_sst2_keeps_labels_and_hides_missing_ones(monkeypatch, record):
    rows = [
        {"sentence": "good ", "idx": 7, "label": 1},
        {"sentence": "bad", "idx": 8, "label": 0},
        {"sentence": "?", "idx": 9, "label": -1},
    ]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    found = samples.sst2("test")
    assert [(text.text, text.name, text.label) for text in found] == [
        ("good", "sst2 test 7", 1),
        ("bad", "sst2 test 8", 0),
        ("?", "sst2 test 9", None),
    ]
    assert record.data["sst2"] == "nyu-mll/glue sst2, test, 3 sentences"


def unreachable(error):
    def load(*_, **__):
        raise error

    return load


def test_sst2_without_a_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", unreachable(ConnectionError("no hub\nand more")))
    with pytest.raises(OSError, match=r"SST-2 \(train\) could not be read: no hub Connect once, .* samples.reviews"):
        samples.sst2("train")


def test_sst2_without_a_network_and_without_a_message(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", unreachable(ConnectionError()))
    with pytest.raises(OSError, match="could not be read"):
        samples.sst2()


# Pictures


@pytest.mark.parametrize(("name", "size"), [("cat", (300, 451)), ("coffee", (400, 600)), ("rocket", (427, 640))])
def test_photographs_come_by_name(name, size, record):
    found = samples.picture(name)
    assert found.image.shape == (3, *size) and found.image.dtype == np.float32 and found.name == name
    assert found.image.min() >= 0 and found.image.max() <= 1 and found.masks == {}
    assert record.data["picture"] == name


@pytest.mark.parametrize(("name", "seed", "objects"), [("scene:3:2", 3, 2), ("scene:12", 12, 1), ("scene:0:3", 0, 3)])
def test_scenes_come_by_seed(name, seed, objects):
    found, scene = samples.picture(name), scenes.draw(seed, objects)
    assert np.array_equal(found.image, scene.image) and found.name == f"scene:{seed}:{objects}"
    assert list(found.masks) == [str(index) for index in scene.classes]
    for mask, wanted in zip(found.masks.values(), scene.masks, strict=True):
        assert np.array_equal(mask, wanted)
    assert np.array_equal(samples.picture(found.name).image, found.image)


def test_many_scenes_come_in_order(record):
    found = samples.scene_pictures(3, objects=2, first=5)
    assert [picture.name for picture in found] == ["scene:5:2", "scene:6:2", "scene:7:2"]
    assert np.array_equal(found[1].image, scenes.draw(6, 2).image)
    assert record.data["scenes"] == "test scenes 5 to 7, 2 object(s)"


def test_a_file_keeps_its_colours_and_its_path_is_not_recorded(saved, record):
    for path in (saved(COLOUR), str(saved(COLOUR, "own.bmp"))):
        found = samples.picture(path)
        np.testing.assert_allclose(found.image, COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)
        assert found.name in ("own.png", "own.bmp") and found.name in record.data["picture"].split(", ")


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_a_grey_file_repeats_its_channel(saved, mode):
    found = samples.picture(saved(Image.fromarray(GREY).convert(mode), f"grey{mode}.png"))
    wanted = np.asarray(Image.fromarray(GREY).convert(mode).convert("L"), dtype=np.float32) / 255
    assert np.array_equal(found.image, np.stack([wanted] * 3))


def test_a_file_without_see_through_pixels_needs_no_background(saved):
    opaque = np.dstack([COLOUR, np.full((4, 6), 255, dtype=np.uint8)])
    found = samples.picture(saved(opaque))
    np.testing.assert_allclose(found.image, COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)


def test_a_file_that_changed_is_read_again(saved):
    before = samples.picture(saved(COLOUR)).image
    assert not np.array_equal(samples.picture(saved(255 - COLOUR)).image, before)


def test_a_picture_may_be_changed_without_changing_the_next():
    first = samples.picture("coffee").image
    first[:] = 0
    assert samples.picture("coffee").image.max() > 0


def test_a_photograph_stands_upright(saved):
    sideways = Image.Exif()
    sideways[0x0112] = 6
    found = samples.picture(saved(COLOUR, exif=sideways)).image
    assert found.shape == (3, 6, 4)


def test_arrays_of_bytes_and_of_floats_are_the_same_picture():
    wanted = COLOUR.transpose(2, 0, 1) / 255
    for array in (COLOUR, COLOUR / 255, (COLOUR / 255).astype(np.float32)):
        found = samples.picture(array)
        np.testing.assert_allclose(found.image, wanted, atol=1e-7)
        assert found.image.dtype == np.float32 and found.name == "own array"


# Pictures that are refused


@pytest.mark.parametrize("alpha", [0, 254])
def test_see_through_pixels_are_refused_with_their_share(saved, alpha):
    seen = np.full((4, 6), 255, dtype=np.uint8)
    seen[:2, :3] = alpha
    for name, pixels in (("rgba.png", np.dstack([COLOUR, seen])), ("la.png", np.dstack([GREY, seen]))):
        with pytest.raises(ValueError, match=rf"{name} is see-through in 25.0% of its pixels.*flatten"):
            samples.picture(saved(pixels, name))


def test_a_see_through_colour_of_a_palette_is_refused(saved):
    halves = Image.fromarray(np.repeat(np.array([[0, 1]], dtype=np.uint8), 4, 0), "P")
    halves.putpalette([255, 0, 0, 0, 0, 255])
    with pytest.raises(ValueError, match=r"see-through in 50.0%"):
        samples.picture(saved(halves, "holes.png", transparency=1))
    found = samples.picture(saved(halves, "whole.png"))
    assert found.image[:, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("pixels", "name", "mode"),
    [
        (GREY.astype(np.uint16) * 250, "deep.png", "I"),
        (GREY.astype(np.int32), "deep.tif", "I"),
        (GREY / np.float32(255), "float.tif", "F"),
    ],
)
def test_deep_pixels_are_refused(saved, pixels, name, mode):
    with pytest.raises(ValueError, match=f"{name} has pixels of mode {mode}.*convert it to 8 bits"):
        samples.picture(saved(pixels, name))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_cut_short_is_refused(saved, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    whole = saved(noise, f"cut.{suffix}")
    whole.write_bytes(whole.read_bytes()[:-600])
    with pytest.raises(ValueError, match=f"cut.{suffix} cannot be read as a picture: "):
        samples.picture(whole)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (13_000, 4_000)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png has 13000 x 4000 pixels, and at most 50 million are read"):
        samples.picture(tmp_path / "wide.png")
    Image.new("L", (30, 20)).save(tmp_path / "small.png")
    monkeypatch.setenv("XAI_PIXELS", "599")
    with pytest.raises(ValueError, match="or set XAI_PIXELS=600 where it has to be"):
        samples.picture(tmp_path / "small.png")
    monkeypatch.setenv("XAI_PIXELS", "600")
    assert samples.picture(tmp_path / "small.png").image.shape == (3, 20, 30)
    monkeypatch.setenv("XAI_PIXELS", "many")
    with pytest.raises(ValueError, match="XAI_PIXELS is 'many', expected how many pixels"):
        samples.picture(tmp_path / "small.png")


@pytest.mark.parametrize("content", [b"", b"a sentence, no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "notes.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.png cannot be read as a picture"):
        samples.picture(tmp_path / "notes.png")


@pytest.mark.parametrize("name", ["dog", "scene:3:4", "scene:-1", "scene:", "scene:1.5", "Cat", ".", "no/such.png"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(FileNotFoundError, match=f"no picture '{name}': .*cat, coffee, astronaut, rocket, scene:SEED"):
        samples.picture(name)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.full((4, 4, 3), np.nan), "NaN or infinity"),
        (np.full((4, 4, 3), np.inf), "NaN or infinity"),
        (np.zeros((4, 4, 3), dtype=np.int64), "int64.*expected uint8 or finite floats"),
        (np.zeros((4, 4, 3), dtype=bool), "bool.*expected uint8 or finite floats"),
        (np.full((4, 4, 3), 1.01), r"from 1.01 to 1.01, expected \[0, 1\]"),
        (np.full((4, 4, 3), -0.01), r"from -0.01 to -0.01, expected \[0, 1\]"),
        (COLOUR.astype(np.float64), r"from 0 to 255, expected \[0, 1\]"),
        (GREY, r"shape \(4, 6\), expected .*Repeat a grey picture"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"shape \(4, 4, 4\), expected .*background"),
        (np.zeros((3, 8, 8)), r"shape \(3, 8, 8\), expected \(height, width, 3\)"),
        (np.zeros((0, 8, 3)), r"shape \(0, 8, 3\)"),
        (np.zeros((1, 8, 8, 3)), r"shape \(1, 8, 8, 3\)"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, what):
    with pytest.raises(ValueError, match=what):
        samples.picture(array)


# Labelled files, and sets of a hub


def write(path, text):
    path.write_text(text)
    return path


def test_csv_and_jsonl_read_alike(tmp_path):
    one = write(tmp_path / "a.csv", 'text,label\nfine,1\n"dull, slow",0\n')
    other = write(tmp_path / "a.jsonl", '{"text": "fine", "label": 1}\n{"text": "dull, slow", "label": 0}\n')
    assert samples.labelled(one) == samples.labelled(other)
    texts, classes = samples.labelled(one)
    assert classes == ("0", "1") and [(text.text, text.label) for text in texts] == [("fine", 1), ("dull, slow", 0)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,rating\nfine,1\ndull,0\n", "lacks the column label; it has text, rating"),
        ("a.csv", "body,rating\nfine,1\n", "lacks the column label and text"),
        ("a.csv", "text,label\nfine,1\ndull,1\n", "every label in a.csv is '1'"),
        ("a.csv", "text,label\n ,1\n,0\n", "no row of a.csv can be used: row 1 has no text"),
        ("a.jsonl", '{"text": "fine", "label": null}\n', "no row of a.jsonl can be used: row 1 has no label"),
        ("a.txt", "fine", "ends in '.txt', expected .csv, .tsv, .jsonl"),
    ],
)
def test_unusable_files_are_refused(name, content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        samples.labelled(write(tmp_path / name, content))


def test_a_bad_row_is_left_out_counted_and_said(tmp_path, monkeypatch):
    file = write(tmp_path / "mine.csv", "text,label\nfine,1\n,0\nslow,\n  ,\ndull,0\n")
    monkeypatch.setattr(runtime.record, "data", {})
    with pytest.warns(UserWarning, match=r"mine.csv, 3 of 5 rows left out \(row 2 has no text\)"):
        texts, classes = samples.labelled(file)
    assert [(one.text, one.name, one.label) for one in texts] == [("fine", "mine 0", 1), ("dull", "mine 4", 0)]
    assert classes == ("0", "1")
    assert runtime.record.data["mine"] == "mine.csv, 2 texts, 3 of 5 rows left out (row 2 has no text)"


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"no file nothing\.csv"):
        samples.labelled("nothing.csv")


def test_imdb_comes_with_its_labels(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": "Fine.", "label": 1}])
    assert samples.imdb("train") == [samples.Text("Fine.", "imdb train 0", 1)]
    assert runtime.record.data["imdb"] == "stanfordnlp/imdb, train, 1 texts"


def test_paragraphs_are_joined_reviews():
    found = samples.paragraphs(30, seed=1, most=3)
    assert found == samples.paragraphs(30, seed=1, most=3) != samples.paragraphs(30, seed=2, most=3)
    known = [review.text for review in samples.reviews()]
    counts = [sum(review in text.text for review in known) for text in found]
    assert set(counts) == {1, 2, 3}


# Mosaics


def test_a_mosaic_holds_every_picture_in_a_cell_named_after_it():
    some = [next(p for p in samples.scene_pictures(60) if [*p.masks] == [digit]) for digit in "3071"]
    drawn = samples.mosaic(some, side=112)
    assert drawn.image.shape == (3, 112, 112) and list(drawn.masks) == ["3", "0", "7", "1"]
    assert (sum(mask.astype(int) for mask in drawn.masks.values()) == 1).all()
    top, left = np.nonzero(drawn.masks["7"])
    assert (top.min(), left.min(), top.max(), left.max()) == (56, 0, 111, 55)
    pixels = (some[2].image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    alone = np.asarray(Image.fromarray(pixels).resize((56, 56)))
    assert np.abs(drawn.image[:, 56:, :56].transpose(1, 2, 0) * 255 - alone).max() < 1


def test_photographs_stand_side_by_side_by_name():
    drawn = samples.picture("cat + coffee")
    assert drawn.name == "cat + coffee" and list(drawn.masks) == ["cat", "coffee"]
    assert drawn.masks["cat"][:, :112].all() and drawn.masks["coffee"][:, 112:].all() and drawn.image.shape[1] == 224


@pytest.mark.parametrize(("names", "options"), [
    (("cat", "coffee", "rocket"), {}), (("cat", "cat"), {}), ((), {}), (("cat", "coffee"), {"side": 225}),
])  # fmt: skip
def test_what_fills_no_square_is_no_mosaic(names, options):
    with pytest.raises(ValueError, match="expected as many as fill the rows, all of different names"):
        samples.mosaic([samples.picture(name) for name in names], **options)


def test_mosaics_take_pictures_in_order_and_no_class_twice():
    some = samples.scene_pictures(24)
    found = samples.mosaics(some, side=112)
    assert found and all(len(one.masks) == 4 for one in found)
    used = [name for one in found for name in one.name.split(" + ")]
    assert len(set(used)) == len(used) and set(used) <= {one.name for one in some}
    assert not samples.mosaics([some[0]] * 5)


def test_a_tensor_is_no_picture_and_the_error_says_how_to_make_one():
    with pytest.raises(ValueError, match=r"is a Tensor; expected .*permute\(1, 2, 0\)"):
        samples.picture(torch.rand(3, 8, 8))


def test_a_pair_of_texts_is_one_sample_that_knows_where_the_second_begins(tmp_path):
    pair = samples.text("who won", "the red team")
    assert pair.text[pair.second :] == "the red team" and samples.text("who won").second == 0
    with pytest.raises(ValueError, match="expected at least one word"):
        samples.text("who won", " ")
    file = tmp_path / "pairs.csv"
    file.write_text("text,text_b,label\nwho won,the red team,yes\nwho,nobody,no\n")
    assert [one.text[one.second :] for one in samples.labelled(file)[0]] == ["the red team", "nobody"]
    file.write_text('text,label\n"who won\tthe red team",yes\nwho,no\n')
    assert [one.second for one in samples.labelled(file)[0]] == [8, 0]
