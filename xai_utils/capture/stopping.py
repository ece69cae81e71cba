"""Let long work on a model be stopped from another thread: the next layer that ends raises instead of handing on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.modules.module import register_module_forward_hook

from xai_utils import check


class Stopped(Exception):
    """The work was stopped on request; nothing of it is kept."""


@contextmanager
def stoppable(flag: threading.Event) -> Iterator[None]:
    """Raise :class:`Stopped` behind any layer that this thread runs inside the block once ``flag`` is set.

    Every method asks a model, most of them many times, so this reaches into the middle of each without its knowing. A
    layer that has begun is let end, so that hooks which come in pairs stay paired. Long loops that ask no model, as
    those of attention flow, look by :func:`check.still_wanted`.
    Work of other threads is not touched, and nothing stays behind.
    """
    mine = threading.get_ident()

    def look(*_: object) -> None:
        if flag.is_set() and threading.get_ident() == mine:
            raise Stopped("stopped; what was shown before is still valid.")

    handle, before = register_module_forward_hook(look), check.stopped.set(look)
    try:
        yield
        look()
    finally:
        handle.remove()
        check.stopped.reset(before)
