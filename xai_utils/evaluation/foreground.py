"""The foreground of each picture as its model sees it, from whatever masks the picture carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.models import Model
from xai_utils.models.encoding import view_mask
from xai_utils.samples.kinds import Picture

MATCHES = ("any", "class")


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
    if model.preprocessing is None:
        raise ValueError(f"{model.name} reads texts; only pictures have a foreground.")
    side = model.preprocessing.size
    found = np.zeros((len(pictures), side, side), dtype=bool)
    for i, picture in enumerate(pictures):
        wanted = [
            mask
            for name, mask in picture.masks.items()
            if match == "any" or named(model, targets[i], name, classes)  # type: ignore[index]
        ]
        for mask in wanted:
            if mask.shape != picture.image.shape[1:]:
                raise ValueError(
                    f"a mask of {picture.name!r} has {mask.shape} pixels, the picture {picture.image.shape[1:]}; "
                    "both go through the same resize and crop, so they must have one size."
                )
            found[i] |= view_mask(mask, model.preprocessing)
    return torch.from_numpy(found)


def named(model: Model, target: int, name: str, classes: Mapping[str, Collection[int]] | None = None) -> bool:
    """Tell whether a mask's name means the model's class ``target``."""
    if classes is not None and name in classes:
        return target in classes[name]
    return model.classes[target] == name
