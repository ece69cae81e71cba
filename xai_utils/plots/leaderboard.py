"""Charts of the leaderboard: methods by models, places, agreement with the truth, destruction, pointing, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from xai_utils.plots import base, style
from xai_utils.plots.style import COLOURS, SMALLEST
from xai_utils.stats import Interval
from xai_utils.sweep.standings import NULLS

METHOD, JOINS, NULL = COLOURS[0], COLOURS[1], "0.6"
MARKERS = "os^Dv"


def matrix(ax: Axes, boards: Mapping[str, pd.DataFrame], unit: str) -> None:
    """Draw the means of many methods on many models as colours with numbers.

    Framed: the best of a model, and what its test does not tell from the best. Empty: no method of that model. Methods
    are in the order of their mean over the models that have them, nulls below.

    Args:
        ax: where to draw.
        boards: model to standings by one metric in [0, 1], from :func:`standings.chosen`.
        unit: of the means.
    """
    wide = pd.DataFrame({name: one.set_index("method")["mean"] for name, one in boards.items()})
    order = wide.mean(axis=1).sort_values(ascending=False).index
    wide = wide.loc[sorted(order, key=lambda name: name in NULLS)]
    shown = ax.imshow(wide, cmap=style.AMOUNT, vmin=0, vmax=1, aspect="auto")
    tied = {(row.method, name) for name, one in boards.items() for row in one.itertuples() if row.tied}
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        if np.isnan(value):
            continue
        ink = "black" if value > 0.6 else "white"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=SMALLEST, color=ink)
        if (wide.index[row], wide.columns[column]) in tied:
            corner = (column - 0.46, row - 0.42)
            ax.add_patch(base.plt.Rectangle(corner, 0.92, 0.84, fill=False, edgecolor=JOINS, linewidth=2))
    ax.set_xticks(range(wide.shape[1]), wide.columns)
    ax.xaxis.tick_top()
    ax.figure.colorbar(shown, ax=ax, fraction=0.03, pad=0.02).set_label(unit)
    _methods(ax, list(wide.index))


def places(ax: Axes, found: pd.DataFrame, title: str) -> None:
    """Draw the place of every method with its 95 % interval, the best on top; nulls in grey.

    Args:
        ax: where to draw.
        found: from :func:`leaderboard.places`.
        title: above the chart.
    """
    rows = {row.method: Interval(row.place, row.low, row.high, 0) for row in found.itertuples()}
    base.intervals(ax, rows, "place; 1 is best", nulls=NULLS)
    ax.set_xlim(0.5, len(rows) + 0.5)
    _finish(ax, title)
    _methods(ax, list(rows))


def correlations(ax: Axes, found: pd.DataFrame, title: str) -> None:
    """Draw rank correlations with the truth, their 95 % intervals, and filled where the corrected test finds them.

    Args:
        ax: where to draw.
        found: from :func:`agreement.with_truth`, with ``p`` corrected for the family.
        title: above the chart.
    """
    for place, row in enumerate(found.itertuples()):
        ax.plot([row.low, row.high], [place, place], color=METHOD, linewidth=2)
        filled = METHOD if row.p < 0.05 else "white"
        ax.plot(row.rho, place, "o", markersize=6, markeredgecolor=METHOD, markerfacecolor=filled)
    ax.axvline(0, color="0.4", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(found)), found.metric)
    ax.set_xlim(-1.05, 1.05)
    ax.invert_yaxis()
    ax.set_xlabel("rank correlation with the truth, over methods")
    _finish(ax, title)


def destruction(ax: Axes, found: pd.DataFrame, title: str, tests: Sequence[str]) -> None:
    """Draw what is left of the maps of each method after tests, with 95 % intervals over samples and shuffles.

    Args:
        ax: where to draw.
        found: rows of one model from :func:`destroyed.left`.
        title: above the chart.
        tests: one mark each.
    """
    names = list(found[found.test == tests[-1]].sort_values("left").method)
    for number, test in enumerate(tests):
        own, shift = found[found.test == test].set_index("method"), 0.5 * (number / len(tests) - 0.4)
        at = np.arange(len(names)) + shift
        colour = COLOURS[number]
        ax.hlines(at, own.loc[names, "low"], own.loc[names, "high"], color=colour, linewidth=1.5)
        ax.plot(own.loc[names, "left"], at, MARKERS[number], color=colour, markersize=4, label=test)
    ax.axvline(0, color="0.4", linewidth=0.8, linestyle="--")
    ax.set_xlim(-0.6, 1.05)
    ax.invert_yaxis()
    ax.set_xlabel("rank correlation with the map before")
    _finish(ax, title)
    _methods(ax, names)


def pointing(ax: Axes, found: Mapping[str, Mapping[str, Interval]], title: str) -> None:
    """Draw on what share of pictures each method points at each object, with intervals.

    Args:
        ax: where to draw.
        found: object to method to share.
        title: above the chart.
    """
    names = list(next(iter(found.values())))
    for number, (part, rows) in enumerate(found.items()):
        own, at = [rows[name] for name in names], np.arange(len(names)) + 0.3 * number - 0.15
        ax.hlines(at, [one.low for one in own], [one.high for one in own], color=COLOURS[number], linewidth=1.5)
        ax.plot([one.mean for one in own], at, MARKERS[number], color=COLOURS[number], markersize=4, label=part)
    ax.set_xlim(-0.03, 1.03)
    ax.invert_yaxis()
    ax.set_xlabel("share of pictures")
    _finish(ax, title)
    _methods(ax, names)


def networks(ax: Axes, found: pd.DataFrame, title: str) -> None:
    """Draw the place of every method on each of several networks, the best mean place on top.

    Args:
        ax: where to draw.
        found: ``(method, network)``, places.
        title: above the chart.
    """
    found = found.loc[found.mean(axis=1).sort_values().index]
    for number, network in enumerate(found):
        ax.plot(
            found[network], range(len(found)), MARKERS[number % len(MARKERS)], color=COLOURS[number], markersize=5,
            alpha=0.8, label=network,
        )  # fmt: skip
    ax.hlines(range(len(found)), found.min(axis=1), found.max(axis=1), color="0.75", linewidth=1, zorder=0)
    ax.invert_yaxis()
    ax.set_xlabel("place; 1 is best")
    _finish(ax, title)
    _methods(ax, list(found.index))


def cost(ax: Axes, found: pd.DataFrame, unit: str, title: str) -> None:
    """Draw what a method finds against what it costs; numbered and joined: those that no cheaper one beats by 0.01.

    Null maps are left out but for the random one, a dashed line.

    Args:
        ax: where to draw.
        found: of one model and metric, from :func:`standings.chosen`.
        unit: of the mean.
        title: above the chart.
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
        ax.annotate(str(number), at, xytext=(-3, 4), textcoords="offset points", fontsize=SMALLEST, ha="right")
        ax.plot([], [], " ", label=f"{number}  {name}")
    if "random" in quality:
        ax.axhline(quality["random"], color="0.4", linewidth=0.8, linestyle="--")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("processor seconds a sample")
    ax.set_ylabel(unit)
    ax.margins(x=0.12, y=0.12)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, handlelength=0, ncols=2)
    _finish(ax, title)


def _methods(ax: Axes, names: Sequence[str]) -> None:
    """Write the methods on the vertical axis, null maps in grey."""
    for label in ax.set_yticks(range(len(names)), names):
        label.label1.set_color("0.45" if label.label1.get_text() in NULLS else "black")


def _finish(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
