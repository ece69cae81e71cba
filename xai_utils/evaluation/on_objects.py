"""Mark maps against the masks of objects: maps asked about one of several objects, maps that may be empty, many masks.

Beside :mod:`on_pictures`, whose marks want a positive score in every map. Tables are wide: a row for each picture, a
column for each map, NaN where there is nothing to mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xai_utils import metrics, stats
from xai_utils.evaluation.judged import BATCH, Methods, explained
from xai_utils.evaluation.on_pictures import inside, masks
from xai_utils.methods import relevance
from xai_utils.methods.observation import Observation
from xai_utils.metrics.pictures import Foreground
from xai_utils.models import Model
from xai_utils.models.detector import Detections, with_masks
from xai_utils.models.encoding import encode, patch_grid
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample

MAY_BE_EMPTY = ("attention_gradcam", "gradcam")  #: nothing may speak for the class; the map is then zero everywhere
#: how a relevance pass by the z+ rules can be read, all of it in one pass
READINGS: Methods = {
    "transformer_attribution": ("transformer_attribution", {}),
    "relevance rollout": ("transformer_attribution", {"aggregate": "rollout"}),
    "relevance of the last layer": ("transformer_attribution", {"aggregate": "last_layer"}),
    "relevance of the second layer": ("transformer_attribution", {"aggregate": "second_layer"}),
    "full relevance": ("full_lrp", {}),
}
SAME_SKIP = "rollout, same skip"  #: see :func:`beside_same_skip`
COLUMNS = ("model", "method", "picture", "object", "preference", "lift", "empty")


def predicted(model: Model, samples: Sequence[Sample]) -> list[int]:
    """Return the index of the class that a model gives to each sample."""
    found: list[int] = []
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            logits = model.logits(encode(model, samples[start : start + BATCH]).inputs)
            found += logits.argmax(-1).tolist()
    return found


def maps(
    model: Model,
    pictures: Sequence[Picture],
    asked: Methods | Sequence[str],
    targets: Sequence[int | str] | None = None,
) -> dict[str, Tensor]:
    """Explain every picture by every method, as :func:`judged.explained` does, and let empty maps through.

    Args:
        model: a vision model.
        pictures: at least one.
        asked: label -> (name in :data:`methods.METHODS`, options), or names alone.
        targets: class of each picture; ``None`` explains the predicted ones.

    Returns:
        By label ``(picture, row, column)`` on the grid of patches. Only a method in :data:`MAY_BE_EMPTY` can give a
        map that is zero everywhere; of any other that is an error.
    """
    named = asked if isinstance(asked, Mapping) else {name: (name, {}) for name in asked}
    classes = predicted(model, pictures) if targets is None else [model.class_index(one) for one in targets]
    whole = {label: one for label, one in named.items() if one[0] not in MAY_BE_EMPTY}
    found: dict[str, list[Tensor]] = {label: [] for label in named}
    on_attention = {label: options for label, (name, options) in named.items() if name == "attention_gradcam"}

    def look(seen: Observation) -> None:
        for label, options in on_attention.items():
            views = map(seen.view, range(len(seen.batch)))
            found[label] += [_patches(model, relevance.attention_gradcam(view, **options)[0]) for view in views]

    maps = explained(model, pictures, whole, classes, look=look if on_attention else None)
    found |= {label: [one.scores for one in some] for label, some in maps.items()}
    for label, (name, options) in named.items():
        if name == "gradcam":
            found[label] = _gradcams(model, pictures, classes, options)
    grid = patch_grid(model)
    return {label: torch.stack([scores.view(grid) for scores in found[label]]) for label in named}


def on_grid(found: Mapping[str, Sequence[Attribution]]) -> dict[str, Tensor]:
    """Return the scores of maps of pictures, such as :func:`judged.explained` gives, as ``(picture, row, column)``."""
    return {label: torch.stack([one.picture() for one in some]) for label, some in found.items()}


def beside_same_skip(
    model: Model, pictures: Sequence[Picture], names: Sequence[str], targets: Sequence[int | str]
) -> dict[str, Tensor]:
    """Explain pictures, and add the plain rollout whose skip counts what it counts in gradient rollout.

    Args:
        model: a vision transformer.
        pictures: at least one.
        names: of :data:`methods.METHODS`, with ``"gradient_rollout"`` among them.
        targets: class of each picture.

    Returns:
        By name ``(picture, row, column)``, and by :data:`SAME_SKIP` rollout at the median effective skip.
    """
    found = explained(model, pictures, {name: (name, {}) for name in names}, targets)
    skip = median(one.details["skip"] for one in found["gradient_rollout"])
    same = explained(model, pictures, {SAME_SKIP: ("rollout", {"residual": skip})}, targets)
    return on_grid(found | same)


def stages(model: Model, picture: Picture, layers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the grid, rows and columns, that each stage of a convolutional network has for a picture."""
    batch = encode(model, [picture])
    return {layer: relevance.gradcam(model, batch, [0], layer)[0][1]["size"] for layer in layers}


