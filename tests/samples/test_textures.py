"""Textures: a name fixes the picture, all differ, and each kind looks as it says."""

import numpy as np
import pytest

from xai_utils.samples import textures
from xai_utils.samples.textures import EACH, NAMES, SIDE, texture


def field(kind, seed=0):
    return textures._KINDS[kind](np.random.default_rng(seed))


def test_a_name_fixes_the_picture_and_no_two_are_alike():
    drawn = {name: np.asarray(texture(name)) for name in NAMES}
    assert len(NAMES) == EACH * len(textures._KINDS) >= 30
    assert all(one.shape == (SIDE, SIDE, 3) and one.dtype == np.uint8 for one in drawn.values())
    assert len({one.tobytes() for one in drawn.values()}) == len(NAMES)
    texture.cache_clear()
    assert np.array_equal(np.asarray(texture("wood 2")), drawn["wood 2"])


def test_every_texture_has_contrast_but_leaves_room_for_ink():
    for name in NAMES:
        brightness = np.asarray(texture(name)).mean(-1) / 255
        assert 0.02 < brightness.std() < 0.35, name


@pytest.mark.parametrize("kind", textures._KINDS)
def test_a_field_fills_the_square_within_bounds(kind):
    for seed in range(5):
        drawn = field(kind, seed)
        assert drawn.shape == (SIDE, SIDE) and drawn.min() >= 0 and drawn.max() <= 1
        assert not np.array_equal(drawn, field(kind, seed + 100))


def test_a_cloud_is_smoother_the_steeper_its_spectrum():
    rough, smooth = (textures._cloud(np.random.default_rng(1), slope) for slope in (0.0, 2.0))
    assert np.abs(np.diff(rough)).mean() > 5 * np.abs(np.diff(smooth)).mean()


def test_checks_alternate_and_dots_stand_apart():
    assert set(np.unique(field("checks"))) == {0, 1} and 0.4 < field("checks").mean() < 0.6
    assert 0.05 < field("dots").mean() < 0.55
    assert len(np.unique(field("patches"))) == 3


def test_an_unknown_texture_is_refused():
    with pytest.raises(ValueError, match="texture is 'velvet 1'"):
        texture("velvet 1")
