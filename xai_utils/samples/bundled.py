"""Samples to explain: bundled reviews, scenes, photographs, SST-2, or the user's own sentence or picture."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from xai_utils import check, runtime, tables
from xai_utils.samples import scenes, watermark
from xai_utils.samples.kinds import Picture, Text
from xai_utils.samples.passages import said_if_missing

SENTIMENT = ("negative", "positive")
PHOTOGRAPHS = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "astronaut": "astronaut.png",
    "rocket": "rocket.jpg",
}
SCENES = {"test": "scene", "backgrounds": "ground"}  #: held-out splits of scenes, and how their pictures' names begin
BADGED = {"test": "marked", "backgrounds": "badged"}  #: the same of scenes of one digit with a badge of another class
REVIEWS = runtime.DATA / "texts" / "film_reviews.jsonl"


def text(sentence: str, second: str | None = None) -> Text:
    """Take the user's own sentence, or a pair such as a question and an answer; ``ValueError`` if one is empty."""
    sentence, second = check.text("the sentence", sentence), second and check.text("the second sentence", second)
    for one in (sentence,) if second is None else (sentence, second):
        if not one.strip():
            raise ValueError(f"the sentence is {one!r}; expected at least one word.")
    whole = sentence if second is None else f"{sentence}\n{second}"
    runtime.record.data["sentence"] = whole
    return Text(whole, second=0 if second is None else len(sentence) + 1)


