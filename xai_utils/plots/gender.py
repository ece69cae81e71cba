"""Figures of gender information: signed heat maps by layer, curves over layers, scores against a known table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from torch import Tensor

from xai_utils import check
from xai_utils.plots import base
from xai_utils.plots.base import AMOUNT, COLOURS, SIGNED
from xai_utils.stats import AgainstChance

LAYER = "layer (the state that enters it)"


def heat(
    ax: Axes, scores: Tensor, labels: Sequence[str], title: str = "", ring: int | None = None, unit: str = "score"
) -> None:
    """Draw signed scores by layer and, below a line, their mean over the layers, all on one scale.

    The mean ranks tokens as the sum does and fits the scale. Numbers stand where a score is at least a third of the
    largest.

    Args:
        ax: where to draw.
        scores: ``(layer, token)``; orange towards the first word of the pair, purple towards the second.
        labels: the tokens.
        title: above.
        ring: layer to frame; as many as there are layers for the mean.
        unit: beside the colour bar.
    """
    check.finite("scores", scores)
    values = np.concatenate([scores.numpy(), scores.mean(0, keepdim=True).numpy()])
    most = float(np.abs(values).max()) or 1.0
    drawn = ax.imshow(values, cmap=SIGNED, norm=TwoSlopeNorm(0, -most, most), aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(values):
        if abs(value) >= most / 3:
            ink = "white" if abs(value) > 0.75 * most else "black"
            ax.text(column, row, _short(value), ha="center", va="center", fontsize=8, color=ink)
    ax.axhline(len(values) - 1.5, color="black", linewidth=1.5)
    _tokens(ax, labels, [*map(str, range(len(values) - 1)), "mean"], title)
    _bar(ax, drawn, unit)
    if ring is not None:
        ax.add_patch(Rectangle((-0.5, ring - 0.48), len(labels), 0.96, fill=False, edgecolor="black", linewidth=1.4))


def states(
    ax: Axes, values: np.ndarray, labels: Sequence[str], title: str, unit: str, most: float | None = None
) -> None:
    """Draw sizes by layer and token ``(layer, token)``, from zero to ``most``, by default the largest."""
    drawn = ax.imshow(values, cmap=AMOUNT, aspect="auto", vmin=0, vmax=most, interpolation="nearest")
    _tokens(ax, labels, list(map(str, range(len(values)))), title)
    _bar(ax, drawn, unit)


def heads(ax: Axes, shares: Tensor, title: str) -> None:
    """Draw shares of attention ``(layer, head)``, layers across, in colours of their logarithm."""
    values = shares.T.numpy()
    drawn = ax.imshow(values, cmap=AMOUNT, aspect="auto", norm=LogNorm(max(values.min(), 1e-4), values.max()))
    _bar(ax, drawn, "share of attention")
    _finish(ax, title, "layer", "head", legend="")


def curves(ax: Axes, rows: Mapping[str, ArrayLike], unit: str, title: str = "", across: str = LAYER) -> None:
    """Draw named values by layer, one line and marker each; of values ``(layer, sample)`` the mean."""
    for (name, values), colour, marker in zip(rows.items(), COLOURS, "osD^vP", strict=False):
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
    ax.tick_params(axis="x", labelsize=8)


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


def outcomes(
    axes: Sequence[Axes], before: Mapping[str, np.ndarray], changed: Mapping[str, Mapping[str, np.ndarray]],
    units: Mapping[str, str],
) -> None:  # fmt: skip
    """Draw what a model does as it is (line), and with its states changed: one dot, or one a draw of a control.

    Args:
        axes: one an outcome.
        before: by outcome ``(sample,)``.
        changed: by change and outcome ``(sample,)``, or ``(draw, sample)``.
        units: by outcome, below the axis.
    """
    for number, (ax, (name, values)) in enumerate(zip(axes, before.items(), strict=True)):
        ax.axvline(values.mean(), color="0.35", linewidth=1, label="as it is")
        for place, found in enumerate(changed.values()):
            dots = found[name].mean(-1).reshape(-1)
            colour = COLOURS[place % len(COLOURS)]
            ax.plot(
                dots, place + np.linspace(-0.25, 0.25, len(dots)) * (len(dots) > 1), "o", markersize=4, color=colour
            )
        _finish(ax, name, units[name], legend="")
        ax.set_yticks(range(len(changed)), list(changed) if not number else [""] * len(changed), fontsize=8)
        ax.invert_yaxis()


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


def _short(value: float) -> str:
    """Write a number in at most four characters, without the zero before its point."""
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}".replace("0.", ".")


def _tokens(ax: Axes, labels: Sequence[str], rows: Sequence[str], title: str) -> None:
    ax.set_xticks(range(len(labels)), labels, fontsize=8, rotation=40, ha="right")
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_ylabel("layer", fontsize=8)
    ax.set_title(title, fontsize=9)


def _bar(ax: Axes, drawn: Any, unit: str) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax, pad=0.02)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _finish(ax: Axes, title: str, across: str = "", up: str = "", legend: Any = "best") -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(across, fontsize=8)
    ax.set_ylabel(up, fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(fontsize=8, frameon=False, loc=legend)
