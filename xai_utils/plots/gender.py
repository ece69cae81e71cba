"""Figures of gender information: signed heat maps by layer, curves over layers, scores against a known table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle
from torch import Tensor

from xai_utils import check
from xai_utils.gender.held_out import Separation
from xai_utils.metrics.agreement import Agreement
from xai_utils.plots.base import SIGNED

COLOURS = ("#2a4b8d", "#c75d00", "#3b8d6f", "#8d3b7a")


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
    for row, column in np.ndindex(values.shape):
        ink = "white" if abs(scaled[row, column]) > 0.75 else "black"
        ax.text(
            column,
            row,
            f"{scaled[row, column]:.2f}".replace("-0.00", "0").replace("0.00", "0").replace("0.", "."),
            ha="center",
            va="center",
            fontsize=6,
            color=ink,
        )
    for row, most in enumerate(size[:, 0]):
        ax.text(len(labels) - 0.4, row, f"× {most:.2g}", va="center", fontsize=6, color="0.3")
    ax.axhline(len(values) - 1.5, color="white", linewidth=2.5)
    ax.set_xticks(range(len(labels)), labels, fontsize=7, rotation=30, ha="right")
    ax.set_yticks(range(len(values)), [*map(str, range(len(values) - 1)), "sum"], fontsize=7)
    ax.set_ylabel("layer", fontsize=8)
    ax.set_title(title, fontsize=9)
    if ring is not None:
        ax.add_patch(Rectangle((-0.5, ring - 0.48), len(labels), 0.96, fill=False, edgecolor="black", linewidth=1.4))


def curves(ax: Axes, rows: Mapping[str, Sequence[float]], unit: str, title: str = "", first: int = 0) -> None:
    """Draw named values by layer, one line and marker each."""
    for (name, values), colour, marker in zip(rows.items(), COLOURS, "osD^", strict=False):
        ax.plot(range(first, first + len(values)), values, marker=marker, markersize=4, label=name, color=colour)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_xlabel("layer (the state that enters it)", fontsize=8)
    ax.set_ylabel(unit, fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)


def agreements(ax: Axes, rows: Mapping[str, Agreement], unit: str, title: str = "") -> None:
    """Draw mean agreements with their intervals on the band that shuffled tokens give."""
    for place, (_name, one) in enumerate(rows.items()):
        ax.fill_betweenx([place - 0.35, place + 0.35], one.low, one.high, color="0.82", linewidth=0)
        ax.plot([one.found.low, one.found.high], [place, place], color=COLOURS[0], linewidth=2)
        ax.plot(one.found.mean, place, "o", color=COLOURS[0], markersize=5)
    ax.axvline(0, color="0.5", linewidth=0.7, linestyle="--")
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel(unit, fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def separations(ax: Axes, rows: Mapping[str, Sequence[Separation]], unit: str, title: str = "") -> None:
    """Draw areas under the ROC curve by layer with their intervals; the null of the last row in grey."""
    for place, ((name, found), colour, marker) in enumerate(zip(rows.items(), COLOURS, "os", strict=False)):
        x, areas = np.arange(len(found)) + 0.08 * place, np.array([one.area.mean for one in found])
        off = [areas - [one.area.low for one in found], np.array([one.area.high for one in found]) - areas]
        ax.errorbar(x, areas, np.maximum(off, 0), fmt=marker + "-", markersize=4, color=colour, label=name, linewidth=1)
        if place == len(rows) - 1:
            bounds = [one.low for one in found], [one.high for one in found]
            ax.fill_between(x, *bounds, color="0.87", label="95 % with sides at random", linewidth=0)
    ax.set_ylim(0, 1.05)
    ax.set_xlabel("layer (the state that enters it)", fontsize=8)
    ax.set_ylabel(unit, fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False, loc="lower left")


def before_after(ax: Axes, leaning: Mapping[str, Tensor], unit: str) -> None:
    """Draw one point an occupation, the first row across and every other one upwards; the line is no change."""
    (_, before), *others = leaning.items()
    for (name, after), colour, marker in zip(others, COLOURS, "o+x", strict=False):
        ax.plot(before, after, marker, markersize=4.5, color=colour, markerfacecolor="none", label=name)
    ax.axline((0, 0), slope=1, color="0.6", linewidth=0.7)
    ax.set_xlabel(f"{unit}, as it is", fontsize=8)
    ax.set_ylabel("after", fontsize=8)
    ax.set_title("one point an occupation", fontsize=9)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)


def two_against_truth(ax: Axes, truth: np.ndarray, rows: Mapping[str, np.ndarray], title: str) -> None:
    """Draw two scores of every occupation against its planted log odds."""
    for (name, scores), colour, marker in zip(rows.items(), COLOURS, "o^", strict=False):
        ax.scatter(truth, scores, s=14, color=colour, marker=marker, alpha=0.8, linewidth=0, label=name)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)


def published(ax: Axes, given: Mapping[str, float], chance: Mapping[str, float], unit: str) -> None:
    """Draw distances as published beside those of noise; to the right of noise means less alike than noise."""
    places = np.arange(len(given))
    ax.hlines(places, list(chance.values()), list(given.values()), color="0.7", linewidth=1.5)
    ax.plot(list(chance.values()), places, "D", color="0.4", markersize=5, label="random vectors")
    ax.plot(list(given.values()), places, "o", color=COLOURS[1], markersize=5, label="published")
    ax.set_yticks(places, list(given), fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel(unit, fontsize=8)
    ax.legend(fontsize=7, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def against_truth(ax: Axes, truth: np.ndarray, scores: np.ndarray, title: str) -> None:
    """Draw one point an occupation: the planted log odds against a score."""
    ax.scatter(truth, scores, s=14, color=COLOURS[0], alpha=0.8, linewidth=0)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.axvline(0, color="0.6", linewidth=0.6)
    ax.set_title(title, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
