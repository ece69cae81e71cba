"""Scenes with a watermark that gives the class away: a planted shortcut with an exact mask.

The watermark is a small badge in one of ten colours, one for each class, at a random place beside the digit. A model
trained where colour and class agree may read the badge in place of the digit; whether it does is measured by showing
it a badge of another class.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from xai_utils import check
from xai_utils.samples import scenes
from xai_utils.samples.scenes import Scene

SIDE = 12  #: side of the badge, pixels
FRAME = 2  #: width of its frame, pixels


@dataclass(frozen=True)
class Marked:
    """One scene with a badge and its truth.

    Attributes:
        image: ``(3, SIZE, SIZE)`` float32 in [0, 1].
        plain: the same scene without the badge.
        mark: ``(SIZE, SIZE)`` bool, the pixels of the badge; it never touches the digit's drawing.
        digit: ``(SIZE, SIZE)`` bool, the pixels of the digit.
        classes: class of the digit, class of the badge.
    """

    image: np.ndarray
    plain: np.ndarray
    mark: np.ndarray
    digit: np.ndarray
    classes: tuple[int, int]


def draw(seed: int, agree: float, split: str = "test") -> Marked:
    """Draw a scene of one digit and put a badge on it; the same arguments give the same picture.

    Args:
        seed: of the scene and of the badge.
        agree: probability that the badge shows the digit's class; otherwise it shows another one, any with equal
            probability.
        split: as in :func:`scenes.draw`.
    """
    check.share("agree", agree)
    return put(scenes.draw(seed, 1, split), np.random.default_rng([seed, 7, scenes.SPLITS.index(split)]), agree)


def put(scene: Scene, noise: np.random.Generator, agree: float) -> Marked:
    """Put a badge on a scene of one digit, at a place where nothing of the digit is hidden."""
    if len(scene.classes) != 1:
        raise ValueError(f"the scene shows {len(scene.classes)} digits, expected one.")
    (digit,) = scene.classes
    others = [c for c in range(len(scenes.CLASSES)) if c != digit]
    badge = digit if noise.random() < agree else int(noise.choice(others))
    top, left = _place(noise, scene.masks[0])
    window = np.s_[top : top + SIDE, left : left + SIDE]
    mark = np.zeros((scenes.SIZE, scenes.SIZE), dtype=bool)
    mark[window] = True
    image = scene.image.copy()
    image[(slice(None), *window)] = drawing(badge)
    return Marked(image, scene.image, mark, scene.masks[0], (digit, badge))


def drawing(label: int) -> np.ndarray:
    """Return the badge of a class, ``(3, SIDE, SIDE)`` in [0, 1]: a field in the colour of the class, framed white."""
    field = np.array(colorsys.hsv_to_rgb(label / len(scenes.CLASSES), 1.0, 0.9), dtype=np.float32)
    badge = np.ones((3, SIDE, SIDE), dtype=np.float32)
    badge[:, FRAME:-FRAME, FRAME:-FRAME] = field[:, None, None]
    return badge


def _place(noise: np.random.Generator, digit: np.ndarray) -> tuple[int, int]:
    """Choose ``(top, left)`` so that the badge misses the digit's drawing; the farthest corner if no draw does."""
    most = scenes.SIZE - SIDE
    for _ in range(200):
        top, left = (int(at) for at in noise.integers(0, most + 1, 2))
        if not digit[top : top + SIDE, left : left + SIDE].any():
            return top, left
    corners = [(0, 0), (0, most), (most, 0), (most, most)]
    return min(corners, key=lambda at: digit[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE].sum())
