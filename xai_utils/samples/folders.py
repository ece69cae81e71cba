"""Real data in the forms that people keep it in: folders of pictures, masks beside them, texts with rationales.

Nothing is fetched and nothing is read before it is asked for: a loader returns a :class:`Listing`, whose pictures are
opened one by one.

A folder of photographs with masks holds ``images/STEM.jpg`` (or another of :data:`ENDINGS`), any number of
``masks/STEM_CATEGORY.png`` for each, and perhaps ``classes.json``. A mask is an 8-bit picture of its photograph's size:
0 background, 1, 2, … the instances of the category, 255 a region that is left out (COCO's crowds), which counts as
background here. ``classes.json`` maps each category to the list of the model's class indices that mean it; without it a
category and a class must share a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from xai_utils import check, runtime, tables
from xai_utils.samples import bundled
from xai_utils.samples.bundled import SENTIMENT, picture
from xai_utils.samples.kinds import Picture, Text

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Listing:
    """Samples that are read when they are asked for.

    Attributes:
        names: of the samples, each once.
        read: ``(index) -> sample``.
    """

    names: tuple[str, ...]
    read: Callable[[int], Text | Picture]

    def __len__(self) -> int:
        return len(self.names)

    def spread(self, count: int | None) -> Listing:
        """Take ``count`` of the samples, evenly spaced, because folders come in the order of their classes."""
        if count is None or count == len(self):
            return self
        if not isinstance(count, int) or not 1 <= count <= len(self):
            raise ValueError(f"count is {count!r}, but the set holds {len(self)} samples: expected 1 to {len(self)}.")
        chosen = [i * len(self) // count for i in range(count)]
        return Listing(tuple(self.names[i] for i in chosen), lambda i: self.read(chosen[i]))


def pictures(path: str | Path, labels: str | Path | None = None) -> Listing:
    """List an ImageNet-type folder.

    Args:
        path: either one folder per class (``n01440764/…``, or any names), whose place in sorted order is the label,
            or pictures side by side with a file of labels.
        labels: ``.json`` (``{file: class}``) or ``.csv`` (columns ``file`` and ``class_id``). A class is an index.
            ``None``: by folder; pictures side by side then have no label.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no picture in the folder, or a label for a picture that is not there.
    """
    folder = _folder(path)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)
    files = [file for file in found if not file.name.startswith(".")]  # a Mac puts ._1.jpg beside 1.jpg
    if not files:
        raise ValueError(f"no picture in {folder.name}; expected files that end in {', '.join(ENDINGS)}.")
    known = _labels(Path(labels)) if labels is not None else _by_folder(folder, files)
    names = [file.relative_to(folder).as_posix() for file in files]
    if missing := sorted(set(known) - set(names)):
        raise ValueError(f"{len(missing)} labels name no picture in {folder.name}, such as {missing[0]!r}.")
    if labels is not None:
        names = [name for name in names if name in known]
    junk = f", {len(found) - len(files)} hidden files left out" if len(found) > len(files) else ""
    runtime.record.data[folder.name] = f"{len(names)} pictures{junk}"
    return Listing(
        tuple(names), lambda i: replace(picture(folder / names[i]), name=names[i], label=known.get(names[i]))
    )


def masked(path: str | Path, annotations: str | Path) -> Listing:
    """List pictures with the outlines of their objects, in COCO's own format.

    Args:
        path: folder of the pictures.
        annotations: COCO's ``instances_*.json``: ``images``, ``annotations`` with ``segmentation`` as polygons, and
            ``categories``. Crowd regions (``iscrowd``) are left out, and so are pictures without any other object.

    Returns:
        Pictures whose ``masks`` hold one mask per category: the union of its instances.
    """
    folder, file = _folder(path), _file(annotations)
    known = tables.json_of(file)
    if absent := {"images", "annotations", "categories"} - set(known):
        raise ValueError(f"{file.name} lacks {', '.join(sorted(absent))}; expected COCO's instances_*.json.")
    category = {one["id"]: one["name"] for one in known["categories"]}
    objects: dict[int, list[dict]] = {}
    for one in known["annotations"]:
        if not one.get("iscrowd"):
            objects.setdefault(one["image_id"], []).append(one)
    images = [one for one in known["images"] if one["id"] in objects]
    runtime.record.data[file.stem] = f"{len(images)} pictures with masks"

    def read(index: int) -> Picture:
        image = images[index]
        found = picture(folder / image["file_name"])
        masks: dict[str, np.ndarray] = {}
        for one in objects[image["id"]]:
            drawn = _draw(one["segmentation"], (image["width"], image["height"]), found.image.shape[1:])
            name = category[one["category_id"]]
            masks[name] = masks.get(name, False) | drawn
        return replace(found, name=image["file_name"], masks=masks)

    return Listing(tuple(image["file_name"] for image in images), read)


def rationales(path: str | Path, words: int | None = None) -> Listing:
    """List texts with human rationales, in the manner of ERASER, one JSON object a line.

    Args:
        path: ``.jsonl`` with ``id``, ``text``, ``label`` (``NEG`` or ``POS``, or 0 or 1) and ``rationales``: pairs
            ``[start, end)`` counted in words, ``text.split()``.
        words: keep the first so many words of a text; rationales behind the cut are dropped, one across it is
            shortened, and a text that has none left is left out. ``None``: the whole text.

    A text with another label, or whose rationale lies outside it, is left out and counted.

    Raises:
        ValueError: a field is missing, no row can be used, or the cut leaves no text.
    """
    file = _file(path)
    if words is not None:
        check.at_least_one("words", words)
    rows = tables.rows_of(file, ("id", "text", "label", "rationales"))
    texts, bad = tables.each(file, rows, lambda n, row: _rationale(row, f"text {n}", words))
    kept = [text for text in texts if text.rationale]
    if not kept:
        raise ValueError(f"no text of {file.name} has a rationale among its first {words} words; take more words.")
    cut = "" if words is None else f", cut after {words} words"
    runtime.record.data[file.stem] = f"{len(kept)} of {len(texts)} texts with a rationale{cut}{bad}"
    return listed(kept)


def listed(some: Sequence[Text | Picture]) -> Listing:
    """Make a listing of samples that are in memory."""
    return Listing(tuple(one.name for one in some), lambda i: some[i])


def _rationale(row: dict, where: str, words: int | None) -> Text:
    label = row["label"] if row["label"] in (0, 1) else {"NEG": 0, "POS": 1}.get(row["label"])
    if label is None:
        raise ValueError(f"{where} has the label {row['label']!r}, expected NEG or POS, 0 or 1 ({SENTIMENT}).")
    tokens = str(row["text"] or "").split()
    if not tokens:
        raise ValueError(f"{where} is empty.")
    spans, place = [], 0
    for token in tokens:
        place = row["text"].index(token, place)
        spans.append((place, place + len(token)))
        place += len(token)
    if any(not 0 <= start < end <= len(tokens) for start, end in row["rationales"]):
        raise ValueError(f"{where} has a rationale outside its {len(tokens)} words: {row['rationales']}.")
    last = len(tokens) if words is None else min(words, len(tokens))
    marked = [(start, min(end, last)) for start, end in row["rationales"] if start < last]
    return Text(
        row["text"][: spans[last - 1][1]],
        str(row["id"]),
        label,
        rationale=tuple((spans[start][0], spans[end - 1][1]) for start, end in marked),
    )


def _draw(polygons: list[list[float]], size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Fill polygons given for a picture of ``size`` on one of ``shape``, which may have been stored smaller."""
    if not isinstance(polygons, list):
        raise ValueError("an object that is no crowd has a run-length mask; expected polygons.")
    canvas = Image.new("1", (shape[1], shape[0]))
    scale = np.array([shape[1] / size[0], shape[0] / size[1]])
    for polygon in polygons:
        corners = (np.reshape(polygon, (-1, 2)) * scale).flatten().tolist()
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
    return np.asarray(canvas)


