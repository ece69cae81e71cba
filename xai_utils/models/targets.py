"""What is asked of a model: the number of its answer that an explanation follows down."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xai_utils.models.kinds import Model

Target = int | str | Sequence[int | str] | None  #: one class for all samples, one for each, or the predicted ones


def targets_of(model: Model, logits: Tensor | None, target: Target) -> tuple[int, ...] | None:
    """Return the class to explain for each row of ``logits``: the given one or ones, or the predicted one."""
    if logits is None:
        if target is not None:
            raise ValueError(f"{model.name} has no classifier, so there is no class {target!r}.")
        return None
    if target is None:
        return tuple(logits.argmax(-1).tolist())
    if isinstance(target, (int, str)):
        return (model.class_index(target),) * len(logits)
    if len(target) != len(logits):
        raise ValueError(f"{len(target)} classes are given for {len(logits)} samples; expected one for each, or one.")
    return tuple(model.class_index(one) for one in target)
