"""Figures of gender information: signed heat maps by layer, curves over layers, scores against a known table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from torch import Tensor

from xai_utils import check
from xai_utils.plots import base
from xai_utils.plots.base import AMOUNT, SIGNED
from xai_utils.stats import AgainstChance

COLOURS = ("#2a4b8d", "#c75d00", "#3b8d6f", "#8d3b7a")
LAYER = "layer (the state that enters it)"


def heat(ax: Axes, scores: Tensor, labels: Sequence[str], title: str = "", ring: int | None = None) -> None:
    """Draw signed scores by layer and their sum, every row as shares of its own largest entry, which stands beside it.

    Args:
        ax: where to draw.
        scores: ``(layer, token)``; orange towards the first word of the pair, purple towards the second.
        labels: the tokens.
        title: above.
        ring: layer to frame; as many as there are layers for the sum.
    """
    check.finite("scores", scores)
    values = np.concatenate([scores.numpy(), scores.sum(0, keepdim=True).numpy()])
    size = np.abs(values).max(1, keepdims=True)
    scaled = values / np.where(size > 0, size, 1)
    ax.imshow(scaled, cmap=SIGNED, norm=TwoSlopeNorm(0, -1, 1), aspect="auto", interpolation="nearest")
    for (row, column), share in np.ndenumerate(scaled):
        shown = f"{share:.2f}".replace("-0.00", "0").replace("0.00", "0").replace("0.", ".")
        ink = "white" if abs(share) > 0.75 else "black"
        ax.text(column, row, shown, ha="center", va="center", fontsize=6, color=ink)
    for row, most in enumerate(size[:, 0]):
        ax.text(len(labels) - 0.4, row, f"× {most:.2g}", va="center", fontsize=6, color="0.3")
    ax.axhline(len(values) - 1.5, color="white", linewidth=2.5)
    ax.set_xticks(range(len(labels)), labels, fontsize=7, rotation=30, ha="right")
    ax.set_yticks(range(len(values)), [*map(str, range(len(values) - 1)), "sum"], fontsize=7)
    ax.set_ylabel("layer", fontsize=8)
    ax.set_title(title, fontsize=9)
    if ring is not None:
        ax.add_patch(Rectangle((-0.5, ring - 0.48), len(labels), 0.96, fill=False, edgecolor="black", linewidth=1.4))


def heads(ax: Axes, shares: Tensor, title: str) -> None:
    """Draw shares of attention ``(layer, head)``, layers across."""
    drawn = ax.imshow(shares.T.numpy(), cmap=AMOUNT, aspect="auto", vmin=0)
    bar = ax.figure.colorbar(drawn, ax=ax)
    bar.set_label("share", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("layer", fontsize=8)
    ax.set_ylabel("head", fontsize=8)
    ax.tick_params(labelsize=7)


def curves(ax: Axes, rows: Mapping[str, ArrayLike], unit: str, title: str = "", across: str = LAYER) -> None:
    """Draw named values by layer, one line and marker each; of values ``(layer, sample)`` the mean."""
    for (name, values), colour, marker in zip(rows.items(), COLOURS, "osD^", strict=False):
        means = np.asarray(values, dtype=float)
        means = means.reshape(len(means), -1).mean(1)
        ax.plot(range(len(means)), means, marker=marker, markersize=4, label=name, color=colour)
    ax.axhline(0, color="0.6", linewidth=0.6)
    _finish(ax, title, across, unit)


def agreements(ax: Axes, rows: Mapping[str, AgainstChance], unit: str, title: str = "") -> None:
    """Draw mean agreements with their intervals on the band that chance gives."""
    for place, one in enumerate(rows.values()):
        ax.fill_betweenx([place - 0.35, place + 0.35], one.low, one.high, color="0.82", linewidth=0)
    base.intervals(ax, {name: one.found for name, one in rows.items()}, unit, null=0)
    ax.set_title(title, fontsize=9)
    ax.tick_params(axis="x", labelsize=7)


def separations(ax: Axes, rows: Mapping[str, Sequence[AgainstChance]], unit: str, title: str = "") -> None:
    """Draw areas under the ROC curve by layer with their intervals; what chance gives the last row in grey."""
    for place, ((name, layers), colour, marker) in enumerate(zip(rows.items(), COLOURS, "os", strict=False)):
        x, areas = np.arange(len(layers)) + 0.08 * place, np.array([one.found.mean for one in layers])
        off = [areas - [one.found.low for one in layers], np.array([one.found.high for one in layers]) - areas]
        ax.errorbar(x, areas, np.maximum(off, 0), fmt=marker + "-", markersize=4, color=colour, label=name, linewidth=1)
    bounds = [one.low for one in layers], [one.high for one in layers]
    ax.fill_between(x, *bounds, color="0.87", label="95 % with sides at random", linewidth=0)
    ax.set_ylim(0, 1.05)
    _finish(ax, title, LAYER, unit, legend="lower left")


def before_after(ax: Axes, before: np.ndarray, after: Mapping[str, np.ndarray], unit: str) -> None:
    """Draw one point an occupation, before across and every row of after upwards; the line is no change."""
    for (name, values), colour, marker in zip(after.items(), COLOURS, "o+x", strict=False):
        ax.plot(before, values, marker, markersize=4.5, color=colour, markerfacecolor="none", label=name)
    ax.axline((0, 0), slope=1, color="0.6", linewidth=0.7)
    _finish(ax, "one point an occupation", f"{unit}, as it is", "after")


def against_truth(ax: Axes, truth: np.ndarray, rows: Mapping[str, np.ndarray], title: str) -> None:
    """Draw scores of every occupation against its planted log odds, one point an occupation."""
    for (name, scores), colour, marker in zip(rows.items(), COLOURS, "o^", strict=False):
        ax.scatter(truth, scores, s=14, color=colour, marker=marker, alpha=0.8, linewidth=0, label=name)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.axvline(0, color="0.6", linewidth=0.6)
    _finish(ax, title, legend="best" if len(rows) > 1 else "")


def published(ax: Axes, given: Mapping[str, float], chance: Sequence[float], unit: str) -> None:
    """Draw distances as published beside those of noise; to the right of noise means less alike than noise."""
    places = np.arange(len(given))
    ax.hlines(places, chance, list(given.values()), color="0.7", linewidth=1.5)
    ax.plot(chance, places, "D", color="0.4", markersize=5, label="random vectors")
    ax.plot(list(given.values()), places, "o", color=COLOURS[1], markersize=5, label="published")
    ax.invert_yaxis()
    _finish(ax, "", unit)
    ax.set_yticks(places, list(given), fontsize=8)


def _finish(ax: Axes, title: str, across: str = "", up: str = "", legend: Any = "best") -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(across, fontsize=8)
    ax.set_ylabel(up, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(fontsize=7, frameon=False, loc=legend)
