"""Seeded scenes whose explanation is known: handwritten digits on photographs, with exact masks.

A scene is a picture of one to three digits of different classes, placed without overlap on a crop of a
photograph. Which pixels belong to which class is known exactly, so a heat map can be marked right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 112  #: side of a scene, pixels
PATCH = 8  #: side of a patch of the bundled vision models, pixels
CLASSES = tuple(str(digit) for digit in range(10))
BACKGROUND = len(CLASSES)  #: label of a patch that shows no digit
SPLITS = ("train", "test")

# Photographs shipped inside scikit-image; the test pictures are never seen in training.
_PICTURES = {
    "train": ("astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coins.png", "grass.png",
              "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg"),
    "test": ("chelsea.png", "coffee.png", "gravel.png", "motorcycle_left.png"),
}  # fmt: skip
_SIDES = {1: (32, 80), 2: (28, 56), 3: (28, 46)}  # least and greatest side of a digit, pixels
_TEST_DIGITS = 360  # of 1,797; drawn once with a fixed seed


@dataclass(frozen=True)
class Scene:
    """One picture and its truth.

    Attributes:
        image: ``(3, SIZE, SIZE)`` float32 in [0, 1].
        masks: ``(object, SIZE, SIZE)`` bool, the pixels each digit is drawn on; they never overlap.
        classes: class index of each object, in the order of ``masks``; all different.
        seed: the seed that draws this scene again.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: tuple[int, ...]
    seed: int

    def mask_of(self, class_index: int) -> np.ndarray:
        """Return the ``(SIZE, SIZE)`` mask of one class; ``ValueError`` if it is not in the scene."""
        if class_index not in self.classes:
            raise ValueError(f"class {class_index} is not in this scene; it shows {list(self.classes)}.")
        return self.masks[self.classes.index(class_index)]


def draw(seed: int, objects: int = 1, split: str = "test", ease: float = 0.0) -> Scene:
    """Draw one scene; the same arguments give the same picture.

    Args:
        seed: any non-negative integer.
        objects: how many digits, 1 to 3.
        split: ``"train"`` or ``"test"``: disjoint handwriting and disjoint photographs.
        ease: 0 draws the scenes everything is measured on; up to 1 fades the background and enlarges single
            digits (a curriculum for training only).
    """
    if objects not in _SIDES:
        raise ValueError(f"objects is {objects}, expected 1, 2 or 3.")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {SPLITS}.")
    noise = np.random.default_rng([seed, objects, SPLITS.index(split)])
    image = _background(noise, split, ease)
    drawings, labels = _digits(split)
    classes = noise.choice(len(CLASSES), size=objects, replace=False)
    masks = np.zeros((objects, SIZE, SIZE), dtype=bool)
    for index, (top, left, side) in enumerate(_places(noise, objects, ease)):
        drawing = drawings[noise.choice(np.flatnonzero(labels == classes[index]))]
        ink = _ink(drawing, side)
        window = np.s_[top : top + side, left : left + side]
        colour = _colour(noise, image[window].mean())
        image[window] = (1 - ink) * image[window] + ink * colour
        masks[index][window] = ink[..., 0] >= 0.5
    return Scene(image.transpose(2, 0, 1).copy(), masks, tuple(int(c) for c in classes), seed)


def patch_labels(scene: Scene, least: float = 0.2) -> np.ndarray:
    """Return ``(SIZE / PATCH, SIZE / PATCH)`` class indices; ``BACKGROUND`` where ink covers < ``least``."""
    grid = SIZE // PATCH
    cover = scene.masks.reshape(-1, grid, PATCH, grid, PATCH).mean((2, 4))
    labels = np.array(scene.classes)[cover.argmax(0)]
    return np.where(cover.max(0) >= least, labels, BACKGROUND)


def _background(noise: np.random.Generator, split: str, ease: float) -> np.ndarray:
    picture = _pictures(split)[noise.integers(len(_PICTURES[split]))]
    width, height = picture.size
    side = noise.uniform(0.3, 0.9) * min(width, height)
    left, top = noise.uniform(0, width - side), noise.uniform(0, height - side)
    crop = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    image = np.asarray(crop, dtype=np.float32) / 255
    if noise.random() < 0.5:
        image = image[:, ::-1]
    return ((1 - ease) * image + ease * image.mean((0, 1))).astype(np.float32)


def _places(noise: np.random.Generator, objects: int, ease: float) -> list[tuple[int, int, int]]:
    """Choose ``(top, left, side)`` of each digit so that no two squares overlap."""
    least, most = _SIDES[objects]
    while True:
        sides = noise.integers(round(least + ease * (most - least) / 2), most + 1, size=objects)
        corners = noise.integers(0, SIZE - sides + 1, size=(2, objects))
        places = [(int(t), int(el), int(s)) for t, el, s in zip(*corners, sides, strict=True)]
        if all(_apart(a, b) for i, a in enumerate(places) for b in places[:i]):
            return places


def _apart(one: tuple[int, int, int], two: tuple[int, int, int]) -> bool:
    return any(a + one[2] <= b or b + two[2] <= a for a, b in zip(one[:2], two[:2], strict=True))


def _ink(drawing: np.ndarray, side: int) -> np.ndarray:
    """Enlarge an 8 x 8 drawing to ``(side, side, 1)`` opacity in [0, 1] with edges about one pixel wide."""
    smooth = Image.fromarray(drawing).resize((side, side), Image.Resampling.BICUBIC)
    sharpness = side / 8
    return np.clip((np.asarray(smooth)[..., None] - 0.45) * sharpness + 0.5, 0, 1)


def _colour(noise: np.random.Generator, brightness: float) -> np.ndarray:
    """Draw an ink colour clearly darker or lighter than the pixels it will cover."""
    dark = brightness > 0.5 if abs(brightness - 0.5) > 0.15 else noise.random() < 0.5
    return (noise.uniform(0.0, 0.25, 3) if dark else noise.uniform(0.75, 1.0, 3)).astype(np.float32)


@cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    chosen = order[:_TEST_DIGITS] if split == "test" else order[_TEST_DIGITS:]
    return (data.images[chosen] / 16).astype(np.float32), data.target[chosen]


@cache
def _pictures(split: str) -> list[Image.Image]:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return [Image.open(folder / name).convert("RGB") for name in _PICTURES[split]]
