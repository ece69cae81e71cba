"""Figures of the closed forms: gradients beside back-propagation, LIME's spread and bias, errors against length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils.plots.base import before_after
from xai_utils.plots.style import BLUE, ORANGE  # what is exact, what was published


def gradients(
    fig: Figure, truth: Tensor, full: Tensor, published: Tensor, labels: Sequence[str], shown: int = 80
) -> None:
    """Draw two gradients as maps of token and coordinate, and beside them the row of the class token in three.

    Args:
        fig: an empty figure.
        truth: ``(token, width)`` by back-propagation, in score per unit; the first map.
        full: the same in closed form.
        published: the same as published; the second map.
        labels: the tokens.
        shown: coordinates of the maps.
    """
    left, right = fig.subfigures(1, 2, squeeze=False, width_ratios=(3, 1))[0]
    before_after(left, truth[:, :shown], published[:, :shown], ("back-propagation", "as published"), "score per unit")
    for ax in left.axes[:2]:
        ax.set_aspect("auto")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_xlabel(f"first {shown} coordinates of the token")
    ax = right.subplots()
    ax.plot(truth[0], color="0.6", linewidth=3, label="back-propagation")
    ax.plot(full[0], color=BLUE, linewidth=0.9, label="full formula")
    ax.plot(published[0], color=ORANGE, linewidth=0.9, label="as published")
    ax.set_title("row of the class token")
    ax.legend()


def lime_runs(ax: Axes, runs: Tensor, exact: Tensor, published: Tensor, words: Sequence[str], most: int = 10) -> None:
    """Draw the spread of sampled slopes with the exact and the published ones, for the strongest words.

    Args:
        ax: where to draw.
        runs: ``(run, word)`` sampled.
        exact: ``(word,)``; orders the words.
        published: ``(word,)``.
        words: their names.
        most: words shown.
    """
    order = exact.abs().argsort(descending=True)[:most]
    ax.boxplot(runs[:, order].numpy(), positions=range(len(order)), widths=0.5)
    ax.plot(exact[order], "o", color=BLUE, fillstyle="none", markersize=11, label="exact")
    ax.plot(published[order], "x", color=ORANGE, markersize=8, label="published approximation")
    ax.set_xticks(range(len(order)), [words[i] for i in order.tolist()], rotation=30)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_ylabel("LIME slope (score)")
    ax.legend()


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
    ax.legend()


def missing_row(ax: Axes, table: pd.DataFrame) -> None:
    """Draw over how many texts the published gradient misses how much of the class token's row."""
    ax.hist(table.published_gradient, 30, color=BLUE)
    ax.set_xlabel("error of the published gradient,\nrow of the class token (share of its length)")
    ax.set_ylabel("texts")
