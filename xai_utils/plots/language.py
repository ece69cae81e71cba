"""Figures of a language model: many methods on one prompt, what each word is made of, how often the cause is found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils.plots import base, style
from xai_utils.stats import Interval


def by_word(fig: Figure, rows: Mapping[str, tuple[Sequence[float], bool]], words: Sequence[str]) -> None:
    """Draw one narrow panel of bars for each method, first word on top; each is scaled to its own largest bar.

    Args:
        fig: an empty figure.
        rows: name to ``(scores (word,), signed)``; not all of a row's scores are zero.
        words: of the prompt.
    """
    axes = fig.subplots(1, len(rows), squeeze=False)[0]
    for place, (ax, (name, (scores, signed))) in enumerate(zip(axes, rows.items(), strict=True)):
        values = torch.as_tensor(scores, dtype=torch.float64)
        base.token_bars(ax, values / values.abs().max(), words, name.replace(", ", ",\n"), signed=signed)
        ax.set(xlim=(-1.08, 1.08) if signed else (0, 1.08), xticks=[])
        if place:
            ax.set_yticks(range(len(words)), [])


def by_task(
    fig: Figure, found: Mapping[str, Mapping[str, Interval]], unit: str, nulls: Collection[str] = (), null: str = ""
) -> None:
    """Draw means with intervals, one panel a task with the same rows; nulls in grey, one of them as a dashed line.

    Args:
        fig: an empty figure.
        found: task to name to mean and interval; every task has the names of the first.
        unit: of the mean.
        nulls: names drawn in grey.
        null: whose mean is the dashed line; none by default.
    """
    names = list(next(iter(found.values())))
    axes = fig.subplots(1, len(found), squeeze=False)[0]
    for place, (ax, (task, rows)) in enumerate(zip(axes, found.items(), strict=True)):
        ordered = {name: rows[name] for name in names}
        base.intervals(ax, ordered, unit, rows[null].mean if null else None, nulls)
        counts = sorted({one.n for one in rows.values()})
        ax.set_title(f"{task.replace('_', ' ')} (n = {' or '.join(map(str, counts))})")
        ax.set_xlim(-0.03, 1.03)
        if place:
            ax.set_yticks(range(len(names)), [])


def by_depth(
    fig: Figure, found: Mapping[str, Mapping[str, Sequence[Interval]]], depths: Sequence[int], null: Mapping[str, float]
) -> None:
    """Draw lines with intervals over the number of shuffled blocks, one panel a task, one legend below.

    Args:
        fig: an empty figure with a constrained layout.
        found: task to label to a mean and interval for each depth.
        depths: how many blocks are shuffled.
        null: task to the mean of a random ranking, a dashed line.
    """
    axes = fig.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for ax, (task, rows) in zip(axes, found.items(), strict=True):
        for label, line in rows.items():
            base.interval_line(ax, range(len(depths)), line, label)
        ax.axhline(null[task], color="black", linestyle="--", linewidth=1, label="random ranking")
        ax.set_xticks(range(len(depths)), [str(one) for one in depths])
        ax.set(title=task.replace("_", " "), xlabel="last blocks shuffled", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("average precision, or share")
    base.legend_below(fig)


def answer_table(ax: Axes, table: pd.DataFrame, unit: str, signed: bool = True, numbers: bool = False) -> None:
    """Show what every row is made of: rows are what is explained, columns what explains it.

    Args:
        ax: where to draw.
        table: from :meth:`stepwise.Steps.grouped`; what is exactly zero everywhere to the right of a row's last entry
            comes later in the text and stays white.
        unit: of the scores.
        signed: colours centred at zero.
        numbers: write them into the cells.
    """
    values = np.ma.masked_where(_later(table.to_numpy()), table.to_numpy())
    limit = float(np.abs(values).max())
    name, low = (style.SIGNED, -limit) if signed else (style.AMOUNT, 0.0)
    drawn = ax.imshow(values, cmap=name, vmin=low, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(table.shape[1]), [_short(one) for one in table.columns], rotation=90)
    ax.set_yticks(range(table.shape[0]), [_short(one) for one in table.index])
    ax.figure.colorbar(drawn, ax=ax, fraction=0.03, pad=0.02).set_label(unit)
    if numbers:
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            ink = "white" if abs(value) > 0.7 * limit else "black"
            ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=style.SMALLEST, color=ink)


def _later(values: np.ndarray) -> np.ndarray:
    """Say which cells lie to the right of a row's last one that is not zero."""
    return np.cumsum(values[:, ::-1] != 0, axis=1)[:, ::-1] == 0


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def chances(ax: Axes, words: Sequence[str], before: Tensor, after: Tensor | None = None, title: str = "") -> None:
    """Draw the probability of some next words, and what it becomes, ``(word,)`` each, likeliest on top."""
    places = np.arange(len(words))
    height = 0.8 if after is None else 0.4
    ax.barh(places - (0 if after is None else 0.2), before, height, color=style.BLUE, label="whole prompt")
    if after is not None:
        ax.barh(places + 0.2, after, height, color=style.COLOURS[1], label="without the marked words")
        ax.legend(loc="lower right")
    ax.set_yticks(places, words)
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.set_xlabel("probability")
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
