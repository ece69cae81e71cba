"""Charts of hidden attention: signed maps of channels, what is remembered, hit rates over distance, lift on objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils.plots import base, compared, foreground
from xai_utils.plots.style import AMOUNT, COLOURS, SIGNED
from xai_utils.result import Attribution
from xai_utils.stats import Interval

_MARKS = "osD^vPX"


def signed_matrix(ax: Axes, matrix: Tensor, title: str = "", labels: Sequence[str] = (), bar: bool = True) -> None:
    """Draw one ``(query, key)`` map with zero in white.

    The scale ends at the 99.5th percentile of absolute values; it is linear below a thousandth of that, logarithmic
    above.

    Args:
        ax: where.
        matrix: signed weights.
        title: above.
        labels: of the tokens, at most 40 are written.
        bar: draw a colour bar.
    """
    values = matrix.detach().cpu().numpy()
    limit = float(np.quantile(np.abs(values[values != 0]), 0.995)) if values.any() else 1.0
    norm = SymLogNorm(limit / 1000, vmin=-limit, vmax=limit)
    shown = ax.imshow(values, cmap=SIGNED, norm=norm, interpolation="nearest")
    if bar:
        ax.figure.colorbar(shown, ax=ax, fraction=0.046, extend="both", label="weight")
    if labels and len(labels) <= 40:
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.set_yticks(range(len(labels)), labels)
    else:
        ax.set(xlabel="key", ylabel="query")
    ax.set_title(title)


def channel_matrices(axes: Sequence[Axes], maps: Tensor, labels: Sequence[str]) -> None:
    """Draw of ``(channel, query, key)`` the channel with the most weight, their mean, and the mean of absolute values.

    Args:
        axes: three.
        maps: of one layer, signed.
        labels: of the tokens.
    """
    strongest = int(maps.abs().sum((1, 2)).argmax())
    shown = {
        f"last layer, channel {strongest}": maps[strongest],
        "mean over channels": maps.mean(0),
        "mean of absolute values": maps.abs().mean(0),
    }
    for ax, (title, matrix) in zip(axes, shown.items(), strict=True):
        signed_matrix(ax, matrix, title, labels)


def rates(ax: Axes, found: Mapping[str, Mapping[int, Interval]], null: float | None = None) -> None:
    """Draw hit rates over distance in tokens with their intervals, a line a method, and the rate of a random choice.

    Lines are moved by a few percent of the distance against each other, so that their intervals can be told apart.
    """
    for place, ((name, rate), colour, mark) in enumerate(zip(found.items(), COLOURS, _MARKS, strict=False)):
        moved = [one * 1.05 ** (place - (len(found) - 1) / 2) for one in rate]
        means = [one.mean for one in rate.values()]
        spread = [[one.mean - one.low for one in rate.values()], [one.high - one.mean for one in rate.values()]]
        ax.errorbar(
            moved, means, np.clip(spread, 0, None), color=colour, marker=mark, markersize=4, capsize=2, label=name
        )
    distances = list(next(iter(found.values())))
    if null is not None:
        nulls = [null] * len(distances)
        ax.plot(distances, nulls, color="0.3", linestyle="--", linewidth=0.9, label="random choice")
    ax.set(ylim=(-0.03, 1.03), ylabel="hit rate", xscale="log", xlabel="tokens from the answer to the end")
    ax.set_xticks(distances, [str(one) for one in distances])
    ax.minorticks_off()
    ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))


def misses(ax: Axes, found: Mapping[str, Tensor], least: float = 1e-9) -> None:
    """Draw by how much relevance misses its sum at every depth, ``(depth, sample)``.

    Medians as lines; of the first also the range over samples. What is smaller than ``least`` is drawn there.
    """
    for place, ((name, miss), colour, mark) in enumerate(zip(found.items(), COLOURS, _MARKS, strict=False)):
        values = miss.detach().cpu().clamp(min=least).numpy()
        style = "-" if place < 3 else "--"
        size = 9 - place  # markers on top of each other stay visible
        ax.plot(np.median(values, 1), style, color=colour, marker=mark, markersize=size, linewidth=1.3, label=name)
        if not place:
            ax.fill_between(range(len(values)), values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)
    depths = [len(miss) for miss in found.values()]
    ax.set(yscale="log", xlabel="depth (0: the words)", ylabel="miss of the logit, relative", xticks=range(max(depths)))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def half_lives(
    ax: Axes, found: Sequence[Tensor], tokens: int, title: str = "", untrained: Sequence[Tensor] = ()
) -> None:
    """Draw for every layer how long its channels remember: channels in order of their longest half-life, in tokens.

    Args:
        ax: where to draw.
        found: of every layer ``(channel, state)``.
        tokens: length of the text, drawn as a dashed line.
        title: above.
        untrained: the same of a copy with fresh weights, dotted in the same colours.
    """
    for own, style in ((untrained, ":"), (found, "-")):
        for layer, lives in enumerate(own):
            longest = lives.amax(-1).flatten().sort().values.cpu().numpy()
            shade = 0.15 + 0.7 * layer / max(1, len(own) - 1)
            colour = str(0.85 - shade) if len(own) > len(COLOURS) else COLOURS[layer]
            label = f"layer {layer}" if style == "-" else "untrained" if not layer else None
            ax.plot(np.linspace(0, 1, len(longest)), longest, style, color=colour, linewidth=1.5, label=label)
    ax.set(yscale="log", xlabel="share of the channels", ylabel="half-life of the slowest state, tokens")
    ax.set_title(title)
    ax.axhline(tokens, color="0.4", linestyle="--", linewidth=0.9, label="length of the text")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


def remembered(ax: Axes, rows: Tensor, labels: Sequence[str], title: str = "") -> None:
    """Draw ``(layer, token)``: what each layer's last state holds of every token, each row by its largest."""
    values = (rows / rows.amax(-1, keepdim=True)).cpu().numpy()
    shown = ax.imshow(values, cmap=AMOUNT, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(shown, ax=ax, fraction=0.02, pad=0.01).set_label("share of the row's largest")
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    ax.set_yticks(range(len(rows)), [f"layer {layer}" for layer in range(len(rows))])
    ax.set_title(title)


def beside_nulls(ax: Axes, found: pd.DataFrame, unit: str, known: Mapping[str, float] | None = None) -> None:
    """Draw the mean of every map with its interval, and what the same map gives after shuffling all weights.

    Args:
        ax: where to draw.
        found: of one measure, from :func:`sanity.beside_shuffled`: a row a map; the grey bar reaches over shuffles.
        unit: of the mean.
        known: name to a null that is the same for all maps, a vertical line each.
    """
    for place, row in enumerate(found.itertuples(index=False)):
        label = None if place else "shuffled weights"
        ax.plot([row[4], row[5]], [place + 0.25] * 2, color="0.6", linewidth=4, solid_capstyle="butt", label=label)
        ax.plot(row[3], place + 0.25, "|", color="0.2", markersize=7)
        ax.plot([row[1], row[2]], [place - 0.1] * 2, color=COLOURS[0], linewidth=2)
        ax.plot(row[0], place - 0.1, "o", color=COLOURS[0], markersize=5)
    for (name, value), style in zip((known or {}).items(), ("--", ":", "-."), strict=False):
        ax.axvline(value, color="0.3", linewidth=1, linestyle=style, label=name)
    ax.set_yticks(range(len(found)), list(found.index))
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_xlabel(unit)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def filtered(fig: Figure, view: np.ndarray, mask: np.ndarray, rows: Mapping[str, Tensor], unit: str) -> None:
    """Draw one token's row of every layer over the picture, all on one scale: a line a filter, a column a layer.

    Args:
        fig: an empty figure.
        view: the picture as the model sees it, ``(3, height, width)`` in [0, 1].
        mask: of its object, ``(height, width)`` bool.
        rows: name of the filter to ``(layer, row, column)``.
        unit: of the rows, beside the colour bar.
    """
    axes = fig.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
    maps = {(name, layer): one for name, own in rows.items() for layer, one in enumerate(own)}
    norm = compared.scale(list(maps.values()))
    for ax, ((name, layer), one) in zip(axes.flat, maps.items(), strict=True):
        base.overlay(ax, view, one, f"{name}\nblock {layer}" if not layer else f"\nblock {layer}", bar=False, norm=norm)
        base.outline(ax, {"": mask})
    fig.colorbar(ScalarMappable(norm, AMOUNT), ax=axes, fraction=0.02, pad=0.01).set_label(unit)


def on_objects(
    axes: Sequence[Axes], views: np.ndarray, masks: Sequence[np.ndarray], maps: Sequence[Attribution], title: str = ""
) -> None:
    """Lay one method's maps over their pictures, one below the other, the object of each outlined.

    Args:
        axes: one for each picture; the first is given the title.
        views: the pictures as the model sees them, ``(picture, 3, height, width)`` in [0, 1].
        masks: of each the object, ``(height, width)`` bool.
        maps: of each the explanation.
        title: above the first.
    """
    for ax, view, mask, one in zip(axes, views, masks, maps, strict=True):
        foreground.on_grid(ax, view, one.picture(), mask, title if ax is axes[0] else "", one.signed)