def _labels(file: Path) -> dict[str, int]:
    if file.suffix == ".json":
        stated = tables.json_of(_file(file))
    else:
        stated = {row["file"]: row["class_id"] for row in tables.rows_of(_file(file), ("file", "class_id"))}
    if not isinstance(stated, dict) or not all(str(value).isdigit() for value in stated.values()):
        raise ValueError(f"{file.name} should give each picture the number of its class, such as 281.")
    return {name: int(value) for name, value in stated.items()}


def _by_folder(folder: Path, files: Sequence[Path]) -> dict[str, int]:
    """Return the place of each picture's folder among the sorted folders; nothing for pictures side by side."""
    inside = [file for file in files if file.parent != folder]
    classes = sorted({file.relative_to(folder).parts[0] for file in inside})
    return {file.relative_to(folder).as_posix(): classes.index(file.relative_to(folder).parts[0]) for file in inside}


def _folder(path: str | Path) -> Path:
    if not (folder := Path(path).expanduser()).is_dir():
        raise FileNotFoundError(f"no folder {str(path)!r}; expected a folder of pictures.")
    return folder


def _file(path: str | Path) -> Path:
    if not (file := Path(path).expanduser()).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}.")
    return file


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


def photographs(folder: str | Path) -> Photographs:
    """Read a folder of photographs with masks.

    Raises:
        FileNotFoundError: no such folder, or no photograph in its ``images``.
        ValueError: a mask that belongs to no photograph, has another size, or is no 8-bit picture of one channel; a
            ``classes.json`` that is no object of lists of whole numbers.
    """
    folder = Path(folder).expanduser()
    found = (folder / "images").glob("*")
    files = sorted(path for path in found if path.suffix.lower() in ENDINGS and not path.name.startswith("."))
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
    for path in sorted(path for path in (folder / "masks").glob("*.png") if not path.name.startswith(".")):
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
    listed = tables.json_of(path)
    if not isinstance(listed, dict) or not all(
        isinstance(indices, list) and all(isinstance(i, int) for i in indices) for indices in listed.values()
    ):
        raise ValueError(f"{path.name} should map each category to a list of class indices, such as {{'bear': [294]}}.")
    return {name: tuple(indices) for name, indices in listed.items()}
