"""Real data in the forms that people keep it in, on small files made here."""

import json

import numpy as np
import pytest
from PIL import Image

from xai_utils import runtime
from xai_utils.samples import folders


@pytest.fixture
def eraser(tmp_path):
    rows = [
        {"id": "a", "label": "POS", "text": "a warm film , not\nvery slow .", "rationales": [[0, 3], [5, 8]]},
        {"id": "b", "label": "NEG", "text": "the plot is the plot : dull", "rationales": [[6, 7]]},
    ]
    file = tmp_path / "movies.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


def test_a_folder_per_class(imagenet):
    found = folders.pictures(imagenet)
    assert found.names == ("n01/a.png", "n01/c.JPEG", "n02/b.png", "n02/d.png", "n02/e.png")
    read = [found.read(i) for i in range(5)]
    assert [one.label for one in read] == [0, 0, 1, 1, 1] and read[3].name == "n02/d.png"
    assert read[3].image.shape == (3, 8, 12) and read[3].image.max() == np.float32(150 / 255)


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_a_file_of_labels(imagenet, ending):
    known = {"n02/b.png": 7, "n01/a.png": 3}
    text = (
        json.dumps(known) if ending == "json" else "file,class_id\n" + "".join(f"{k},{v}\n" for k, v in known.items())
    )
    (imagenet / f"labels.{ending}").write_text(text)
    found = folders.pictures(imagenet, imagenet / f"labels.{ending}")
    assert [(name, found.read(i).label) for i, name in enumerate(found.names)] == [("n01/a.png", 3), ("n02/b.png", 7)]


def test_pictures_side_by_side_have_no_label(imagenet):
    assert folders.pictures(imagenet / "n01").read(1).label is None


def test_what_is_no_picture_folder_is_refused(imagenet):
    with pytest.raises(FileNotFoundError, match="no folder"):
        folders.pictures(imagenet / "n09")
    (imagenet / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in empty"):
        folders.pictures(imagenet / "empty")
    (imagenet / "labels.json").write_text('{"n03/x.png": 1}')
    with pytest.raises(ValueError, match=r"name no picture in imagenet, such as 'n03/x\.png'"):
        folders.pictures(imagenet, imagenet / "labels.json")
    (imagenet / "labels.csv").write_text("name,label\na,1\n")
    with pytest.raises(ValueError, match="lacks the column class_id and file"):
        folders.pictures(imagenet, imagenet / "labels.csv")
    with pytest.raises(FileNotFoundError, match="no file"):
        folders.pictures(imagenet, imagenet / "none.csv")


def test_masks_come_from_polygons(coco):
    found = folders.masked(coco.parent, coco)
    assert found.names == ("one.png",), "a picture of nothing but a crowd says nothing"
    masks = found.read(0).masks
    assert set(masks) == {"cup", "spoon"}
    cup = np.zeros((10, 20), bool)
    cup[:2, :4] = cup[5:10, 10:15] = True
    assert (masks["cup"] == cup).all() and masks["spoon"].sum() == 5 and masks["spoon"][0, 15:].all()


def test_what_is_no_coco_file_is_refused(coco):
    known = json.loads(coco.read_text())
    known["annotations"][0]["segmentation"] = {"counts": [3], "size": [1, 3]}
    coco.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="run-length"):
        folders.masked(coco.parent, coco).read(0)
    coco.write_text("{}")
    with pytest.raises(ValueError, match="lacks annotations, categories, images"):
        folders.masked(coco.parent, coco)


def test_rationales_are_counted_in_words(eraser):
    found = folders.rationales(eraser)
    first, second = found.read(0), found.read(1)
    assert [first.text[start:end] for start, end in first.rationale] == ["a warm film", "very slow ."]
    assert (first.label, second.label) == (1, 0) and second.text[slice(*second.rationale[0])] == "dull"


