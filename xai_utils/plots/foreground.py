"""Charts of how much of a map falls on the object: maps on their grid, distributions, area, pairs, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from xai_utils.metrics.pictures import BEST, BLIND, EXACT
from xai_utils.plots import base
from xai_utils.stats import Interval

SKIPS = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999, 0.9999)  #: ticks of :func:`over_skip`


def colour(name: str, place: int) -> str:
    """Return the colour of a method by its place; grey for a map that knows no model, black for one of the truth."""
    if name.startswith((EXACT, BEST)):
        return "black"
    return "0.55" if name in BLIND else base.COLOURS[place % len(base.COLOURS)]


def on_grid(
    ax: Axes, picture: np.ndarray, scores: Tensor, mask: np.ndarray, title: str = "", signed: bool = False
) -> None:
    """Lay the patches of a map, as they are, over the picture and outline the foreground.

    Args:
        ax: where to draw.
        picture: ``(3, height, width)`` in [0, 1].
        scores: ``(row, column)``.
        mask: ``(height, width)`` bool; nothing is outlined where it is empty.
        title: above the picture.
        signed: colours centred at zero.
    """
    base.overlay(ax, picture, scores, title, signed=signed, bar=False, smooth=False)
    base.outline(ax, {"": mask})


def row(
    axes: Sequence[Axes],
    picture: np.ndarray,
    title: str,
    masks: Mapping[str, np.ndarray],
    maps: Mapping[str, Tensor],
    smooth: bool = False,
) -> None:
    """Draw a picture with outlined masks, and beside it one map after the other.

    Args:
        axes: one for the picture and one for each map.
        picture: ``(3, height, width)`` in [0, 1].
        title: above the picture.
        masks: name to ``(height, width)`` bool; outlined on the maps too, unless they are smooth.
        maps: title to ``(row, column)``; with a negative score colours are centred at zero, and a map of zeros is
            called empty.
        smooth: interpolate between patches.
    """
    base.image(axes[0], picture, title)
    base.outline(axes[0], masks)
    for ax, (name, scores) in zip(axes[1:], maps.items(), strict=True):
        above = name if scores.any() else f"{name} (empty)"
        base.overlay(ax, picture, scores, above, signed=bool((scores < 0).any()), bar=False, smooth=smooth)
        for mask in () if smooth else masks.values():
            base.outline(ax, {"": mask})


def distributions(ax: Axes, groups: Mapping[str, Sequence[float]], unit: str, null: float | None = None) -> None:
    """Draw one half-transparent violin a method, lying, with median and quartiles, and the null as a dashed line."""
    for place, (name, values) in enumerate(groups.items()):
        data = np.asarray(values, dtype=float)
        drawn = ax.violinplot(data, [place], orientation="horizontal", widths=0.85, showextrema=False)
        for body in drawn["bodies"]:  # type: ignore[union-attr,attr-defined]
            body.set(facecolor=colour(name, place), alpha=0.45)
        low, middle, high = np.quantile(data, [0.25, 0.5, 0.75])
        ax.plot([low, high], [place, place], color="0.15", linewidth=2.2, solid_capstyle="butt")
        ax.plot(middle, place, "o", color="white", markeredgecolor="0.15", markersize=5)
    _named(ax, list(groups), unit, null)


def by_area(ax: Axes, area: Sequence[float], fractions: Mapping[str, Sequence[float]], parts: int = 5) -> None:
    """Draw the mean FAF of the pictures with the smallest objects, the next larger ones, and so on, a line a method.

    Args:
        ax: where to draw. The dashed line is a uniform map.
        area: share of each picture that is foreground.
        fractions: FAF of each picture, by method.
        parts: of as many pictures each.
    """
    order = np.array_split(np.argsort(area, kind="stable"), parts)
    middles = [float(np.mean(np.asarray(area)[some])) for some in order]
    ax.plot(middles, middles, color="0.4", linestyle="--", linewidth=1, label="uniform map")
    for place, (name, values) in enumerate(fractions.items()):
        means = [float(np.mean(np.asarray(values)[some])) for some in order]
        ax.plot(middles, means, "o-", color=colour(name, place), markersize=4, linewidth=1.4, label=name)
    ax.set(xlabel="share of the picture that is foreground", ylabel="FAF", ylim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.spines[["top", "right"]].set_visible(False)


def over_skip(
    ax: Axes, curves: Mapping[str, Mapping[float, Interval]], points: Mapping[str, tuple[float, Interval]], what: str
) -> None:
    """Draw a measure over what the skip connection counts, a share below 1, on a logit scale.

    Args:
        ax: where to draw.
        curves: method to its mean with interval at each skip.
        points: method of one skip only to that skip and its mean.
        what: the measure, for the axis.
    """
    for place, (name, found) in enumerate(curves.items()):
        ends = np.array([one.bounds for one in found.values()]).T
        ax.plot(list(found), [one.mean for one in found.values()], "o-", color=colour(name, place), ms=4, label=name)
        ax.fill_between(list(found), *ends, color=colour(name, place), alpha=0.2, linewidth=0)
    for place, (name, (skip, one)) in enumerate(points.items(), start=len(curves)):
        ax.plot([skip, skip], one.bounds, color=colour(name, place), linewidth=1.6)
        ax.plot(skip, one.mean, "D", color=colour(name, place), markersize=6, label=f"{name} (effective skip)")
    ax.set_xscale("logit")
    ax.set_xticks(SKIPS, [f"{skip:g}" for skip in SKIPS], rotation=60)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("what the skip connection counts", fontsize=9)
    ax.set_ylabel(what, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def pairs(
    ax: Axes,
    before: Sequence[float],
    after: Sequence[float],
    names: Sequence[str],
    ends: tuple[str, str],
    title: str = "",
) -> None:
    """Draw one line a picture from its value before to its value after; falling ones in orange, the mean in black.

    Names stand on the right and are moved apart where they would meet.
    """
    for one, two in zip(before, after, strict=True):
        ax.plot([0, 1], [one, two], color=base.COLOURS[int(two < one)], linewidth=1, marker="o", markersize=3)
    ax.plot([0, 1], [np.mean(before), np.mean(after)], color="black", linewidth=2.5, marker="o", markersize=5)
    floor = -1.0
    for place in np.argsort(after) if names else ():
        floor = max(float(after[place]), floor + 0.045)
        ax.text(1.04, floor, names[place], fontsize=8, va="center")
    ax.set_xticks([0, 1], list(ends))
    ax.set(xlim=(-0.1, 1.55 if names else 1.1), ylabel="FAF", ylim=(-0.03, 1.0))
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)


def thresholds(
    ax: Axes, at: Sequence[float], found: Sequence[Mapping[str, Interval]], exact: Mapping[str, float]
) -> None:
    """Draw means with 95 % intervals over a threshold, one line a method; dotted: by exact masks.

    Args:
        ax: where to draw.
        at: values of the threshold.
        found: at each of them, by method; where a method has no mean, its line leaves the value out.
        exact: by method, where known.
    """
    names = list(dict.fromkeys(name for one in found for name in one))
    for place, name in enumerate(names):
        there = [(value, one[name]) for value, one in zip(at, found, strict=True) if name in one]
        means = [one for _, one in there]
        mean = np.array([one.mean for one in means])
        errors = np.abs(np.array([[one.low, one.high] for one in means]).T - mean)
        shifted = np.array([value for value, _ in there]) + 0.006 * (place - (len(names) - 1) / 2)  # bars side by side
        own = colour(name, place)
        ax.errorbar(shifted, mean, errors, color=own, marker="o", markersize=4, linewidth=1.2, label=name)
        if name in exact:
            ax.axhline(exact[name], color=own, linestyle=":", linewidth=1.2)
    ax.set_xticks(list(at))
    ax.spines[["top", "right"]].set_visible(False)


def compared(ax: Axes, exact: Sequence[float], found: Sequence[float], what: str = "FAF") -> None:
    """Draw a measure by found masks against the same by exact masks, one dot a picture, and the line of equality."""
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
    ax.scatter(exact, found, s=10, alpha=0.5, color=base.COLOURS[0], linewidths=0)
    ax.set(xlabel=f"{what} by exact masks", ylabel=f"{what} by detected masks", xlim=(0, 1), ylim=(0, 1), aspect=1)
    ax.spines[["top", "right"]].set_visible(False)


def intervals(ax: Axes, found: Mapping[str, Interval], unit: str, null: float | None = None) -> None:
    """Draw named means with their intervals in the colours of this module, see :func:`colour`."""
    for place, (name, one) in enumerate(found.items()):
        ax.plot([one.low, one.high], [place, place], color=colour(name, place), linewidth=2.2)
        ax.plot(one.mean, place, "o", color=colour(name, place), markersize=5)
    _named(ax, list(found), unit, null)


def _named(ax: Axes, names: Sequence[str], unit: str, null: float | None) -> None:
    if null is not None:
        ax.axvline(null, color="0.4", linewidth=0.9, linestyle="--")
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)  # first on top; said outright, as axes may be shared
    ax.set_xlabel(unit)
    ax.spines[["top", "right"]].set_visible(False)