def _gradcams(
    model: Model, pictures: Sequence[Picture], classes: Sequence[int], options: Mapping[str, Any]
) -> list[Tensor]:
    found: list[Tensor] = []
    for start in range(0, len(pictures), BATCH):
        some, targets = pictures[start : start + BATCH], classes[start : start + BATCH]
        passed = relevance.gradcam(model, encode(model, some), targets, **options)
        found += [_patches(model, scores) for scores, _ in passed]
    return found


def _patches(model: Model, scores: Tensor) -> Tensor:
    return scores[model.prefix :].cpu()


def questions(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Return every picture once for each of its objects, and the objects' names."""
    asked = [(picture, name) for picture in pictures for name in picture.masks]
    return [picture for picture, _ in asked], [name for _, name in asked]


def marks(
    model: Model, pictures: Sequence[Picture], asked: Methods, more: Mapping[str, Tensor] | None = None
) -> pd.DataFrame:
    """Ask about each object of every picture, by every method, and mark each map by the object asked about.

    Args:
        model: a vision model.
        pictures: with masks named after classes; one without masks is not asked about.
        asked: as in :func:`maps`.
        more: maps that were made elsewhere, ``(question, row, column)`` in the order of :func:`questions`.

    Returns:
        A row for each map: ``model``, ``method``, ``picture``, ``object``; ``preference``, the share of the positive
        scores on the object among what lies on all objects (one over their number for a map that knows no class);
        ``lift``, the share on the object over the object's share of the picture; and ``empty``, whether nothing is
        positive: such a map has the preference of one that knows no class, and lift 0.
    """
    again, names = questions(pictures)
    if not again:
        return pd.DataFrame([], columns=COLUMNS)
    covers = [{key: inside(model, picture, [key]) for key in picture.masks} for picture in again]
    found = maps(model, again, asked, names) | dict(more or {})
    rows = []
    for label, drawn in found.items():
        for picture, name, cover, scores in zip(again, names, covers, drawn.flatten(1), strict=True):
            place = {"model": model.name, "method": label, "picture": picture.name, "object": name}
            rows.append({**place, **_mark(scores, cover, name)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _mark(scores: Tensor, covers: Mapping[str, Tensor], name: str) -> dict[str, float | bool]:
    if not (scores > 0).any():
        return {"preference": 1 / len(covers), "lift": 0.0, "empty": True}
    mass = {key: metrics.mass_inside(scores, cover) for key, cover in covers.items()}
    on_objects = sum(mass.values())
    preference = mass[name] / on_objects if on_objects else 1 / len(covers)
    return {"preference": preference, "lift": metrics.lift(scores, covers[name]), "empty": False}


def by_picture(marked: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Average a measure of :func:`marks` over the objects of each picture: a row a picture, a column a method."""
    return marked.pivot_table(index="picture", columns="method", values=measure, sort=False).astype(float)


def by_first_layer(model: Model, pictures: Sequence[Picture], names: Sequence[int | str]) -> dict[str, Tensor]:
    """Compose transformer attribution from every first layer on, and see what that choice changes.

    Args:
        model: a vision transformer.
        pictures: each asked about one class.
        names: that class of each.

    Returns:
        Each ``(picture, first layer)``: ``"spread"``, the standard deviation of the map; ``"agreement"``, its
        correlation with the map from layer 0; ``"lift"`` on the object of that name, NaN where there is none.
    """
    targets = [model.class_index(name) for name in names]
    drawn = relevance.by_start(model, encode(model, pictures), targets)[..., model.prefix :].cpu()
    lift = torch.full(drawn.shape[:2], torch.nan, dtype=torch.float64)
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        if str(name) in picture.masks:
            cover = inside(model, picture, [str(name)])
            lift[:, i] = torch.tensor([metrics.lift(scores, cover) for scores in drawn[:, i]])
    agreement = torch.stack([torch.corrcoef(one)[0] for one in drawn.unbind(1)])
    return {"spread": drawn.std(-1).T, "agreement": agreement, "lift": lift.T}


def fractions(found: Mapping[str, Tensor], foreground: Tensor) -> dict[str, Foreground]:
    """Return :func:`metrics.foreground_fraction` of every named map ``(picture, row, column)``."""
    return {name: metrics.foreground_fraction(drawn, foreground) for name, drawn in found.items()}


def by_threshold(
    model: Model,
    found: Mapping[str, Tensor],
    pictures: Sequence[Picture],
    detections: Sequence[Detections],
    cuts: Sequence[tuple[float, float]],
    **foreground: Any,
) -> list[dict[str, Foreground]]:
    """Return :func:`fractions` by a detector's masks, at several pairs of thresholds.

    Args:
        model: whose maps they are.
        found: name to ``(picture, row, column)``.
        pictures: what the detector looked at.
        detections: of each picture.
        cuts: pairs of the least score of an instance and the least probability of a pixel.
        **foreground: ``targets``, ``match`` and ``classes`` of :func:`on_pictures.masks`.
    """
    return [
        fractions(found, masks(model, with_masks(pictures, detections, score, pixel), **foreground))
        for score, pixel in cuts
    ]


def table(scored: Mapping[str, Foreground], what: str = "fraction") -> pd.DataFrame:
    """Put one measure of :func:`fractions` (``fraction``, ``lift``, ``area``) in a table of pictures by maps."""
    return pd.DataFrame({name: getattr(one, what).numpy() for name, one in scored.items()})


def quality(found: Mapping[str, Tensor], foreground: Tensor) -> dict[str, pd.DataFrame]:
    """Ask every question that one can ask of a map and a mask.

    Args:
        found: name to ``(picture, row, column)``.
        foreground: ``(picture, height, width)`` bool.

    Returns:
        By measure a table of pictures by maps: ``"FAF"`` and ``"lift"`` (see :func:`metrics.foreground_fraction`);
        ``"FAF at one sharpness"``, of every map raised to the power at which it is as sharp as the mask itself (see
        :func:`pictures.as_sharp_as`); ``"pointing game"`` (1 or 0, see :func:`pictures.pointing`); ``"average
        precision"``, ``"IoU"`` and ``"pixel accuracy"`` of the object (see :func:`pictures.segment`). NaN where the
        foreground is empty or everything, and of the first three where nothing is positive.
    """
    part = foreground.flatten(1).any(1) & ~foreground.flatten(1).all(1)
    measured: dict[str, dict[str, Tensor]] = {}
    known = torch.where(part[:, None, None], foreground, True)  # whatever stands there, its marks are NaN
    for name, drawn in found.items():
        exact = metrics.covers(known, (drawn.shape[1], drawn.shape[2]))
        sharp = metrics.foreground_fraction(metrics.pictures.as_sharp_as(drawn, exact), known)
        mass, one = metrics.foreground_fraction(drawn, foreground), metrics.pictures.segment(drawn, foreground)
        hits = metrics.pictures.pointing(drawn, foreground).double()
        values = {
            "FAF": mass.fraction, "lift": mass.lift, "FAF at one sharpness": sharp.fraction, "pointing game": hits,
            "average precision": one.average_precision, "IoU": one.iou, "pixel accuracy": one.pixel_accuracy,
        }  # fmt: skip
        for measure, column in values.items():
            measured.setdefault(measure, {})[name] = column.where(part, torch.nan)
    return {measure: pd.DataFrame({n: v.numpy() for n, v in columns.items()}) for measure, columns in measured.items()}


def on_one_grid(grid: tuple[int, int], *sets: tuple[Mapping[str, Tensor], Tensor]) -> dict[str, pd.DataFrame]:
    """Return :func:`quality` of maps of several networks, all brought to one grid by :func:`metrics.pictures.through`.

    Args:
        grid: rows and columns, no finer than any map's.
        sets: maps of one network, by names of their own, and the masks as that network sees the same pictures.
    """
    tables = []
    for found, foreground in sets:
        coarse = {name: metrics.pictures.through(one, grid) for name, one in found.items()}
        tables.append(quality(coarse, foreground))
    return {what: pd.concat([one[what] for one in tables], axis=1) for what in tables[0]}


def as_published(found: Mapping[str, Tensor], foreground: Tensor) -> pd.DataFrame:
    """Return pixel accuracy, mAP and mIoU in percent, means over pictures, a row a map, as published tables do.

    Args as in :func:`quality`. Background counts in all three; there the pixels of all pictures are added up before
    mIoU, here its mean over pictures is meant.
    """
    rows = {}
    for name, drawn in found.items():
        one = metrics.pictures.segment(drawn, foreground)
        both = metrics.pictures.both_precision(drawn, foreground)
        rows[name] = [one.pixel_accuracy, both, (one.iou + one.iou_background) / 2]
    means = {name: [100 * float(column.nanmean()) for column in row] for name, row in rows.items()}
    columns = ["pixel accuracy", "mAP", "mIoU"]
    return pd.DataFrame.from_dict(means, orient="index", columns=columns).rename_axis("map")


def standings(judged: Mapping[str, Mapping[Any, stats.Interval]], names: Sequence[str] = ("map",)) -> pd.DataFrame:
    """Put means with their intervals, by measure and map, in one table: a row a map, three columns a measure.

    Args:
        judged: measure to map to interval; a map may be a tuple, such as a method and a setting.
        names: of what a map consists of, the table's first columns.
    """
    columns = {}
    for measure, found in judged.items():
        columns[measure] = {name: one.mean for name, one in found.items()}
        columns[f"{measure} low"] = {name: one.low for name, one in found.items()}
        columns[f"{measure} high"] = {name: one.high for name, one in found.items()}
    table = pd.DataFrame(columns)
    table.index.names = list(names)
    return table
