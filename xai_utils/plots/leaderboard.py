"""Charts of the leaderboard: rankings with intervals, verdicts by operator, agreement of metrics, cost, destruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from xai_utils.stats import Ranking
from xai_utils.sweep.leaderboard import NULLS

METHOD, NULL = "#0072b2", "0.6"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")


def standings(ax: Axes, found: pd.DataFrame, unit: str, title: str, null: str = "random") -> None:
    """Draw means with intervals, best first; null maps in grey, the random map as a dashed line.

    Args:
        ax: where to draw.
        found: from :func:`leaderboard.standings`.
        unit: of the mean.
        title: above the chart.
        null: method of the dashed line.
    """
    for place, row in enumerate(found.sort_values("rank").itertuples()):
        colour = NULL if row.method in NULLS else METHOD
        ax.plot([row.low, row.high], [place, place], color=colour, linewidth=2.5)
        ax.plot(row.mean, place, "o", color=colour, markersize=4)
    ax.axvline(float(found.set_index("method").at[null, "mean"]), color="0.4", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(found)), list(found.sort_values("rank").method), fontsize=7)
    for label in ax.get_yticklabels():
        label.set_color("0.45" if label.get_text() in NULLS else "black")
    ax.invert_yaxis()
    ax.set_xlabel(unit, fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def by_operator(ax: Axes, ranks: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Draw the mean rank of every method under every way to remove, one line a method; crossings are flips.

    Args:
        ax: where to draw.
        ranks: operator to method to mean rank.
        title: above the chart.
    """
    names = sorted(next(iter(ranks.values())), key=lambda name: ranks[next(iter(ranks))][name])
    places = {operator: sorted(names, key=lambda name: row[name]) for operator, row in ranks.items()}
    heights = {operator: {name: place for place, name in enumerate(order)} for operator, order in places.items()}
    for number, name in enumerate(names):
        colour = NULL if name in NULLS else COLOURS[number % len(COLOURS)]
        ax.plot(
            range(len(ranks)), [heights[operator][name] for operator in ranks], marker="o", markersize=4, color=colour
        )
    ax.set_yticks(range(len(names)), names, fontsize=7)
    for label in ax.get_yticklabels():
        label.set_color("0.45" if label.get_text() in NULLS else "black")
    ax.set_xticks(range(len(ranks)), list(ranks), fontsize=8)
    ax.set_xlim(-0.1, len(ranks) - 0.9)
    ax.invert_yaxis()
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def agreement(ax: Axes, matrix: np.ndarray, names: Sequence[str], title: str) -> None:
    """Draw correlations between metrics, with their numbers."""
    ax.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            ax.text(
                column, row, f"{value:.1f}", ha="center", va="center", fontsize=5.5,
                color="white" if abs(value) > 0.75 else "black",
            )  # fmt: skip
    ax.set_xticks(range(len(names)), names, fontsize=6.5, rotation=90)
    ax.set_yticks(range(len(names)), names, fontsize=6.5)
    ax.set_title(title, fontsize=9)


def cost(ax: Axes, seconds: Mapping[str, float], quality: Mapping[str, float], unit: str, title: str) -> None:
    """Draw what a method finds against what it costs; numbered and joined: those that no cheaper one beats by 0.01.

    Null maps are left out but for the random one, a dashed line.
    """
    names = [name for name in seconds if name in quality and name not in NULLS]
    front: list[str] = []
    for name in sorted(names, key=lambda name: (seconds[name], -quality[name])):
        if not front or quality[name] >= quality[front[-1]] + 0.01:
            front.append(name)
    for name in names:
        ax.plot(seconds[name], quality[name], "o", color=METHOD, markersize=4)
    ax.plot([seconds[n] for n in front], [quality[n] for n in front], color="#d55e00", linewidth=0.9, zorder=0)
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
    ax.set_title(title, fontsize=9)
    ax.margins(x=0.12, y=0.12)
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, handlelength=0, ncols=2)
    ax.spines[["top", "right"]].set_visible(False)


def critical_difference(ax: Axes, ranking: Ranking, title: str) -> None:
    """Draw mean ranks on a line, and bars over methods that cannot be told apart (Demšar 2006)."""
    names, values = list(ranking.ranks), list(ranking.ranks.values())
    groups = ranking.groups()
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        ax.plot(value, place, "o", color=NULL if name in NULLS else METHOD, markersize=5)
    for number, group in enumerate(groups):
        x = max(values) + 0.5 + 0.35 * number
        ax.plot([x, x], [names.index(group[0]) - 0.3, names.index(group[-1]) + 0.3], color="#d55e00", linewidth=2)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    for label in ax.get_yticklabels():
        label.set_color("0.45" if label.get_text() in NULLS else "black")
    ax.invert_yaxis()
    ax.set_xlabel(f"mean rank (difference that counts: {ranking.critical:.1f}; n = {ranking.samples})", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


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
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
