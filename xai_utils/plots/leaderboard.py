"""Charts of the leaderboard: rankings with intervals, verdicts by operator, agreement of metrics, cost, destruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from xai_utils.plots import base
from xai_utils.plots.base import COLOURS
from xai_utils.stats import Interval, Ranking
from xai_utils.sweep.leaderboard import NULLS

METHOD, JOINS, NULL = COLOURS[0], COLOURS[1], "0.6"


def standings(ax: Axes, found: pd.DataFrame, unit: str, title: str, null: str = "random") -> None:
    """Draw means with intervals, best first; null maps in grey, the random map as a dashed line.

    Args:
        ax: where to draw.
        found: of one model and metric, from :func:`standings.chosen`.
        unit: of the mean.
        title: above the chart.
        null: method of the dashed line.
    """
    rows = {row.method: Interval(row.mean, row.low, row.high, row.n) for row in found.itertuples()}
    base.intervals(ax, rows, unit, rows[null].mean, NULLS)
    ax.tick_params(axis="x", labelsize=7)
    _finish(ax, title, list(rows))


def by_operator(ax: Axes, ranks: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Draw the mean rank of every method under every way to remove, one line a method; crossings are flips.

    Args:
        ax: where to draw.
        ranks: operator to method to mean rank.
        title: above the chart.
    """
    found = pd.DataFrame(ranks).sort_values(next(iter(ranks)), kind="stable")
    names, heights = list(found.index), found.rank(method="first") - 1
    for number, name in enumerate(names):
        colour = NULL if name in NULLS else COLOURS[number % len(COLOURS)]
        ax.plot(range(len(ranks)), heights.loc[name], marker="o", markersize=4, color=colour)
    ax.set_xticks(range(len(ranks)), list(ranks), fontsize=8)
    ax.set_xlim(-0.1, len(ranks) - 0.9)
    ax.invert_yaxis()
    _finish(ax, title, names)


def agreement(ax: Axes, found: pd.DataFrame, title: str) -> None:
    """Draw correlations between metrics, rows and columns named, with their numbers."""
    ax.imshow(found, cmap="PuOr_r", vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(found):
        ink = "white" if abs(value) > 0.75 else "black"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=5.5, color=ink)
    ax.set_xticks(range(len(found)), found.columns, fontsize=6.5, rotation=90)
    ax.set_yticks(range(len(found)), found.index, fontsize=6.5)
    ax.set_title(title, fontsize=9)


def cost(ax: Axes, found: pd.DataFrame, unit: str, title: str) -> None:
    """Draw what a method finds against what it costs; numbered and joined: those that no cheaper one beats by 0.01.

    Null maps are left out but for the random one, a dashed line. Args as in :func:`standings`.
    """
    known = found.set_index("method")
    seconds, quality = known.seconds.clip(lower=1e-4), known["mean"]
    names = [name for name in known.index if name not in NULLS]
    front: list[str] = []
    for name in sorted(names, key=lambda name: (seconds[name], -quality[name])):
        if not front or quality[name] >= quality[front[-1]] + 0.01:
            front.append(name)
    ax.plot(seconds[names], quality[names], "o", color=METHOD, markersize=4)
    ax.plot(seconds[front], quality[front], color=JOINS, linewidth=0.9, zorder=0)
    for number, name in enumerate(front, 1):
        at = (seconds[name], quality[name])
        ax.annotate(str(number), at, xytext=(-3, 4), textcoords="offset points", fontsize=8, ha="right")
        ax.plot([], [], " ", label=f"{number}  {name}")
    if "random" in quality:
        ax.axhline(quality["random"], color="0.4", linewidth=0.8, linestyle="--")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("processor seconds a sample", fontsize=8)
    ax.set_ylabel(unit, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.margins(x=0.12, y=0.12)
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, handlelength=0, ncols=2)
    _finish(ax, title)


def critical_difference(ax: Axes, ranking: Ranking, title: str) -> None:
    """Draw mean ranks on a line, and bars over methods that cannot be told apart (Demšar 2006)."""
    names, values = list(ranking.ranks), list(ranking.ranks.values())
    groups = ranking.groups()
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        ax.plot(value, place, "o", color=NULL if name in NULLS else METHOD, markersize=5)
    for number, group in enumerate(groups):
        x = max(values) + 0.5 + 0.35 * number
        ax.plot([x, x], [names.index(group[0]) - 0.3, names.index(group[-1]) + 0.3], color=JOINS, linewidth=2)
    ax.invert_yaxis()
    ax.set_xlabel(f"mean rank (difference that counts: {ranking.critical:.1f}; n = {ranking.samples})", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    _finish(ax, title, names)


def destruction(ax: Axes, left: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """Draw what is left of each method's maps as more of the model is shuffled.

    Args:
        ax: where to draw.
        left: method to part to correlations of the samples, parts in the order they are shuffled.
        title: above the chart.
    """
    for number, (name, parts) in enumerate(left.items()):
        means = [1.0, *(float(np.mean(values)) for values in parts.values())]
        style = "--" if name in NULLS else "-"
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(range(len(means)), means, style, marker="o", markersize=3, color=colour, label=name)
    shown = [name.rsplit("encoder.", 1)[-1] for name in next(iter(left.values()))]
    ax.set_xticks(range(len(shown) + 1), ["nothing", *shown], rotation=60, ha="right", fontsize=7)
    ax.axhline(0, color="0.5", linewidth=0.7)
    ax.set_ylabel("rank correlation with the map of the whole model", fontsize=8)
    ax.tick_params(axis="y", labelsize=8)
    _finish(ax, title)


def _finish(ax: Axes, title: str, methods: Sequence[str] = ()) -> None:
    """Write the title and, if there are any, the methods on the vertical axis, null maps in grey."""
    if methods:
        for label in ax.set_yticks(range(len(methods)), methods, fontsize=7):
            label.label1.set_color("0.45" if label.label1.get_text() in NULLS else "black")
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
