"""Scenes: the same seed draws the same picture, and the masks are exactly where the ink is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import steady

from xai_utils.samples import scenes
from xai_utils.samples.scenes import BACKGROUND, CLASSES, PATCH, SIZE, draw, patch_labels

drawn = given(seed=st.integers(0, 10_000), objects=st.integers(1, 3), split=st.sampled_from(scenes.SPLITS))


def equal(one, two):
    return one.image.tobytes() == two.image.tobytes() and one.masks.tobytes() == two.masks.tobytes()


# Properties


@steady
@drawn
def test_the_same_arguments_draw_the_same_scene(seed, objects, split):
    scene = draw(seed, objects, split)
    assert equal(scene, draw(seed, objects, split)) and scene.classes == draw(seed, objects, split).classes
    assert not equal(scene, draw(seed + 1, objects, split))
    assert not equal(scene, draw(seed, objects, "train" if split == "test" else "test"))
    assert scene.seed == seed


def test_scenes_are_those_of_the_first_day():  # bundled models were trained on them
    assert [draw(seed).classes for seed in range(8)] == [(8,), (7,), (1,), (7,), (2,), (8,), (5,), (7,)]
    assert [draw(seed, 3).classes for seed in range(3)] == [(4, 0, 5), (1, 9, 2), (7, 0, 9)]
    areas = [draw(seed, 2).masks.sum((1, 2)) for seed in range(3)]
    np.testing.assert_allclose(areas, [[1038, 457], [404, 697], [328, 449]], atol=5)


@steady
@drawn
def test_a_scene_is_a_picture_with_a_mask_for_each_different_digit(seed, objects, split):
    scene = draw(seed, objects, split)
    assert scene.image.shape == (3, SIZE, SIZE) and scene.image.dtype == np.float32
    assert scene.image.min() >= 0 and scene.image.max() <= 1
    assert scene.masks.shape == (objects, SIZE, SIZE) and scene.masks.dtype == bool
    assert len(set(scene.classes)) == objects and set(scene.classes) <= set(range(len(CLASSES)))
    assert all(type(index) is int for index in scene.classes)
    assert scene.masks.any((1, 2)).all() and scene.masks.sum(0).max() == 1  # none empty, no overlap


@steady
@drawn
def test_masks_are_where_one_colour_of_ink_is(seed, objects, split):
    scene = draw(seed, objects, split)
    pixels = scene.image.transpose(1, 2, 0)
    for mask in scene.masks:
        colours, counts = np.unique(pixels[mask], axis=0, return_counts=True)
        ink = (pixels == colours[counts.argmax()]).all(-1)
        assert ink[mask].mean() > 0.4 and not ink[~mask].any()
        rows, columns = np.nonzero(mask)
        assert 16 <= rows.max() - rows.min() + 1 <= 80 and 4 <= columns.max() - columns.min() + 1 <= 80


@steady
@drawn
def test_patches_are_labelled_by_the_ink_that_covers_them(seed, objects, split):
    scene = draw(seed, objects, split)
    found = patch_labels(scene)
    for row, column in np.ndindex(SIZE // PATCH, SIZE // PATCH):
        window = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        shares = [mask[window].sum() / PATCH**2 for mask in scene.masks]
        most = max(shares)
        assert found[row, column] == (scene.classes[shares.index(most)] if most >= 0.2 else BACKGROUND)


def test_a_patch_is_background_below_the_least_cover():
    scene = draw(0)
    touched = scene.masks[0].reshape(14, PATCH, 14, PATCH).any((1, 3))
    full = scene.masks[0].reshape(14, PATCH, 14, PATCH).all((1, 3))
    assert ((patch_labels(scene, least=1e-6) != BACKGROUND) == touched).all()
    assert ((patch_labels(scene, least=1.0) != BACKGROUND) == full).all() and touched.sum() > full.sum()


def test_each_class_has_its_mask():
    scene = draw(3, 3)
    for place, index in enumerate(scene.classes):
        assert (scene.mask_of(index) == scene.masks[place]).all()


def test_all_classes_are_drawn_about_as_often():
    counts = np.bincount([draw(seed, split="train").classes[0] for seed in range(300)], minlength=10)
    assert counts.min() > 12 and counts.max() < 55


def test_splits_share_no_handwriting_and_no_photograph():
    seen = {
        split: {drawing.tobytes() for drawing in scenes._digits(split)[0]}
        | {scenes._picture(name).tobytes() for name in scenes._PICTURES[split]}
        for split in ("train", "test", "varied")
    }
    assert len(seen["train"]) == 1437 + 11 and len(seen["test"]) == 360 + 4
    for split in ("train", "varied"):
        assert not seen[split] & seen["test"] and set(scenes._digits(split)[1]) == set(range(10))


def test_backgrounds_come_by_turns_and_are_many():
    some = [draw(seed, split="backgrounds") for seed in range(len(scenes.BACKGROUNDS) + 2)]
    assert len(scenes.BACKGROUNDS) >= 30 and len(set(scenes.BACKGROUNDS)) == len(scenes.BACKGROUNDS)
    assert tuple(one.background for one in some[:-2]) == scenes.BACKGROUNDS
    assert [one.background for one in some[-2:]] == list(scenes.BACKGROUNDS[:2])
    assert not (some[0].image == some[-2].image).all()  # another part of it, with another digit
    assert {draw(seed).background for seed in range(30)} == set(scenes._PICTURES["test"])
    handwriting = {tuple(scenes._digits(split)[0].flatten()) for split in ("test", "backgrounds")}
    assert len(handwriting) == 1


def test_ease_fades_the_background_and_keeps_the_test_hard():
    hard, easy = draw(5, split="train"), draw(5, split="train", ease=1.0)
    assert equal(hard, draw(5, split="train", ease=0.0))
    assert easy.image[:, ~easy.masks[0]].std(1).max() < hard.image[:, ~hard.masks[0]].std(1).max()
    assert np.median(np.abs(easy.image - np.median(easy.image, (1, 2), keepdims=True))) < 1e-6
    sides = [[draw(seed, split="train", ease=ease).masks.any((0, 2)).sum() for seed in range(40)] for ease in (0, 1)]
    assert np.mean(sides[1]) > np.mean(sides[0]) + 5


# Refusals


@pytest.mark.parametrize("objects", [0, 4, -1])
def test_other_numbers_of_objects_are_refused(objects):
    with pytest.raises(ValueError, match=f"objects is {objects}, expected 1, 2 or 3"):
        draw(0, objects)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"split is 'validation', expected one of: train, test, varied, backgrounds"):
        draw(0, split="validation")


def test_a_class_that_is_not_shown_has_no_mask():
    scene = draw(1)
    with pytest.raises(ValueError, match=r"class 3 is not in this scene; it shows \[7\]"):
        scene.mask_of(3)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        draw(-1)


@pytest.mark.parametrize("ease", [-1.0, 1.5])
def test_an_ease_that_is_no_share_is_refused(ease):
    with pytest.raises(ValueError, match=f"ease is {ease}"):
        draw(0, ease=ease)
