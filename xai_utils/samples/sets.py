"""One table of sets of samples: a name and options, as a sweep's plan states them, to samples read piece by piece."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xai_utils import check, runtime, tables
from xai_utils.samples import bundled, folders, prompts, recall
from xai_utils.samples.folders import Listing, listed
from xai_utils.samples.kinds import Picture, Text
from xai_utils.samples.scenes import BACKGROUNDS

#: options that name a file or folder; ``$NAME`` is filled in
FILES = ("path", "labels", "annotations", "named", "classes")


def reviews(first: int = 0, number: int | None = None) -> Listing:
    """List the bundled film reviews with rationales, from ``first`` on, all or so many of them."""
    found = bundled.reviews()[first:]
    return listed(found[:number])


def scenes(number: int = 300, objects: int = 1, first: int = 0, split: str = "test") -> Listing:
    """List held-out scenes with exact masks, each drawn when it is read."""
    check.one_of("split", split, tuple(bundled.SCENES))
    names = tuple(f"{bundled.SCENES[split]}:{seed}:{objects}" for seed in range(first, first + number))
    return Listing(names, lambda i: bundled.scene_pictures(1, objects, first + i, split)[0])


def marked(number: int = 300, first: int = 0, split: str = "test") -> Listing:
    """List held-out scenes of one digit with a badge of another class, each drawn when it is read."""
    check.one_of("split", split, tuple(bundled.BADGED))
    names = tuple(f"{bundled.BADGED[split]}:{seed}" for seed in range(first, first + number))
    return Listing(names, lambda i: bundled.marked_pictures(1, first + i, split)[0])


def cluster(name: str) -> str:
    """Return what a sample of this name shares with others, for intervals: its background, or else only its name."""
    found = re.fullmatch(f"({bundled.SCENES['backgrounds']}|{bundled.BADGED['backgrounds']}):(\\d+)(:.*)?", name)
    return name if found is None else BACKGROUNDS[int(found[2]) % len(BACKGROUNDS)]


def recalls(number: int = 300, first: int = 0, length: int = 32) -> Listing:
    """List sequences that recall one letter (see :mod:`recall`), the answer marked, each drawn when it is read."""
    names = tuple(f"recall:{seed}:{length}" for seed in range(first, first + number))

    def read(i: int) -> Text:
        drawn = recall.draw(np.random.default_rng([first + i, length]), length)
        return replace(recall.text_of(drawn), name=names[i])

    return Listing(names, read)


def prompted(task: str, number: int = 300, first: int = 0) -> Listing:
    """List prompts of a task whose next word has a known cause (see :mod:`prompts`), each drawn when it is read."""
    names = tuple(f"{task}:{seed}" for seed in range(first, first + number))
    return Listing(names, lambda i: prompts.draw(task, first + i))


def labelled(path: str, words: int | None = None) -> Listing:
    """List texts with labels of one's own file (see :func:`bundled.labelled`).

    Args:
        path: of the file.
        words: cut a longer text behind so many words; its name and the record say so. ``None``: the whole text, and
            one that is too long for a model is a row of the table with its error.

    Raises:
        ValueError: as :func:`bundled.labelled`, or a pair that would be cut.
    """
    found = bundled.labelled(path)[0]
    if words is None:
        return listed(found)
    check.at_least_one("words", words)
    shorter = [_first_words(one, words) for one in found]
    cut = sum(one is not other for one, other in zip(found, shorter, strict=True))
    runtime.record.data[Path(path).stem] += f", {cut} of them cut after {words} words"
    return listed(shorter)


def _first_words(text: Text, words: int) -> Text:
    found = list(re.finditer(r"\S+", text.text))
    if len(found) <= words:
        return text
    if text.second:
        raise ValueError(f"{text.name!r} is a pair of {len(found)} words, and only single texts are cut; shorten it.")
    name = f"{text.name}, first {words} of {len(found)} words"
    return replace(text, text=text.text[: found[words - 1].end()], name=name)


def masked(path: str, named: str | None = None) -> Listing:
    """List the photographs of a folder that have masks (see :mod:`folders`).

    Args:
        path: of the folder; its ``classes.json``, if there is one, says which of the model's classes a category means.
        named: a file that lists the names of the photographs to take, one a line, as the table has them.
    """
    held = folders.photographs(path)
    found = [one for one in held.pictures if one.masks]
    if named is not None:
        wanted = Path(named).read_text(encoding="utf-8").split()
        if unknown := sorted(set(wanted) - {one.name for one in found}):
            raise ValueError(
                f"{len(unknown)} names of {Path(named).name} have no photograph with masks, such as {unknown[0]!r}."
            )
        found = [one for one in found if one.name in wanted]
    return listed([_by_class(one, held.classes or {}) for one in found])


def coco(path: str, annotations: str, classes: str | None = None) -> Listing:
    """List pictures with the outlines of COCO's own format (see :func:`folders.masked`).

    Args:
        path: folder of the pictures.
        annotations: ``instances_*.json``.
        classes: a file that says which of the model's classes a category means, as :mod:`folders` has it.
    """
    found = folders.masked(path, annotations)
    means = tables.json_of(Path(classes)) if classes is not None else {}
    return Listing(found.names, lambda i: _by_class(found.read(i), means))  # type: ignore[arg-type]


def _by_class(picture: Picture, means: Mapping[str, Sequence[int]]) -> Picture:
    """Give each mask a second name, ``#INDEX``, for every class of the model that its category means."""
    masks = dict(picture.masks)
    for category, mask in picture.masks.items():
        for index in means.get(category, ()):
            masks[f"#{index}"] = masks.get(f"#{index}", False) | mask
    return replace(picture, masks=masks)


