"""Seeded scenes whose explanation is known: handwritten digits on photographs or textures, with exact masks.

A scene is a picture of one to three digits of different classes, placed without overlap on a crop of a
photograph, or of a texture. Which pixels belong to which class is known exactly, so a heat map can be marked right or
wrong. Scenes on one background are alike, so each says which it has, and intervals resample backgrounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from PIL import Image

from xai_utils import check
from xai_utils.samples import textures

SIZE = 112  #: side of a scene, pixels
PATCH = 8  #: side of a patch of the bundled vision models, pixels
CLASSES = tuple(str(digit) for digit in range(10))
BACKGROUND = len(CLASSES)  #: label of a patch that shows no digit
SPLITS = ("train", "test", "varied", "backgrounds")

# Photographs shipped inside scikit-image and scikit-learn; the test pictures are never seen in training.
_PICTURES = {
    "train": ("astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coins.png", "grass.png",
              "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg"),
    "test": ("chelsea.png", "coffee.png", "gravel.png", "motorcycle_left.png"),
}  # fmt: skip
_PICTURES["varied"] = (*_PICTURES["train"], "china.jpg", "flower.jpg")
BACKGROUNDS = (*textures.NAMES, *_PICTURES["test"])
_SIDES = {1: (40, 80), 2: (32, 56), 3: (28, 46)}  # least and greatest side of a digit, pixels
_TEST_DIGITS = 360  # of 1,797; drawn once with a fixed seed


@dataclass(frozen=True)
class Scene:
    """One picture and its truth.

    Attributes:
        image: ``(3, SIZE, SIZE)`` float32 in [0, 1].
        masks: ``(object, SIZE, SIZE)`` bool, the pixels each digit is drawn on; they never overlap.
        classes: class index of each object, in the order of ``masks``; all different.
        seed: the seed that draws this scene again.
        background: file name of the photograph, or name of the texture, behind the digits; of the first of two.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: tuple[int, ...]
    seed: int
    background: str

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
        split: ``"train"`` or ``"test"``: disjoint handwriting and disjoint photographs. ``"varied"`` is a harder
            training split: more photographs, recoloured, turned and joined, and slanted handwriting.
            ``"backgrounds"`` has the handwriting of ``"test"`` on each of :data:`BACKGROUNDS` by turns (no model here
            was trained on any of them), so that results do not hang on four photographs.
        ease: 0 draws the scenes everything is measured on; up to 1 fades the background and enlarges single
            digits (a curriculum for training only).

    Raises:
        ValueError: another number of objects, an unknown split, or an ease outside [0, 1].
    """
    if objects not in _SIDES:
        raise ValueError(f"objects is {objects}, expected 1, 2 or 3.")
    check.one_of("split", split, SPLITS)
    check.share("ease", ease)
    noise = np.random.default_rng([seed, objects, SPLITS.index(split)])
    background, image = _background(noise, split, ease, seed)
    drawings, labels = _digits(split)
    classes = noise.choice(len(CLASSES), size=objects, replace=False)
    masks = np.zeros((objects, SIZE, SIZE), dtype=bool)
    for index, (top, left, side) in enumerate(_places(noise, objects, ease)):
        drawing = drawings[noise.choice(np.flatnonzero(labels == classes[index]))]
        ink = _ink(_slant(noise, drawing, side) if split == "varied" else _enlarge(drawing, side))
        window = np.s_[top : top + side, left : left + side]
        colour = _colour(noise, image[window].mean())
        image[window] = (1 - ink) * image[window] + ink * colour
        masks[index][window] = ink[..., 0] >= 0.5
    return Scene(image.transpose(2, 0, 1).copy(), masks, tuple(int(c) for c in classes), seed, background)


def patch_labels(scene: Scene, least: float = 0.2) -> np.ndarray:
    """Return ``(SIZE / PATCH, SIZE / PATCH)`` class indices; ``BACKGROUND`` where ink covers < ``least``."""
    grid = SIZE // PATCH
    cover = scene.masks.reshape(-1, grid, PATCH, grid, PATCH).mean((2, 4))
    labels = np.array(scene.classes)[cover.argmax(0)]
    return np.where(cover.max(0) >= least, labels, BACKGROUND)


def _background(noise: np.random.Generator, split: str, ease: float, seed: int) -> tuple[str, np.ndarray]:
    name, image = _cut(noise, split, seed)
    if split == "varied":
        image = _join(noise, _recolour(noise, image), _recolour(noise, _cut(noise, split, seed)[1]))
    return name, ((1 - ease) * image + ease * image.mean((0, 1))).astype(np.float32)


def _cut(noise: np.random.Generator, split: str, seed: int) -> tuple[str, np.ndarray]:
    """Choose a background, at random or by turns, and return its name and a random part of it."""
    names = _PICTURES.get(split, BACKGROUNDS)
    name = names[noise.integers(len(names)) if split in _PICTURES else seed % len(names)]
    return name, _crop(noise, textures.texture(name) if name in textures.NAMES else _picture(name))


def _crop(noise: np.random.Generator, picture: Image.Image) -> np.ndarray:
    """Cut a random square out of a picture, perhaps mirrored: ``(SIZE, SIZE, 3)`` in [0, 1]."""
    width, height = picture.size
    side = noise.uniform(0.3, 0.9) * min(width, height)
    left, top = noise.uniform(0, width - side), noise.uniform(0, height - side)
    crop = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    image = np.asarray(crop, dtype=np.float32) / 255
    return image[:, ::-1] if noise.random() < 0.5 else image


def _recolour(noise: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exchange channels, perhaps invert, change contrast and brightness, and turn by a multiple of 90°."""
    image = np.rot90(image, int(noise.integers(4)))[..., noise.permutation(3)]
    image = 1 - image if noise.random() < 0.3 else image
    changed = (image - image.mean()) * noise.uniform(0.5, 1.5) + image.mean() + noise.uniform(-0.15, 0.15)
    return np.clip(changed, 0, 1)


