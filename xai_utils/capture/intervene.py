"""Change a model's weights, or its hidden states while it runs, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture.attention import blocks_of
from xai_utils.maths import densray
from xai_utils.models import Model


@contextmanager
def restored(weights: Iterable[Tensor]) -> Iterator[None]:
    """Let weights be changed within the block; afterwards, also after an error, they have their own values back."""
    kept = [(one, one.detach().clone()) for one in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for one, values in kept:
                one.copy_(values)


@contextmanager
def without_direction(model: Model, vectors: Tensor, layers: Sequence[int] | None = None) -> Iterator[None]:
    """Zero the coordinate along a direction of every state that enters the named blocks, and leaves the last one.

    Args:
        model: the model; it is itself again after the block.
        vectors: one unit vector per block input and one for the output of the last, ``(layer + 1, width)``.
        layers: indices into ``vectors``; default all.

    Source: repository liangsheng02/densray-debiasing.
    """
    module: Any = model.module
    blocks = blocks_of(module, model.blocks or module.config.num_hidden_layers)
    if vectors.shape[0] != len(blocks) + 1:
        raise ValueError(f"{len(vectors)} directions for {len(blocks)} blocks; expected one more than blocks.")
    chosen = range(len(vectors)) if layers is None else layers
    undo = [_edit(blocks, place, vectors[place]) for place in chosen]
    try:
        yield
    finally:
        for handle in undo:
            handle()


@contextmanager
def without_blocks(model: Model, removed: Collection[int]) -> Iterator[None]:
    """Take blocks out of a model: within the block each hands on what it gets, as if only its skip were left.

    Args:
        model: the model; it is itself again after the block, also after an error.
        removed: numbers of blocks, first block 0.

    Raises:
        IndexError: there is no block of such a number.
    """
    module: Any = model.module
    blocks = blocks_of(module, model.blocks or module.config.num_hidden_layers)
    for number in removed:
        check.index("block", number, len(blocks))
    taken = {number % len(blocks) for number in removed}
    try:
        for number in taken:
            blocks[number].forward = _hand_on  # type: ignore[method-assign]
        yield
    finally:
        for number in taken:
            blocks[number].__dict__.pop("forward", None)


def _hand_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _edit(blocks: Sequence[Any], place: int, vector: Tensor) -> Callable[[], None]:
    if place == len(blocks):
        return blocks[-1].register_forward_hook(lambda _m, _a, out: _on_first(out, vector)).remove

    def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (densray.remove(args[0], vector), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": densray.remove(kwargs["hidden_states"], vector)}

    return blocks[place].register_forward_pre_hook(enter, with_kwargs=True).remove


def _on_first(output: Any, vector: Tensor) -> Any:
    if isinstance(output, tuple):
        return (densray.remove(output[0], vector), *output[1:])
    return densray.remove(output, vector)
