"""Batches that fit into memory: as many samples a pass as a budget allows, fewer when memory runs out all the same.

How much one sample takes is measured, from the tensors that a first pass makes, and so is the same on every machine
and in every worker: the results of a sweep must not depend on how much memory happened to be free.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xai_utils import check

BUDGET = 2**30  #: bytes of tensors that one pass may hold at a time beyond the weights, unless told otherwise


class _Watch(TorchDispatchMode):
    """Count the bytes of the storages made within the block that are alive at a time, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, name: int) -> None:
        self.now -= self.alive.pop(name, 0)


def peak(function: Callable[[Tensor], object], items: Tensor) -> int:
    """Return the most bytes of tensors that ``function(items)`` holds at a time, beyond what was there before.

    What a kernel uses for itself and gives back is not seen.
    """
    with _Watch() as watch:
        function(items)
    return watch.peak


def chunk_size(function: Callable[[Tensor], Tensor], items: Tensor, budget: int = BUDGET) -> int:
    """Return how many of the items fit into the budget in one pass; at least one.

    Measured on the first item. A pass that also holds something that does not grow with the number of items gets fewer
    of them than would fit, never more.
    """
    check.at_least_one("budget", budget)
    check.at_least_one("items", len(items))
    return min(max(budget // max(peak(function, items[:1]), 1), 1), len(items))


def in_chunks(function: Callable[[Tensor], Tensor], items: Tensor, chunk: int) -> Tensor:
    """Apply a function to the items in chunks; each time memory runs out, the chunk is halved and tried again.

    Args:
        function: takes ``(item, ...)`` and returns ``(item, ...)``, each result from its own item alone.
        items: ``(item, ...)``.
        chunk: items to begin with, such as from :func:`chunk_size`.

    Returns:
        The results together, ``(item, ...)``.

    Raises:
        MemoryError: a single item does not fit.
    """
    check.at_least_one("chunk", chunk)
    check.at_least_one("items", len(items))
    found: list[Tensor] = []
    start = 0
    while start < len(items):
        done = _attempt(function, items[start : start + chunk])
        if done is not None:
            found.append(done)
            start += chunk
        elif chunk == 1:
            raise MemoryError(
                "memory runs out with a single item in the pass; take a smaller model or input, a device with more "
                "memory, or fewer workers on this one."
            )
        else:
            chunk = min(chunk, len(items) - start) // 2 or 1
    return torch.cat(found)


def _attempt(function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor | None:
    """Return the result, or ``None`` if memory ran out; leaving this function lets go of what the pass held."""
    try:
        return function(items)
    except (MemoryError, RuntimeError) as error:  # the processor's allocator raises a plain RuntimeError
        if not ran_out(error):
            raise
    if items.is_cuda:
        torch.cuda.empty_cache()
    return None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the processor."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error).lower() for word in words)
