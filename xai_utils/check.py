"""Input checks shared by the pure modules: each says what came, what was expected and what to try."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import psutil
import torch
from torch import Tensor

#: what a long loop calls between two steps; it raises where the work of this thread is to end
stopped: ContextVar[Callable[[], None]] = ContextVar("stopped", default=lambda: None)


def still_wanted() -> None:
    """Let a long loop be ended between two of its steps, see :func:`stopping.stoppable`; else do nothing."""
    stopped.get()()


def finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity (``ValueError`` with how many and the first place)."""
    if torch.isfinite(values.detach().sum()):  # one pass over the values; only a suspicious sum is looked into
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name} holds {int(bad.sum())} of {bad.numel()} values that are NaN or infinite, the first at "
            f"{first}. Look at the input (a NaN image?) and at the precision (half precision overflows)."
        )


def square_stack(name: str, maps: Tensor) -> None:
    """Accept ``(layer, ..., query, key)`` with as many queries as keys and at least one layer."""
    if maps.ndim < 3 or maps.shape[-1] != maps.shape[-2] or 0 in maps.shape:
        raise ValueError(
            f"{name} has shape {tuple(maps.shape)}, expected (layer, ..., query, key) with as many queries "
            "as keys and nothing empty. A single map needs maps[None]; heads are fused by rollout.fuse."
        )


def non_negative(name: str, maps: Tensor) -> Tensor:
    """Accept finite values of zero and above; return their sums over the last axis, which the check needs anyway."""
    sums, low = _sums_and_least(name, maps)
    if (smallest := float(low.min())) < 0:
        raise ValueError(f"{name} holds negative entries (down to {smallest:.2g}); logits need a softmax over keys.")
    return sums


def row_stochastic(name: str, maps: Tensor, atol: float = 1e-4) -> Tensor:
    """Accept non-negative maps ``(layer, ..., query, key)`` whose rows sum to one within ``atol``; return the sums."""
    sums, low = _sums_and_least(name, maps)
    off = (sums - 1).abs().flatten(1).amax(1)
    for layer, (gap, smallest) in enumerate(zip(off.tolist(), low.tolist(), strict=True)):
        if gap > atol or smallest < 0:
            raise ValueError(
                f"{name}[{layer}] is not a probability map: its rows miss 1 by up to {gap:.2g} and its "
                f"smallest entry is {smallest:.2g}. Logits need a softmax over keys; a map with entries "
                "dropped must be renormalised with keepdim=True (rollout.renormalise)."
            )
    return sums


def _sums_and_least(name: str, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums over the last axis and the least entry of each layer, of finite values.

    Layer by layer, so that the second look at a layer finds it in the processor's cache.
    """
    looked = [(one.sum(-1), one.detach().amin()) for one in maps]
    sums, low = torch.stack([total for total, _ in looked]), torch.stack([least for _, least in looked])
    if not torch.isfinite(sums.detach().sum()):
        finite(name, maps)
    return sums, low


def share(name: str, value: float, below: float | None = None) -> None:
    """Accept a number in [0, 1], or in [0, ``below``) where a limit is given."""
    if not 0 <= value <= 1 or (below is not None and value >= below):
        wanted = "between 0 and 1" if below is None else f"from 0 to below {below}"
        raise ValueError(f"{name} is {value}, expected a share {wanted}.")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Accept one of the names in ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of: {', '.join(allowed)}.")


def text(name: str, value: object) -> str:
    """Accept a text; what papermill made a number or a truth value of (007, 1e5, True) becomes what was typed again."""
    if isinstance(value, str):
        return value
    typed = _typed(value)
    if typed is not None and len(typed) == 1:
        return typed.pop()
    if typed is None and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(
        f"{name} is {value!r}, a {type(value).__name__} and no text. YAML reads yes, no, null and 1.5 so: put it "
        "in quotes; papermill takes it as it stands by -r NAME VALUE."
    )


def _typed(value: object) -> set[str] | None:
    """Return the texts that papermill's command line has for a value; ``None`` if no such command began this process.

    papermill takes 007 for 7; the command itself is remembered by the process that started the notebook's kernel.
    """
    try:
        words = psutil.Process(int(os.environ["JPY_PARENT_PID"])).cmdline()
    except (KeyError, ValueError, psutil.Error):
        return None
    if not any("papermill" in word for word in words[:3]):
        return None
    given = [two for one, two in zip(words, words[2:], strict=False) if one in ("-p", "--parameters")]
    return {one for one in given if repr(_as_papermill_reads(one)) == repr(value)}


def _as_papermill_reads(word: str) -> object:
    known: dict[str, object] = {"True": True, "False": False, "None": None}
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return known.get(word, word)


def at_least_one(name: str, value: int) -> None:
    """Accept a count of one and above."""
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1.")


def index(name: str, value: int, size: int) -> None:
    """Accept a position in a list of ``size`` things, negative ones counting from the end."""
    if not -size <= value < size:
        raise IndexError(f"{name} is {value}, but there are {size}: expected 0 to {size - 1} (or -{size} to -1).")
