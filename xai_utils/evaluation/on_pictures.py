"""Mark many maps of one model against the exact masks of scenes: what lies on the object, and where each map points."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils import check, metrics, stats
from xai_utils.evaluation import scoring
from xai_utils.evaluation.judged import Methods, explained
from xai_utils.models import Model
from xai_utils.models.encoding import encode, patch_grid, view_mask
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture

MEASURES = ("share", "lift", "pointing")
RIVALS = ("uniform", "random", "centre", "contrast")  #: methods that know nothing of the model
OTHER = "other scene"
MATCHES = ("any", "class")


def marks(
    model: Model,
    pictures: Sequence[Picture],
    asked: Methods,
    target: Callable[[Picture], str | int] | None = None,
    nulls: bool = True,
) -> pd.DataFrame:
    """Explain every picture by every method, and mark each map by the mask of its object.

    Args:
        model: a vision model.
        pictures: each with the masks of its objects, at least two.
        asked: name in the table -> (name in :data:`methods.METHODS`, options), see :func:`judged.explained`.
        target: class to explain and to look for; ``None`` explains the predicted class and looks for all objects.
        nulls: also mark what :func:`beside` gives, and of each method the map of the scene before.

    Returns:
        A row for each map: ``model``, ``method``, ``picture``, ``background``, and the measures: ``share`` of the
        positive scores on the object (foreground attribution fraction), ``lift``, that share over the object's share
        of the picture, and ``pointing``, whether the greatest score lies on a patch that holds any part of the object
        (the first such patch where scores tie, so of a uniform map say nothing).

    Raises:
        ValueError: fewer than two pictures, or one without a mask.
    """
    if len(pictures) < 2:
        raise ValueError(f"{len(pictures)} picture is given, expected at least two: one is the null of another.")
    classes = None if target is None else [target(one) for one in pictures]
    insides = [inside(model, one, target and [str(target(one))]) for one in pictures]
    rows: list[dict[str, object]] = []
    for label, maps in explained(model, pictures, asked, classes).items():
        own = [one.scores for one in maps]
        rows += _rows(model, label, pictures, own, insides)
        if nulls:
            rows += _rows(model, f"{label}, {OTHER}", pictures, [own[-1], *own[:-1]], insides)
    if nulls:
        for label, scores in beside(model, pictures).items():
            known = insides if label == metrics.pictures.EXACT else scores  # the mask that is looked for
            rows += _rows(model, label, pictures, known, insides)
    return pd.DataFrame(rows)


def beside(
    model: Model,
    pictures: Sequence[Picture],
    of: Sequence[Attribution | Tensor] | None = None,
    coarser: Sequence[tuple[int, int]] = (),
) -> dict[str, list[Tensor]]:
    """Return what belongs beside the methods in a table of localisation: what to beat, and how far a map can get.

    They join the maps of :func:`judged.explained` as they are: ``judge(model, pictures, maps | beside(...))``.

    Args:
        model: a vision model.
        pictures: each with masks; all of them together are the truth.
        of: maps of one method, one for each picture; the map of the picture before is then a null too.
        coarser: see :func:`pictures.ceilings`.

    Returns:
        Name to scores ``(token,)`` float64 of each picture: those of :data:`RIVALS`; ``"other scene"`` if ``of`` is
        given; ``"exact mask"`` and, for each coarser grid, ``"exact mask, ROWS × COLUMNS"``.
    """
    blind = explained(model, pictures, {name: (name, {}) for name in RIVALS})
    found = {name: [one.scores.double() for one in some] for name, some in blind.items()}
    if of is not None:
        own = [one.scores if isinstance(one, Attribution) else one for one in of]
        found[OTHER] = [one.double() for one in (own[-1], *own[:-1])]
    perfect = metrics.pictures.ceilings(masks(model, pictures), patch_grid(model), coarser)
    exact = {name: list(drawn.flatten(1)) for name, drawn in perfect.items() if metrics.pictures.EXACT in name}
    return found | exact


def intervals(
    table: pd.DataFrame, measure: str, seed: int, clusters: str | None = None
) -> dict[tuple[str, str], stats.Interval]:
    """Return the mean of one measure with its 95 % interval by ``(model, method)``, in the order of the table.

    Args:
        table: from :func:`marks`.
        measure: in :data:`MEASURES`.
        seed: of the resampling.
        clusters: column whose values are resampled as wholes, such as ``"background"``. Without it the interval of
            ``pointing``, a rate, is Wilson's: a bootstrap of hits only would have no width.
    """
    found = {}
    for key, own in table.groupby(["model", "method"], sort=False):
        if measure == "pointing" and clusters is None:
            one = stats.rate_interval(own[measure].to_numpy())
        else:
            groups: Sequence[Hashable] | None = None if clusters is None else own[clusters].tolist()
            one = stats.mean_interval(own[measure].to_numpy(), seed, clusters=groups)
        found[str(key[0]), str(key[1])] = one
    return found


def paired(table: pd.DataFrame, one: tuple[str, str], other: tuple[str, str], measure: str) -> np.ndarray:
    """Return the differences of two maps, each ``(model, method)``, on the same pictures, ``(picture,)``.

    Raises:
        ValueError: a map that the table does not hold.
    """
    wide = table.pivot(index="picture", columns=["model", "method"], values=measure)
    for key in (one, other):
        if key not in wide:
            raise ValueError(f"the table holds no map {key}; it holds {', '.join(map(str, wide.columns))}.")
    return (wide[one] - wide[other]).to_numpy()


def pointed(
    model: Model, pictures: Sequence[Picture], names: Sequence[str], parts: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Say on which of the objects of a picture the map of the predicted class has its greatest score.

    Args:
        model: a vision model.
        pictures: each with as many masks as there are ``parts``, in their order.
        names: of methods and nulls.
        parts: what to call the objects, such as ``("digit", "badge")``.
        seed: of random maps.

    Returns:
        A row for each method and picture: ``method``, ``picture``, ``background``, ``fails``, whether there is no map,
        and for each part whether the greatest score lies on a patch that holds any of it; the mean over equal greatest
        scores. A map that is not there points at nothing.
    """
    batch = encode(model, pictures)
    with torch.inference_mode():
        targets = model.logits(batch.inputs).argmax(-1).tolist()
    seen = [{part: inside(model, one, [name]) for part, name in zip(parts, one.masks, strict=True)} for one in pictures]
    rows: list[dict[str, object]] = []
    for method, maps in scoring.maps_of(model, names, pictures, targets, seed).items():
        for picture, one, masks in zip(pictures, maps, seen, strict=True):
            hits = {part: 0.0 if one is None else _greatest(one.scores, mask) for part, mask in masks.items()}
            told = {"method": method, "picture": picture.name, "background": picture.background}
            rows.append({**told, "fails": one is None, **hits})
    return pd.DataFrame(rows)