def reviews(count: int | None = None) -> list[Text]:
    """Return the bundled film-review sentences with labels and rationales; the first ``count``, or all."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[:count]]
    runtime.record.data["film_reviews"] = f"{len(found)} sentences of data/texts/film_reviews.jsonl"
    return [
        Text(row["text"], row["id"], row["label"], row["kind"], tuple(map(tuple, row["rationale"])))  # type: ignore[arg-type]
        for row in found
    ]


def paragraphs(count: int, seed: int, most: int = 8) -> list[Text]:
    """Join 1 to ``most`` bundled reviews at random, ``count`` times: texts of lengths that no one sentence has."""
    noise, bundled = np.random.default_rng(seed), reviews()
    chosen = (noise.choice(len(bundled), noise.integers(1, most + 1), replace=False) for _ in range(count))
    return [Text(" ".join(bundled[i].text for i in some), f"paragraph {n}") for n, some in enumerate(chosen)]


def sst2(split: str = "validation") -> list[Text]:
    """Return GLUE SST-2 through ``datasets`` (from the hub or its cache); ``label`` is ``None`` for the test split."""
    return _fetched("SST-2", ("nyu-mll/glue", "sst2"), split, "sentence")


def imdb(split: str = "test") -> list[Text]:
    """Return the film reviews of IMDB (25,000 a split) through ``datasets``, from the hub or its cache."""
    return _fetched("IMDB", ("stanfordnlp/imdb",), split, "text")


def _fetched(title: str, source: tuple[str, ...], split: str, column: str) -> list[Text]:
    import datasets

    name = title.lower().replace("-", "")
    with said_if_missing(f"{title} ({split})", "take the bundled samples.reviews()"):
        rows = datasets.load_dataset(*source, split=split)
    runtime.record.data[name] = f"{' '.join(source)}, {split}, {len(rows)} {column}s"
    return [
        Text(row[column].strip(), f"{name} {split} {row.get('idx', n)}", row["label"] if row["label"] >= 0 else None)
        for n, row in enumerate(rows)
    ]


def labelled(path: str | Path) -> tuple[list[Text], tuple[str, ...]]:
    """Read texts with labels from the user's own file.

    Args:
        path: with the columns ``text`` and ``label``, see :func:`tables.rows_of`. A pair has its second text in
            a column ``text_b``, or behind a tab in ``text``.

    Returns:
        The texts, labels as indices, and the names of the classes in sorted order. A row without a text or a label is
        left out and counted, in a warning and in the record; the names of the others still count it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a column is missing, no row can be used, or all labels are the same.
    """
    path = Path(path).expanduser()
    rows = tables.rows_of(path, ("text", "label"))
    read, bad = tables.each(path, rows, _with_label)
    classes = tuple(sorted({label for _, _, label in read}))
    if len(classes) < 2:
        raise ValueError(f"every label in {path.name} is {classes[0]!r}; a classifier needs at least two classes.")
    runtime.record.data[path.stem] = f"{path.name}, {len(read)} texts{bad}"
    places = {name: place for place, name in enumerate(classes)}
    return [replace(one, name=f"{path.stem} {n}", label=places[label]) for n, one, label in read], classes


def _with_label(number: int, row: Mapping[str, Any]) -> tuple[int, Text, str]:
    """Return the place of a row, counted from 0, its text and the name of its class."""
    for name in ("text", "label"):
        if row[name] is None or not str(row[name]).strip():
            raise ValueError(f"row {number} has no {name}.")
    return number - 1, _pair(str(row["text"]), row.get("text_b")), str(row["label"])


def _pair(first: str, second: str | None) -> Text:
    """Make one text, or a pair of a second column or of what stands behind a tab."""
    if not second:
        first, _, second = first.partition("\t")
    return Text(f"{first}\n{second}", second=len(first) + 1) if second.strip() else Text(first)


def scene_pictures(count: int, objects: int = 1, first: int = 0, split: str = "test") -> list[Picture]:
    """Return held-out scenes ``first`` to ``first + count - 1`` with exact masks.

    Args:
        count: how many.
        objects: digits in each, 1 to 3.
        first: seed of the first.
        split: ``"test"``: on four photographs. ``"backgrounds"``: on each of :data:`scenes.BACKGROUNDS` by turns; give
            ``clusters=[one.background for one in pictures]`` to intervals and tests.

    Raises:
        ValueError: another split; training scenes are not held out.
    """
    check.one_of("split", split, tuple(SCENES))
    runtime.record.data["scenes"] = f"{split} scenes {first} to {first + count - 1}, {objects} object(s)"
    return [_from_scene(seed, objects, split) for seed in range(first, first + count)]


def marked_pictures(count: int, first: int = 0, split: str = "test") -> list[Picture]:
    """Return held-out scenes of one digit with a badge of another class; masks of the digit and of the badge.

    Args and errors as in :func:`scene_pictures`.
    """
    check.one_of("split", split, tuple(BADGED))
    runtime.record.data["marked"] = f"{split} scenes {first} to {first + count - 1} with a badge of another class"
    return [_from_marked(seed, split) for seed in range(first, first + count)]


def picture(name: str | Path | np.ndarray) -> Picture:
    """Return a picture by name.

    Args:
        name: ``"cat"``, ``"coffee"``, ``"astronaut"``, ``"rocket"``; ``"scene:SEED"`` or ``"scene:SEED:OBJECTS"``;
            ``"ground:SEED:OBJECTS"`` likewise, on textures; ``"marked:SEED"`` for one with a badge,
            ``"badged:SEED"`` likewise, on textures;
            the path of an image file; or an array ``(height, width, 3)``, uint8 or float in [0, 1].

    Raises:
        FileNotFoundError: no such name and no such file.
        ValueError: not a picture, NaN or values outside [0, 1], a wrong shape, or see-through pixels, for which there
            is no right colour; flatten those onto a background of your choice first.
    """
    if isinstance(name, np.ndarray):
        return Picture(_from_array(name), "own array", {})
    if not isinstance(name, (str, Path)):
        raise ValueError(
            f"the picture is a {type(name).__name__}; expected a name, a path or an array (height, width, 3). Of a "
            "torch tensor (3, height, width) in [0, 1]: tensor.permute(1, 2, 0).numpy()."
        )
    label = os.path.expanduser(str(name))
    if " + " in label and not Path(label).is_file():
        return mosaic([picture(one) for one in label.split(" + ")])
    named = [*runtime.record.data.get("picture", "").split(", "), Path(label).name]
    runtime.record.data["picture"] = ", ".join(dict.fromkeys(filter(None, named)))
    if label in PHOTOGRAPHS:
        return Picture(_read(_photograph(label)), label, {})
    if found := re.fullmatch(r"(marked|badged):(\d+)", label):
        return _from_marked(int(found[2]), next(split for split, begins in BADGED.items() if begins == found[1]))
    if found := re.fullmatch(r"(scene|ground):(\d+)(?::([123]))?", label):
        split = next(split for split, begins in SCENES.items() if begins == found[1])
        return _from_scene(int(found[2]), int(found[3] or 1), split)
    if not Path(label).is_file():
        known = ", ".join(
            [*PHOTOGRAPHS, "scene:SEED", "scene:SEED:OBJECTS", "ground:SEED:OBJECTS", "marked:SEED", "badged:SEED"]
        )
        raise FileNotFoundError(f"no picture {label!r}: no file of that name, and the known names are {known}.")
    return Picture(_read(Path(label)), Path(label).name, {})


def mosaic(pictures: Sequence[Picture], columns: int = 2, side: int = 224) -> Picture:
    """Put pictures side by side into one square: it holds a class in every cell, and the cell of each is known.

    Args:
        pictures: of different classes, as many as fill the rows; each is cut to the shape of its cell and shrunk.
        columns: cells in a row.
        side: of the square, pixels; a multiple of the numbers of rows and columns.

    Returns:
        A picture whose masks are the cells, each named after the one mask of its picture, else after the picture.

    Raises:
        ValueError: pictures that do not fill the rows, two of one name, or a side that does not divide.

    Source: the grid pointing game of Böhle, Fritz & Schiele (2021), arXiv:2104.00032, section 5.1.
    """
    names = [next(iter(one.masks)) if len(one.masks) == 1 else one.name for one in pictures]
    rows = len(pictures) // columns
    if not pictures or rows * columns != len(pictures) or len(set(names)) < len(names) or side % columns or side % rows:
        raise ValueError(
            f"{len(pictures)} pictures called {', '.join(names)}, in {columns} columns of a square of {side} pixels: "
            "expected as many as fill the rows, all of different names, and a side that both numbers divide."
        )
    high, wide = side // rows, side // columns
    image, masks = np.zeros((3, side, side), dtype=np.float32), {}
    for place, (name, one) in enumerate(zip(names, pictures, strict=True)):
        top, left = place // columns * high, place % columns * wide
        cell = np.s_[top : top + high, left : left + wide]
        pixels = Image.fromarray((one.image.transpose(1, 2, 0) * 255).round().astype(np.uint8))
        image[:, *cell] = np.asarray(ImageOps.fit(pixels, (wide, high)), dtype=np.float32).transpose(2, 0, 1) / 255
        masks[name] = np.zeros((side, side), dtype=bool)
        masks[name][cell] = True
    return Picture(image, " + ".join(one.name for one in pictures), masks)


def mosaics(pictures: Sequence[Picture], cells: int = 4, side: int = 224) -> list[Picture]:
    """Put pictures of one class each together in :func:`mosaic`, each in the first one that lacks its class.

    Args:
        pictures: in the order in which they are taken; those of mosaics that stay incomplete are left out.
        cells: pictures in each mosaic, in two columns.
        side: as in :func:`mosaic`.
    """
    groups: list[dict[str, Picture]] = []
    for one in pictures:
        (name,) = one.masks
        open_ = (group for group in groups if len(group) < cells and name not in group)
        if (own := next(open_, None)) is None:
            groups.append(own := {})
        own[name] = one
    return [mosaic(list(group.values()), side=side) for group in groups if len(group) == cells]


def _from_marked(seed: int, split: str) -> Picture:
    drawn = watermark.draw(seed, 0.0, split)
    digit, badge = (scenes.CLASSES[c] for c in drawn.classes)
    masks = {digit: drawn.digit, badge: drawn.mark}
    background = scenes.draw(seed, 1, split).background
    return Picture(drawn.image, f"{BADGED[split]}:{seed}", masks, drawn.classes[0], background)


PIXELS = 50_000_000  #: of a picture that is read from a file, unless XAI_PIXELS allows more


def _from_scene(seed: int, objects: int, split: str) -> Picture:
    scene = scenes.draw(seed, objects, split)
    masks = {scenes.CLASSES[c]: mask for c, mask in zip(scene.classes, scene.masks, strict=True)}
    return Picture(scene.image, f"{SCENES[split]}:{seed}:{objects}", masks, background=scene.background)


def _photograph(name: str) -> Path:
    import skimage.data

    return Path(skimage.data.__file__).parent / PHOTOGRAPHS[name]


def small_enough(name: str, size: tuple[int, int]) -> None:
    """Refuse a picture of more than :data:`PIXELS` pixels before it is decoded: it may take minutes and gigabytes."""
    allowed = os.environ.get("XAI_PIXELS", str(PIXELS))
    if not allowed.isdigit():
        raise ValueError(f"XAI_PIXELS is {allowed!r}, expected how many pixels a picture may have, such as {PIXELS}.")
    if size[0] * size[1] > int(allowed):
        raise ValueError(
            f"{name} has {size[0]} x {size[1]} pixels, and at most {int(allowed) / 1e6:g} million are read. Make it "
            f"smaller first, or set XAI_PIXELS={size[0] * size[1]} where it has to be."
        )


def _read(path: Path) -> np.ndarray:
    """Read a file as RGB in [0, 1], turned upright; grey fills all channels, see-through pixels are refused."""
    try:
        with Image.open(path) as stored:
            small_enough(path.name, stored.size)
            image = ImageOps.exif_transpose(stored)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from error
    if "A" in image.getbands() or "transparency" in image.info:
        seen = np.asarray(image.convert("RGBA"))[..., 3]
        if (seen < 255).any():
            raise ValueError(
                f"{path.name} is see-through in {(seen < 255).mean():.1%} of its pixels, which have no colour of their "
                "own; flatten it onto a background first (PIL: Image.alpha_composite)."
            )
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path.name} has pixels of mode {image.mode}; convert it to 8 bits a channel first.")
    return (np.asarray(image.convert("RGB"), dtype=np.float32) / 255).transpose(2, 0, 1)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"the picture has shape {array.shape}, expected (height, width, 3). Repeat a grey picture over channels "
            "(np.repeat(grey[..., None], 3, 2)); flatten see-through pixels (RGBA) onto a background."
        )
    if array.dtype == np.uint8:
        return (array.astype(np.float32) / 255).transpose(2, 0, 1)
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise ValueError(
            f"the picture is {array.dtype} with NaN or infinity, or no float; expected uint8 or finite floats."
        )
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"the picture's values run from {array.min():.3g} to {array.max():.3g}, expected [0, 1].")
    return array.astype(np.float32).transpose(2, 0, 1)
