"""The user's own folder of photographs with masks, in the manner of COCO's categories.

The folder holds ``images/STEM.jpg`` (or ``.png``, ``.jpeg``), any number of ``masks/STEM_CATEGORY.png`` for each, and
perhaps ``classes.json``. A mask is an 8-bit picture of its photograph's size: 0 background, 1, 2, … the instances of
the category, 255 a region that is left out (COCO's crowds), which counts as background here. ``classes.json`` maps each
category to the list of the model's class indices that mean it; without it a category and a class must share a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from xai_utils import runtime
from xai_utils.samples import bundled
from xai_utils.samples.kinds import Picture

IMAGES = (".jpg", ".jpeg", ".png")
LEFT_OUT = 255  #: mask value of a region that belongs to no object


@dataclass(frozen=True)
class Photographs:
    """Pictures with masks by category, and what the categories are called by the model.

    Attributes:
        pictures: each with its masks; those without any mask included.
        classes: category to class indices, or ``None`` where names are to be compared.
    """

    pictures: tuple[Picture, ...]
    classes: Mapping[str, tuple[int, ...]] | None


def load(folder: str | Path) -> Photographs:
    """Read a folder of photographs with masks.

    Raises:
        FileNotFoundError: no such folder, or no photograph in its ``images``.
        ValueError: a mask that belongs to no photograph, has another size, or is no 8-bit picture of one channel; a
            ``classes.json`` that is no object of lists of whole numbers.
    """
    folder = Path(folder)
    files = sorted(path for path in (folder / "images").glob("*") if path.suffix.lower() in IMAGES)
    if not files:
        raise FileNotFoundError(
            f"no photograph in {folder.name}/images; expected {folder.name}/images/STEM.jpg and "
            f"{folder.name}/masks/STEM_CATEGORY.png."
        )
    masks = _masks(folder, {path.stem for path in files})
    pictures = tuple(_picture(path, masks[path.stem]) for path in files)
    runtime.record.data.pop("picture", None)  # one line for all of them
    count = sum(map(len, masks.values()))
    runtime.record.data["photographs"] = f"{folder.name}, {len(pictures)} pictures, {count} masks"
    return Photographs(pictures, _classes(folder / "classes.json"))


def _masks(folder: Path, stems: set[str]) -> dict[str, dict[str, Path]]:
    """Sort the mask files by photograph and category; underscores in a category are blanks."""
    found: dict[str, dict[str, Path]] = {stem: {} for stem in stems}
    for path in sorted((folder / "masks").glob("*.png")):
        owners = [stem for stem in stems if path.stem.startswith(f"{stem}_")]
        if not owners:
            raise ValueError(f"the mask {path.name} belongs to no photograph; its name should be STEM_CATEGORY.png.")
        stem = max(owners, key=len)
        found[stem][path.stem[len(stem) + 1 :].replace("_", " ")] = path
    return found


def _picture(path: Path, masks: Mapping[str, Path]) -> Picture:
    picture = bundled.picture(path)
    return replace(picture, masks={name: _read(file, picture) for name, file in masks.items()})


def _read(path: Path, picture: Picture) -> np.ndarray:
    with Image.open(path) as stored:
        if stored.mode not in ("L", "P", "1"):
            raise ValueError(f"the mask {path.name} has pixels of mode {stored.mode}, expected one channel of 8 bits.")
        values = np.asarray(stored).astype(np.uint8)
    if values.shape != picture.image.shape[1:]:
        raise ValueError(
            f"the mask {path.name} has {values.shape} pixels (height, width), its photograph {picture.image.shape[1:]}."
        )
    return (values > 0) & (values < LEFT_OUT)


def _classes(path: Path) -> dict[str, tuple[int, ...]] | None:
    if not path.is_file():
        return None
    listed = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(listed, dict) or not all(
        isinstance(indices, list) and all(isinstance(i, int) for i in indices) for indices in listed.values()
    ):
        raise ValueError(f"{path.name} should map each category to a list of class indices, such as {{'bear': [294]}}.")
    return {name: tuple(indices) for name, indices in listed.items()}