def test_a_cut_drops_what_lies_behind_it(eraser):
    found = folders.rationales(eraser, words=6)
    assert found.names == ("a",), "the other text has no rationale left"
    text = found.read(0)
    assert text.text == "a warm film , not\nvery" and [text.text[slice(*s)] for s in text.rationale] == [
        "a warm film",
        "very",
    ]
    (eraser.parent / "late.jsonl").write_text(eraser.read_text().splitlines()[1])
    with pytest.raises(ValueError, match=r"no text of late\.jsonl has a rationale among its first 3 words"):
        folders.rationales(eraser.parent / "late.jsonl", words=3)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": "GOOD"}, "text 1 has the label 'GOOD'"),
        ({"rationales": [[0, 9]]}, "text 1 has a rationale outside its 2 words"),
        ({"rationales": [[1, 1]]}, "outside"),
        ({"text": " ", "rationales": []}, "text 1 is empty"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path, row, said):
    file = tmp_path / "some.jsonl"
    file.write_text(json.dumps({"id": "x", "text": "two words", "label": "NEG", "rationales": [[0, 1]], **row}))
    with pytest.raises(ValueError, match=said):
        folders.rationales(file)
    file.write_text('{"id": "x"}')
    with pytest.raises(ValueError, match="lacks the column label and rationales and text"):
        folders.rationales(file)


def test_a_text_that_cannot_be_used_is_left_out_and_said(eraser, monkeypatch):
    bad = {"id": "c", "label": "GOOD", "text": "two words", "rationales": [[0, 1]]}
    eraser.write_text(json.dumps(bad) + "\n" + eraser.read_text())
    monkeypatch.setattr(runtime.record, "data", {})
    with pytest.warns(UserWarning, match="1 of 3 rows left out"):
        assert folders.rationales(eraser).names == ("a", "b")
    assert runtime.record.data["movies"].startswith("2 of 2 texts with a rationale, 1 of 3 rows left out (text 1 has")


# Photographs with masks beside them


def write(folder, masks, size=(6, 8), **more):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 100, np.uint8)).save(folder / "images" / "0007.jpg")
    for name, values in masks.items():
        Image.fromarray(values).save(folder / "masks" / name)
    for name, text in more.items():
        (folder / f"{name}.json").write_text(text)


def test_a_folder_gives_pictures_masks_and_classes(tmp_path):
    values = np.zeros((6, 8), np.uint8)
    values[0], values[1], values[2] = 1, 2, 255
    write(tmp_path, {"0007_teddy_bear.png": values}, classes=json.dumps({"teddy bear": [850]}))
    found = folders.photographs(tmp_path)
    (one,) = found.pictures
    assert one.image.shape == (3, 6, 8) and list(one.masks) == ["teddy bear"]
    assert one.masks["teddy bear"].sum(1).tolist() == [8, 8, 0, 0, 0, 0]
    assert found.classes == {"teddy bear": (850,)}
    (tmp_path / "classes.json").unlink()
    assert folders.photographs(tmp_path).classes is None


@pytest.mark.parametrize(
    ("masks", "classes", "message"),
    [
        ({"0008_cat.png": np.zeros((6, 8), np.uint8)}, "{}", "belongs to no photograph"),
        ({"0007_cat.png": np.zeros((5, 8), np.uint8)}, "{}", r"has \(5, 8\) pixels"),
        ({"0007_cat.png": np.zeros((6, 8, 3), np.uint8)}, "{}", "mode RGB, expected one channel"),
        ({}, '{"cat": 281}', "map each category to a list"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, masks, classes, message):
    write(tmp_path, masks, classes=classes)
    with pytest.raises(ValueError, match=message):
        folders.photographs(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no photograph in {tmp_path.name}/images"):
        folders.photographs(tmp_path)


def test_hidden_files_are_skipped_and_counted_and_home_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name in ("1.jpg", "2.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "._1.jpg").write_bytes(b"\0\5\x16\7 of a Mac")
    (folder / "Thumbs.db").write_bytes(b"of Windows")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = folders.pictures("~/holiday")
    assert found.names == ("1.jpg", "2.png") and found.read(0).image.shape == (3, 8, 8)
    assert runtime.record.data["holiday"] == "2 pictures, 1 hidden files left out"