def shares(found: pd.DataFrame, parts: Sequence[str], seed: int) -> dict[str, dict[str, stats.Interval]]:
    """Sum up :func:`pointed`: part to method to the share of pictures; those of one background are drawn together."""
    groups = list(found.groupby("method", sort=False))
    return {
        part: {
            method: stats.mean_interval(own[part].tolist(), seed, clusters=own.background.tolist())
            for method, own in groups
        }
        for part in parts
    }


def _greatest(scores: Tensor, mask: Tensor) -> float:
    return float((mask[scores == scores.max()] > 0).double().mean())


def inside(model: Model, picture: Picture, names: Collection[str] | None = None) -> Tensor:
    """Return the share of each patch ``(token,)`` that some masks of a picture cover, by default all.

    Raises:
        ValueError: a picture without a mask, or masks that the crop leaves nothing of.
    """
    if not picture.masks:
        raise ValueError(f"{picture.name} has no mask of an object; take samples.scene_pictures.")
    return metrics.cover(_seen(model, picture, picture.masks if names is None else names), patch_grid(model))


def _seen(model: Model, picture: Picture, names: Collection[str]) -> np.ndarray:
    """Return the union of some masks of a picture, resized and cropped like it: ``(size, size)`` bool."""
    if model.preprocessing is None:
        raise ValueError(f"{model.name} reads texts; only pictures have a foreground.")
    found = np.zeros((model.preprocessing.size,) * 2, dtype=bool)
    for name in names:
        mask = picture.masks[name]
        if mask.shape != picture.image.shape[1:]:
            raise ValueError(
                f"a mask of {picture.name!r} has {mask.shape} pixels, the picture {picture.image.shape[1:]}; "
                "both go through the same resize and crop, so they must have one size."
            )
        found |= view_mask(mask, model.preprocessing)
    return found


def _rows(
    model: Model, label: str, pictures: Sequence[Picture], scores: Sequence[Tensor], insides: Sequence[Tensor]
) -> list[dict[str, object]]:
    found = []
    for picture, one, truth in zip(pictures, scores, insides, strict=True):
        values = metrics.mass_inside(one, truth), metrics.lift(one, truth), float(metrics.hit(one, truth))
        known: dict[str, object] = {"model": model.name, "method": label, "picture": picture.name,
                                    "background": picture.background}  # fmt: skip
        found.append(known | dict(zip(MEASURES, values, strict=True)))
    return found


def masks(
    model: Model,
    pictures: Sequence[Picture],
    targets: Sequence[int] | None = None,
    match: str = "any",
    classes: Mapping[str, Collection[int]] | None = None,
) -> Tensor:
    """Return ``(picture, size, size)`` bool: what counts as foreground, resized and cropped like the picture.

    Args:
        model: a vision model; its preprocessing is applied (nearest pixel).
        pictures: with exact masks, or with those of a detector (:func:`detector.with_masks`).
        targets: explained class of each picture; needed for ``"class"``.
        match: ``"any"``: the union of all masks. ``"class"``: the masks named as the explained class only.
        classes: mask name to the model's class indices that mean it, where names differ; else names must be equal.

    Returns:
        All false for a picture without such a mask, so that whoever scores can count it.

    Raises:
        ValueError: unknown match, no targets though they are needed, a mask of another size than its picture.
    """
    check.one_of("match", match, MATCHES)
    if match == "class" and (targets is None or len(targets) != len(pictures)):
        raise ValueError(f"matching by class needs a class for each of {len(pictures)} pictures, got {targets!r}.")
    found = []
    for i, picture in enumerate(pictures):
        names = [name for name in picture.masks if match == "any" or named(model, targets[i], name, classes)]  # type: ignore[index]
        found.append(_seen(model, picture, names))
    return torch.from_numpy(np.stack(found))


def named(model: Model, target: int, name: str, classes: Mapping[str, Collection[int]] | None = None) -> bool:
    """Tell whether a mask's name means the model's class ``target``."""
    if classes is not None and name in classes:
        return target in classes[name]
    return model.classes[target] == name