#: Names to what lists the samples; its arguments are the options that a plan may state.
SETS: dict[str, Callable[..., Listing]] = {
    "reviews": reviews,
    "paragraphs": lambda number=300, seed=0, most=8: listed(bundled.paragraphs(number, seed, most)),
    "scenes": scenes,
    "marked": marked,
    "recalls": recalls,
    "prompts": prompted,
    "sst2": lambda split="validation": listed(bundled.sst2(split)),
    "labelled": labelled,
    "pictures": folders.pictures,
    "masked": masked,
    "coco": coco,
    "rationales": folders.rationales,
}


def find(spec: Mapping[str, Any]) -> Listing:
    """Return the listing of ``{"set": name, "count": n, **options}``, evenly spaced over the set.

    Raises:
        ValueError: unknown set or option, a count of 0 or above the set's size, a missing environment variable, or two
            samples of one name.
    """
    return _find(json.dumps(spec, sort_keys=True))


@lru_cache(maxsize=4)
def _find(spec: str) -> Listing:
    options = json.loads(spec)
    name, count = options.pop("set", None), options.pop("count", None)
    check.one_of("set of samples", name, tuple(SETS))
    allowed = inspect.signature(SETS[name]).parameters
    if unknown := sorted(set(options) - set(allowed)):
        takes = ", ".join(["count", *allowed])
        raise ValueError(f"the set {name!r} has no option {unknown[0]!r}; it takes: {takes}.")
    needed = [key for key, one in allowed.items() if one.default is one.empty and key not in options]
    if needed:
        raise ValueError(f"the set {name!r} needs the option {needed[0]!r}.")
    listing = SETS[name](**{key: _place(value) if key in FILES else value for key, value in options.items()})
    if len(set(listing.names)) < len(listing):
        raise ValueError(f"two samples of the set {name!r} have one name; a result could not be told apart.")
    return listing.spread(count)


def take(spec: Mapping[str, Any], start: int, stop: int) -> list[Text | Picture]:
    """Read samples ``start`` to ``stop - 1`` of a set."""
    listing = find(spec)
    return [listing.read(i) for i in range(start, min(stop, len(listing)))]


def digest(some: Sequence[Text | Picture]) -> str:
    """Hash samples with all that is known about them; where their files lie does not count."""
    found = hashlib.sha256()
    for one in some:
        arrays = [("image", one.image), *sorted(one.masks.items())] if isinstance(one, Picture) else []
        plain = {key: value for key, value in vars(one).items() if key not in ("image", "masks", "background")}
        if not plain.get("second"):
            plain.pop("second", None)  # one text is what it was before there were pairs
        shapes = [(name, str(array.dtype), array.shape) for name, array in arrays]
        found.update(json.dumps([type(one).__name__, plain, shapes], sort_keys=True).encode())
        for _, array in arrays:
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _place(path: str) -> str:
    filled = os.path.expanduser(os.path.expandvars(path))
    if "$" in filled:
        raise ValueError(f"{path!r} names an environment variable that is not set; set it to where the data are.")
    return filled
