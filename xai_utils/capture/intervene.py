"""Change a model's weights, or its hidden states while it runs, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture.attention import blocks_of
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
def edited(model: Model, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change the states that enter blocks, or that leave the last one, while the model runs.

    Args:
        model: the model; it is itself again after the block.
        edits: by place a function of the states ``(sample, token, width)``: place 0 is what enters the first block, and
            as many as there are blocks what leaves the last one.

    Raises:
        ValueError: a place that the model does not have.
    """
    module: Any = model.module
    blocks = blocks_of(module, model.blocks or module.config.num_hidden_layers)
    if wrong := [place for place in edits if not 0 <= place <= len(blocks)]:
        raise ValueError(f"there is no place {wrong[0]} among {len(blocks)} blocks; expected 0 to {len(blocks)}.")
    undo = [_edit(blocks, place, change) for place, change in edits.items()]
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


def _edit(blocks: Sequence[Any], place: int, change: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    if place == len(blocks):
        return blocks[-1].register_forward_hook(lambda _m, _a, out: _on_first(out, change)).remove

    def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return blocks[place].register_forward_pre_hook(enter, with_kwargs=True).remove


def _on_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)