def _join(noise: np.random.Generator, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Put two pictures side by side along a random line, or on top of each other, or keep the first."""
    how = noise.random()
    if how < 0.4:
        angle, offset = noise.uniform(0, 2 * np.pi), noise.uniform(-0.3, 0.3)
        row, column = np.mgrid[-0.5 : 0.5 : SIZE * 1j, -0.5 : 0.5 : SIZE * 1j]
        return np.where((row * np.sin(angle) + column * np.cos(angle) > offset)[..., None], other, one)
    share = noise.uniform(0.2, 0.5) if how < 0.7 else 0.0
    return (1 - share) * one + share * other


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


def _enlarge(drawing: np.ndarray, side: int) -> np.ndarray:
    """Enlarge an 8 x 8 drawing to ``(side, side)``."""
    return np.asarray(Image.fromarray(drawing).resize((side, side), Image.Resampling.BICUBIC))


def _slant(noise: np.random.Generator, drawing: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a drawing, turned by up to 10° and sheared and stretched by up to a tenth."""
    angle, shear, wide, high = noise.uniform(-0.17, 0.17), *noise.uniform(-0.1, 0.1, 3)
    turn = np.array([[np.cos(angle), np.sin(angle) + shear], [-np.sin(angle), np.cos(angle)]])
    matrix = turn * np.array([1 + wide, 1 + high]) * 8 / side
    shift = 4 - matrix @ [side / 2, side / 2]
    affine = (*matrix[0], shift[0], *matrix[1], shift[1])
    size = (side, side)
    return np.asarray(
        Image.fromarray(drawing).transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    )


def _ink(smooth: np.ndarray) -> np.ndarray:
    """Sharpen ``(side, side)`` to opacity ``(side, side, 1)`` in [0, 1] with edges about one pixel wide."""
    return np.clip((smooth[..., None] - 0.45) * len(smooth) / 8 + 0.5, 0, 1)


def _colour(noise: np.random.Generator, brightness: float) -> np.ndarray:
    """Draw an ink colour clearly darker or lighter than the pixels it will cover."""
    dark = brightness > 0.5 if abs(brightness - 0.5) > 0.15 else noise.random() < 0.5
    return (noise.uniform(0.0, 0.15, 3) if dark else noise.uniform(0.85, 1.0, 3)).astype(np.float32)


@cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # seconds to import, for those who draw scenes only

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    chosen = order[:_TEST_DIGITS] if split in ("test", "backgrounds") else order[_TEST_DIGITS:]
    return (data.images[chosen] / 16).astype(np.float32), data.target[chosen]


@cache
def _picture(name: str) -> Image.Image:
    folders = [resources.files("skimage.data"), resources.files("sklearn.datasets.images")]
    (found,) = [folder / name for folder in folders if (folder / name).is_file()]
    return Image.open(str(found)).convert("RGB")
