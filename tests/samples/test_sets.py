"""The table of sets: what a plan states is found, read piece by piece, hashed, or refused with a reason."""

import inspect
import json

import numpy as np
import pytest
from PIL import Image

from xai_utils import runtime
from xai_utils.samples import Picture, Text, recall, sets


def test_a_category_may_mean_several_classes(coco):
    (coco.parent / "means.json").write_text('{"cup": [504, 968], "spoon": [968]}')
    spec = {"path": str(coco.parent), "annotations": str(coco), "classes": str(coco.parent / "means.json")}
    masks = sets.take({"set": "coco", **spec}, 0, 1)[0].masks
    assert (masks["#504"] == masks["cup"]).all() and (masks["#968"] == masks["cup"] | masks["spoon"]).all()


def test_every_set_that_is_bundled_opens():
    for spec in ({"set": "reviews"}, {"set": "scenes", "number": 3}, {"set": "paragraphs", "number": 4}):
        found = sets.find(spec)
        assert len(found) == spec.get("number", 216) and sets.take(spec, 1, 2)[0].name == found.names[1]


def test_texts_are_cut_where_that_is_asked_for_and_say_so(tmp_path, monkeypatch):
    file = tmp_path / "mine.csv"
    file.write_text("text,label,text_b\none two  three four,a,\nfive six,b,\n")
    monkeypatch.setattr(runtime.record, "data", {})
    whole, cut = ({"set": "labelled", "path": str(file)} | more for more in ({}, {"words": 3}))
    assert [one.text for one in sets.take(whole, 0, 2)] == ["one two  three four", "five six"]
    assert [one.text for one in sets.take(cut, 0, 2)] == ["one two  three", "five six"]
    assert sets.find(cut).names == ("mine 0, first 3 of 4 words", "mine 1")
    assert runtime.record.data["mine"] == "mine.csv, 2 texts, 1 of them cut after 3 words"
    file.write_text("text,label,text_b\none two three,a,four\nfive six,b,\n")
    with pytest.raises(ValueError, match="'mine 0' is a pair of 4 words, and only single texts are cut"):
        sets.labelled(str(file), 3)
    with pytest.raises(ValueError, match="no option 'tokens'; it takes: count, path, words"):
        sets.find({**whole, "tokens": 3})


def test_a_count_is_spread_over_the_set(imagenet):
    found = sets.find({"set": "pictures", "path": str(imagenet), "count": 3})
    assert found.names == ("n01/a.png", "n01/c.JPEG", "n02/d.png") and found.read(2).name == "n02/d.png"


def test_photographs_with_masks(tmp_path):
    for place in ("images/one.png", "images/two.png", "images/bare.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / place)
    (tmp_path / "masks").mkdir()
    for name in ("one_cup", "two_spoon"):
        Image.fromarray(np.eye(4, 6, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "classes.json").write_text('{"spoon": [4, 9]}')
    spec = {"set": "masked", "path": str(tmp_path)}
    assert {name.split(".")[0] for name in sets.find(spec).names} == {"one", "two"}
    (tmp_path / "some.txt").write_text(sets.find(spec).names[1] + "\n")
    spec["named"] = str(tmp_path / "some.txt")
    (only,) = sets.take(spec, 0, 9)
    assert only.masks["spoon"].sum() == 4 and set(only.masks) == {"spoon", "#4", "#9"}
    (tmp_path / "some.txt").write_text("three.png")
    with pytest.raises(ValueError, match="1 names of some"):
        sets.find({**spec, "count": 1})


def test_paths_may_name_the_environment(imagenet, monkeypatch):
    monkeypatch.setenv("PICTURES_OF_MINE", str(imagenet))
    spec = {"set": "pictures", "path": "$PICTURES_OF_MINE/n02"}
    assert len(sets.find(spec)) == 3
    with pytest.raises(ValueError, match="needs the option 'path'"):
        sets.find({"set": "pictures"})


def test_the_hash_of_samples_sees_everything_but_the_place():
    text, picture = (
        Text("a film", "x", 1),
        Picture(np.zeros((3, 2, 2), np.float32), "y", {"cup": np.eye(2, dtype=bool)}),
    )
    others = [
        [Text("a plot", "x", 1)],
        [Text("a film", "x", 0)],
        [Text("a film", "x", 1, rationale=((0, 1),))],
        [text, text],
        [picture],
        [Picture(picture.image + 1, "y", picture.masks)],
        [Picture(picture.image, "y", {"cup": ~picture.masks["cup"]})],
        [Picture(picture.image, "y", {"mug": picture.masks["cup"]})],
    ]
    digests = [sets.digest(some) for some in ([text], *others)]
    assert len(set(digests)) == len(digests) and sets.digest([Text("a film", "x", 1)]) == digests[0]


def test_a_sweep_reads_sequences_whose_answer_is_marked():
    listing = sets.find({"set": "recalls", "number": 3, "first": 5, "length": 12})
    assert listing.names == ("recall:5:12", "recall:6:12", "recall:7:12")
    for i, name in enumerate(listing.names):
        one, again = listing.read(i), listing.read(i)
        ((start, stop),) = one.rationale
        assert one == again and one.name == name and len(one.text.split()) == 11
        assert one.text[start:stop] == recall.LETTERS[one.label] and one.text[start - 2] == recall.MARK


def test_the_users_own_texts_are_a_set(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\na warm film,good\na dull film,bad\n")
    found = sets.find({"set": "labelled", "path": str(tmp_path / "own.csv")})
    assert [found.read(i).label for i in range(2)] == [1, 0] and found.names == ("own 0", "own 1")


def test_options_that_name_files_are_those_of_the_sets():
    taken = {name for one in sets.SETS.values() for name in inspect.signature(one).parameters}
    assert set(sets.FILES) <= taken


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"set": "films"}, "set of samples is 'films', expected one of: reviews"),
        ({"set": "scenes", "colour": 1}, "has no option 'colour'; it takes: count, number, objects, first"),
        ({"set": "scenes", "number": 3, "count": 4}, "count is 4, but the set holds 3 samples"),
        ({"set": "scenes", "number": 3, "count": 0}, "count is 0"),
        ({"set": "labelled", "path": "$NOT_SET_ANYWHERE/own.csv"}, "environment variable that is not set"),
    ],
)
def test_what_a_plan_may_not_state_is_refused(spec, said):
    with pytest.raises(ValueError, match=said):
        sets.find(spec)


def test_two_samples_of_one_name_are_refused(tmp_path):
    rows = [{"id": "a", "text": "two words", "label": 0, "rationales": [[0, 1]]}] * 2
    (tmp_path / "twice.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="two samples of the set 'rationales' have one name"):
        sets.find({"set": "rationales", "path": str(tmp_path / "twice.jsonl")})


def test_a_stretch_may_end_behind_the_set():
    spec = {"set": "scenes", "number": 3, "first": 7}
    assert [one.name for one in sets.take(spec, 1, 9)] == ["scene:8:1", "scene:9:1"]
