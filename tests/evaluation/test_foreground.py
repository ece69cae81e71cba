"""The foreground as the model sees it, and folders of photographs with masks."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from xai_utils.evaluation import on_pictures
from xai_utils.models.encoding import view_mask
from xai_utils.samples import Picture, folders


def picture(masks, size=(32, 32), name="one"):
    return Picture(np.zeros((3, *size), np.float32), name, masks)


def half(side, size=(32, 32)):
    mask = np.zeros(size, dtype=bool)
    mask[:, : size[1] // 2] = True
    return mask if side == "left" else ~mask


def test_any_mask_counts_or_only_the_explained_class():
    model, two = tiny.model("timm-vit"), picture({"circle": half("left"), "star": half("right")})
    assert on_pictures.masks(model, [two]).all()
    for target, side in ((0, "left"), (2, "right")):
        assert np.array_equal(on_pictures.masks(model, [two], [target], "class")[0], half(side))
    assert not on_pictures.masks(model, [two, picture({})], [1, 1], "class").any()
    named = {"circle": [3, 4], "star": []}
    assert on_pictures.masks(model, [two], [4], "class", named)[0].sum() == half("left").sum()
    assert not on_pictures.masks(model, [two], [0], "class", named).any()


def test_masks_go_through_the_resize_and_crop_of_their_picture():
    model, mask = tiny.model("timm-vit"), half("left", (48, 64))
    (found,) = on_pictures.masks(model, [picture({"a": mask}, (48, 64))])
    assert found.shape == (32, 32) and np.array_equal(found, view_mask(mask, model.preprocessing))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: on_pictures.masks(m, [picture({})], match="all"), "match is 'all'"),
        (lambda m: on_pictures.masks(m, [picture({})], match="class"), "needs a class for each of 1"),
        (lambda m: on_pictures.masks(m, [picture({"a": half("left", (8, 8))})]), r"has \(8, 8\) pixels, the picture"),
        (lambda _: on_pictures.masks(tiny.model("bert"), [picture({})]), "reads texts"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny.model("timm-vit"))


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
