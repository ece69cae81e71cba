"""Panels that are compared: many maps on one colour scale, with one colour bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.patches import Rectangle
from torch import Tensor

from xai_utils.plots import base
from xai_utils.plots.style import AMOUNT, COLOURS, SIGNED, SMALLEST


def overlays(
    axes: Sequence[Axes], picture: np.ndarray, maps: Mapping[str, Tensor], unit: str, bar: bool = True
) -> None:
    """Lay maps over their picture, all on one scale; colours are centred at zero if any score is negative.

    Args:
        axes: one for each map.
        picture: ``(3, height, width)`` in [0, 1].
        maps: title to ``(row, column)``.
        unit: beside the colour bar.
        bar: draw it, beside the last panel.
    """
    norm = scale(list(maps.values()))
    signed = isinstance(norm, TwoSlopeNorm)
    for ax, (title, scores) in zip(axes, maps.items(), strict=True):
        base.overlay(ax, picture, scores, title, signed=signed, bar=False, norm=norm)
    if bar:
        _bar(axes, norm, signed, unit)


def matrices(axes: Sequence[Axes], maps: Mapping[str, Tensor], labels: Sequence[str], unit: str) -> None:
    """Show ``(query, key)`` maps on one scale, with names on the queries of the first and the keys of the last row.

    The scale ends at the 99th percentile of all entries, so that a few large ones do not hide the rest.
    """
    top = float(torch.stack(list(maps.values())).double().quantile(0.99))
    norm = Normalize(0, top)
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        ax.imshow(values.detach().float().cpu().numpy(), cmap=AMOUNT, norm=norm, interpolation="nearest")
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.set_yticks(range(len(labels)), labels)
        ax.label_outer()
        ax.set_title(title)
    _bar(axes, norm, False, unit, extend="max")


def table(ax: Axes, values: pd.DataFrame, boxed: Mapping[str, float] | None = None) -> None:
    """Write the numbers of a table on their colours, darkest for the least; its axes' names are those of the table.

    Args:
        ax: where to draw.
        values: the numbers.
        boxed: row to the one column that gets a frame.
    """
    ax.imshow(values.to_numpy(), cmap=AMOUNT, aspect="auto")
    middle = (values.to_numpy().min() + values.to_numpy().max()) / 2
    for row, name in enumerate(values.index):
        for column, setting in enumerate(values.columns):
            one = values.iat[row, column]
            ink = "wk"[int(one > middle)]
            ax.text(column, row, f"{one:.2f}", ha="center", va="center", fontsize=SMALLEST, color=ink)
            if boxed and boxed.get(name) == setting:
                ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, color=COLOURS[1], lw=2))
    ax.set_xticks(range(len(values.columns)), [f"{one}" for one in values.columns])
    ax.set_yticks(range(len(values)), list(values.index))
    ax.set_xlabel(values.columns.name or "")


def removals(ax: Axes, fractions: Sequence[float], curves: Mapping[str, Tensor], random: Tensor) -> None:
    """Draw what a model still answers as tokens go, a line a map, over the band of 90 % of random orders.

    Args:
        ax: where to draw.
        fractions: of the tokens that are gone, a step each; steps are drawn equally far apart.
        curves: name to ``(step,)``, most relevant first.
        random: the same in random orders, ``(draw, step)``.
    """
    steps = range(len(fractions))
    low, high = torch.quantile(random, torch.tensor([0.05, 0.95], dtype=random.dtype), dim=0)
    ax.fill_between(steps, low, high, color="0.8", linewidth=0, label="90 % of random orders")
    for (name, curve), mark in zip(curves.items(), "os^Dv", strict=False):
        ax.plot(steps, curve, marker=mark, markersize=4, label=name)
    ax.set_xticks(steps, [f"{one:.0%}" for one in fractions])
    ax.set(ylim=(0, 1.02), ylabel="probability of what was predicted")
    ax.spines[["top", "right"]].set_visible(False)


def relative(scores: Tensor) -> Tensor:
    """Divide a map by its greatest absolute score, so that maps in different units can share a scale; zeros stay."""
    top = scores.abs().max()
    return scores / top if top > 0 else scores


def scale(maps: Sequence[Tensor]) -> Normalize:
    """Return one scale for all maps: from the least to the greatest score, or centred at zero if one is negative."""
    low = min(float(one.min()) for one in maps)
    high = max(float(one.max()) for one in maps)
    if low >= 0:
        return Normalize(low, high if high > low else low + 1)
    limit = max(-low, high)
    return TwoSlopeNorm(0, -limit, limit)


def _bar(axes: Sequence[Axes], norm: Normalize, signed: bool, unit: str, extend: str = "neither") -> None:
    colours = ScalarMappable(norm, SIGNED if signed else AMOUNT)
    drawn = axes[0].figure.colorbar(colours, ax=list(axes), fraction=0.02, pad=0.01, extend=extend)
    drawn.set_label(unit)
