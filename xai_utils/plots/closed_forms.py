"""Figures of the closed forms: gradients beside back-propagation, LIME's spread and bias, errors against length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils.plots.style import BLUE, ORANGE, SIGNED  # what is exact, what was published


def gradients(
    fig: Figure, truth: Tensor, full: Tensor, published: Tensor, labels: Sequence[str], shown: int = 80
) -> None:
    """Draw a gradient as a map of token and coordinate, what the published form adds to it, and the class token's row.

    Args:
        fig: an empty figure.
        truth: ``(token, width)`` by back-propagation, in score per unit; the first map.
        full: the same in closed form.
        published: the same as published; less ``truth`` it is the second map, on a scale of its own.
        labels: the tokens.
        shown: coordinates of the maps.
    """
    left, right = fig.subfigures(1, 2, squeeze=False, width_ratios=(3, 1))[0]
    maps = {"back-propagation": truth, "as published, less back-propagation": published - truth}
    for ax, (title, values) in zip(left.subplots(1, 2), maps.items(), strict=True):
        limit = float(values.abs().max()) or 1.0
        drawn = ax.imshow(values[:, :shown].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        left.colorbar(drawn, ax=ax, fraction=0.05).set_label("score per unit")
        ax.set_title(title)
        ax.set_yticks(range(len(labels)), labels)
        ax.set_xlabel(f"first {shown} coordinates of the token")
    ax = right.subplots()
    ax.plot(truth[0], color="0.6", linewidth=3, label="back-propagation")
    ax.plot(full[0], color=BLUE, linewidth=0.9, label="full formula")
    ax.plot(published[0], color=ORANGE, linewidth=0.9, label="as published")
    ax.set(title="row of the class token", xlabel="coordinate")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


def lime_runs(ax: Axes, runs: Tensor, exact: Tensor, published: Tensor, words: Sequence[str], most: int = 10) -> None:
    """Draw how far sampled slopes and the published ones are from the exact ones, for the strongest words.

    Args:
        ax: where to draw.
        runs: ``(run, word)`` sampled; a dot each.
        exact: ``(word,)``; orders the words, and stands below them.
        published: ``(word,)``.
        words: their names.
        most: words shown.
    """
    order = exact.abs().argsort(descending=True)[:most]
    largest, places = exact.abs().max(), np.arange(len(order))
    misses = ((runs - exact).abs() / largest)[:, order]
    across = places + np.linspace(-0.25, 0.25, len(runs))[:, None]
    ax.plot(across.ravel(), misses.flatten(), ".", color=BLUE, markersize=3, label="a run of sampled LIME")
    ax.plot(places, ((published - exact).abs() / largest)[order], "x", color=ORANGE, label="published approximation")
    ax.set_xticks(places, [f"{words[i]}\n{exact[i]:+.2f}" for i in order.tolist()], rotation=30)
    ax.set(yscale="log", ylabel="error / largest exact slope")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def additivity(ax: Axes, together: Tensor, apart: Tensor) -> None:
    """Draw one run's slopes of the mean over heads, ``(word,)``, against the mean of slopes of single heads."""
    ax.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
    ax.plot(together, apart, "o", color=BLUE, markersize=4)
    ax.set_xlabel("LIME of the mean over heads, one run")
    ax.set_ylabel("mean of one run a head")


def errors_by_length(ax: Axes, table: pd.DataFrame, masks: int) -> None:
    """Draw how far LIME's approximations are off against the length of texts: median, 5th and 95th percentile.

    Args:
        ax: where to draw.
        table: see :func:`sweep.closed_forms.measure`; texts are put together by eighths of their number of words.
        masks: of the sampled LIME, for the legend.
    """
    kinds = {
        "sampled": (f"sampled, {masks} masks", "0.5"),
        "limit": ("limit for many words", BLUE),
        "published": ("published, same kernel", ORANGE),
        "published_equal": ("published, equal weights", "#e0a458"),
    }
    edges = np.unique(np.quantile(table.words, np.linspace(0, 1, 9)).round())
    groups = table.groupby(np.digitize(table.words, edges[1:-1]))
    lengths = groups.words.mean()
    for name, (label, colour) in kinds.items():
        spread = groups[name].quantile([0.05, 0.5, 0.95]).unstack()
        ax.plot(lengths, spread[0.5], "o-", color=colour, markersize=3, label=label)
        ax.fill_between(lengths, spread[0.05], spread[0.95], color=colour, alpha=0.18, linewidth=0)
    ax.set(yscale="log", xlabel="distinct words", ylabel="error / length of the exact slopes")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def missing_row(ax: Axes, table: pd.DataFrame) -> None:
    """Draw over how many texts the published gradient misses how much: of the class token's row, and of the whole."""
    edges = np.linspace(0, max(1, table.published_gradient.max()), 40).tolist()
    ax.hist(table.published_whole, edges, color=ORANGE, label="of the whole gradient")
    ax.hist(table.published_gradient, edges, color=BLUE, label="of the class token's row")
    ax.set(xlabel="error of the published gradient, share of the length", ylabel="texts")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
