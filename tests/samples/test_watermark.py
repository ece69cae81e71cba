"""The planted shortcut: badges where and how they should be, and a model that reads them."""

import json

import numpy as np
import pytest
import torch

from xai_utils import models, runtime, samples
from xai_utils.samples import scenes, sets, watermark
from xai_utils.train import vision


@pytest.mark.parametrize("seed", range(8))
def test_a_badge_hides_nothing_of_the_digit_and_changes_nothing_else(seed):
    drawn = watermark.draw(seed, 0.0)
    again = watermark.draw(seed, 0.0)
    assert np.array_equal(drawn.image, again.image) and drawn.classes[0] != drawn.classes[1]
    assert drawn.mark.sum() == watermark.SIDE**2 and not (drawn.mark & drawn.digit).any()
    changed = (drawn.image != drawn.plain).any(0)
    assert changed.any() and not (changed & ~drawn.mark).any()
    assert np.array_equal(drawn.plain, scenes.draw(seed, 1).image)
    rows, columns = (np.flatnonzero(drawn.mark.any(axis)) for axis in (1, 0))
    window = drawn.image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.array_equal(window, watermark.drawing(drawn.classes[1]))


def test_badges_agree_as_often_as_asked_and_differ_from_each_other():
    agree = np.mean([len(set(watermark.draw(seed, 0.8).classes)) == 1 for seed in range(150)])
    assert 0.7 < agree < 0.9
    assert all(len(set(watermark.draw(seed, 1.0).classes)) == 1 for seed in range(20))
    badges = [watermark.drawing(label) for label in range(10)]
    gaps = [np.abs(a - b).max() for i, a in enumerate(badges) for b in badges[:i]]
    assert min(gaps) > 0.3  # neighbouring hues: 0.36 of the brightness in one channel


def test_marked_pictures_carry_both_masks_by_class_and_a_name_to_find_them_again():
    (one,) = samples.marked_pictures(1, first=4)
    found = samples.picture("marked:4")
    assert np.array_equal(one.image, found.image) and one.name == found.name == "marked:4"
    (textured,) = samples.marked_pictures(1, first=4, split="backgrounds")
    again = samples.picture("badged:4")
    assert np.array_equal(textured.image, again.image) and textured.name == again.name == "badged:4"
    assert textured.background == scenes.BACKGROUNDS[4] == sets.cluster("badged:4")
    assert not np.array_equal(textured.image, one.image)
    drawn = watermark.draw(4, 0.0)
    assert set(one.masks) == {str(c) for c in drawn.classes} and one.label == drawn.classes[0]
    assert np.array_equal(one.masks[str(drawn.classes[1])], drawn.mark)


def test_the_bundled_model_follows_the_badge_as_its_card_says():
    model = models.load("vit-shortcut")
    drawn = [watermark.draw(seed, 0.0) for seed in range(2000, 2060)]
    with torch.inference_mode():
        best = model.module(vision.normalised([one.image for one in drawn])).argmax(1)
        bare = model.module(vision.normalised([one.plain for one in drawn])).argmax(1)
    digit, badge = torch.tensor([one.classes for one in drawn]).T
    assert (best == badge).double().mean() > 0.9 and (bare == digit).double().mean() < 0.3
    card = json.loads((runtime.DATA / "models" / "vit-shortcut" / "card.json").read_text())
    assert card["measured"]["disagreeing_follows_badge"] > 0.95 and card["measured"]["no_badge_top1"] < 0.15


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="agree"):
        watermark.draw(0, 1.5)
    with pytest.raises(ValueError, match="2 digits"):
        watermark.put(scenes.draw(0, 2), np.random.default_rng(0), 1.0)
