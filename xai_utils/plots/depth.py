"""Figures of what becomes of attention from layer to layer: flows and their bound, layers used, spectra and a pole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from xai_utils.maths import diffusion
from xai_utils.plots.style import BLUE, COLOURS, ORANGE
from xai_utils.stats import Interval

GREY = "#4a4a4a"
LENGTHS = (0, 20, 35, 50, 65, 80, 1000)  #: tokens between which texts are grouped


def against_bound(ax: Axes, found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Draw the flows after the last layer over their bound, one dot an input.

    Args:
        ax: where to draw.
        found: name to flow ``(layer, input)`` and bound ``(input,)``.
    """
    for name, (flow, bound) in found.items():
        ax.scatter(bound, flow[-1], s=12, alpha=0.6, label=name)
    ax.axline((0, 0), slope=1, color="0.4", linewidth=0.8, linestyle="--")
    ax.set(xlabel="bound min(1, column sum of layer 0)", ylabel="flow after the last layer")
    ax.set(xlim=(0, 1.05), ylim=(0, 1.05))
    ax.legend()


def relative_sums(ax: Axes, found: Sequence[Mapping[str, np.ndarray]], least: float = 1e-18) -> None:
    """Draw how large sums of gradients are beside the gradient, by kind of arithmetic; one outline a model.

    Args:
        ax: where to draw.
        found: for each model, kind to ``(token,)``; at most three kinds.
        least: where exact zeros stand.
    """
    bins = np.linspace(np.log10(least), 1, 77).tolist()
    for place, kinds in enumerate(found):
        for (kind, values), colour in zip(kinds.items(), (ORANGE, BLUE, GREY), strict=False):
            label = None if place else kind
            ax.hist(np.log10(np.maximum(values, least)), bins, histtype="step", color=colour, label=label)
    ax.set(xlabel="log₁₀ of |sum of the gradient| / its length", ylabel="tokens", title="size")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)  # below: no part of it is free


def gaps(ax: Axes, x: Sequence[float], found: Mapping[str, Sequence[Interval]], title: str = "") -> None:
    """Draw differences with their intervals over a setting, a line each, side by side where they would hide another."""
    width = 0.05 * (max(x) - min(x))
    for place, ((name, some), colour) in enumerate(zip(found.items(), COLOURS, strict=False)):
        mean, low, high = (np.array([getattr(one, part) for one in some]) for part in ("mean", "low", "high"))
        beside = np.asarray(x) + width * (place / max(len(found) - 1, 1) - 0.5)
        bars = [mean - low, high - mean]
        ax.errorbar(beside, mean, bars, marker="o", markersize=3, capsize=2, color=colour, linewidth=1, label=name)
    ax.axhline(0, color="0.4", linewidth=0.8, linestyle="--")
    ax.set_title(title)


def by_length(
    ax: Axes, tokens: ArrayLike, shares: Mapping[str, ArrayLike], title: str = "", edges: Sequence[float] = LENGTHS
) -> None:
    """Draw the mean share of layers used over the length of a text, in groups of lengths.

    Args:
        ax: where to draw.
        tokens: of each text, ``(text,)``.
        shares: name to ``(text,)``.
        title: above the panel.
        edges: of the groups, in tokens.
    """
    lengths = np.asarray(tokens, dtype=float)
    group = np.digitize(lengths, edges)
    for (name, values), colour in zip(shares.items(), COLOURS, strict=False):
        share = np.asarray(values, dtype=float)
        points = [(lengths[group == one].mean(), share[group == one].mean()) for one in np.unique(group)]
        ax.plot(*np.transpose(points), marker="o", markersize=3, color=colour, label=name)
    ax.set(xlabel="tokens", ylim=(0, 1.02), title=title)


def pole(ax: Axes, alphas: Sequence[float], most: float = 2.2) -> None:
    """Draw the spectral map over singular values up to ``most``, a line for each alpha, and mark where it is safe."""
    values = torch.linspace(0, most, 800, dtype=torch.float64)
    for alpha in alphas:
        curve = diffusion.spectral_map(values, alpha)
        ax.plot(values, curve.where(curve.abs() < 6, torch.nan), label=f"α = {alpha}, pole at {alpha**-0.5:.2f}")
    ax.axvspan(0, 1, color="0.92")
    ax.set(xlabel="singular value s", ylabel="f(s)", ylim=(-5, 5), title="guarded maps stay in the grey part")
    ax.legend(loc="lower left")  # there is no curve


def largest_values(ax: Axes, largest: Mapping[str, Tensor], alpha: float) -> None:
    """Draw the largest singular value of every input and layer, ``(sample, layer)`` by model, and the pole at alpha."""
    for (name, values), colour in zip(largest.items(), (BLUE, ORANGE), strict=False):
        ax.plot(values.T, ".", markersize=3, color=colour)
        ax.plot([], [], ".", color=colour, label=name)
    ax.axhline(alpha**-0.5, color="0.3", linestyle="--", linewidth=0.9, label=f"pole at α = {alpha}")
    ax.set(xlabel="layer", ylabel="largest singular value", title="every input, every layer")
    ax.legend()
