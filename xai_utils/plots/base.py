"""Draw on given axes: overlays, token bars, highlighted sentences, head grids, curves and the attention graph.

Letters and colours are those of :mod:`style`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from skimage.filters import threshold_otsu
from torch import Tensor

from xai_utils import check
from xai_utils.plots.style import AMOUNT, BLUE, COLOURS, SIGNED, SMALLEST  # noqa: F401 (COLOURS is for neighbours)
from xai_utils.result import Attribution
from xai_utils.stats import Interval


def image(ax: Axes, picture: np.ndarray, title: str = "") -> None:
    """Show ``(3, height, width)`` in [0, 1]."""
    ax.imshow(picture.transpose(1, 2, 0))
    _bare(ax, title)


def relevance(
    ax: Axes,
    attribution: Attribution,
    picture: np.ndarray | None = None,
    title: str | None = None,
    bar: bool = True,
) -> None:
    """Draw an attribution: an overlay when ``picture`` is given, token bars otherwise."""
    named = f" · {attribution.target_name}" if attribution.target_name else ""
    title = f"{attribution.method}{named}" if title is None else title
    if picture is None:
        token_bars(ax, attribution.scores, attribution.labels, title, attribution.unit, attribution.signed)
    else:
        overlay(ax, picture, attribution.picture(), title, attribution.unit, attribution.signed, bar)


def relevances(
    axes: Sequence[Axes],
    maps: Sequence[Attribution],
    picture: np.ndarray,
    masks: Mapping[str, np.ndarray],
    title: str = "",
    titles: Sequence[str] | None = None,
) -> None:
    """Draw a picture with its true masks, and beside it one overlay a map.

    Args:
        axes: as many as maps, and one more.
        maps: of this picture.
        picture: ``(3, height, width)`` in [0, 1], as the model saw it.
        masks: see :func:`outline`.
        title: of the picture.
        titles: of the maps; by default method and class.
    """
    image(axes[0], picture, title)
    outline(axes[0], masks)
    names: Sequence[str | None] = titles or [None] * len(maps)
    for ax, one, name in zip(axes[1:], maps, names, strict=True):
        relevance(ax, one, picture, name)


def overlay(
    ax: Axes,
    picture: np.ndarray,
    scores: Tensor,
    title: str = "",
    unit: str = "",
    signed: bool = False,
    bar: bool = True,
    smooth: bool = True,
    norm: Normalize | None = None,
) -> None:
    """Lay a map of patches over its picture, with a colour bar in the unit of the scores.

    Args:
        ax: where to draw.
        picture: ``(3, height, width)`` in [0, 1], as the model saw it.
        scores: ``(row, column)``; upsampled to the picture (bilinear, or in squares if not ``smooth``).
        title: above the picture.
        unit: beside the colour bar.
        signed: colours centred at zero.
        bar: draw the colour bar.
        smooth: interpolate between patches.
        norm: colour scale that several panels share; by default that of this map.
    """
    check.finite("scores", scores)
    mode = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    large = F.interpolate(scores.detach().float().cpu()[None, None], picture.shape[1:], **mode)[0, 0].numpy()  # type: ignore[arg-type]
    norm = norm or _norm(large, signed)
    grey = picture.mean(0)
    ax.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1)
    drawn = ax.imshow(large, cmap=SIGNED if signed else AMOUNT, norm=norm, alpha=0.65)
    _bare(ax, title)
    if bar:
        colours = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03)
        colours.set_label(unit)
        colours.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]


def outline(ax: Axes, masks: Mapping[str, np.ndarray]) -> None:
    """Draw the borders of true masks ``(height, width)`` over a picture, each with its class name; none if empty."""
    for name, mask in masks.items():
        if not mask.any():
            continue
        ax.contour(mask, levels=[0.5], colors="white", linewidths=1.6)
        ax.contour(mask, levels=[0.5], colors="black", linewidths=0.6)
        row, column = np.nonzero(mask)
        ax.text(column.max() + 2, row.min(), name, color="white", fontsize=SMALLEST, weight="bold")


def token_bars(
    ax: Axes, scores: Tensor, labels: Sequence[str], title: str = "", unit: str = "", signed: bool = False
) -> None:
    """Draw one horizontal bar a token, first token on top."""
    values = scores.detach().float().cpu().numpy()
    places = np.arange(len(labels))
    ax.barh(places, values, color=_colours(values, signed), edgecolor="0.4", linewidth=0.4)
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.6)
    ax.set_title(title)
    ax.set_xlabel(unit)
    ax.spines[["top", "right"]].set_visible(False)


def highlighted(
    ax: Axes,
    rows: Mapping[str, tuple[Tensor, bool]],
    labels: Sequence[str],
    marked: Sequence[bool] | None = None,
) -> None:
    """Write the same sentence once for each method, every token on its colour; scores are scaled row by row.

    Args:
        ax: where to draw.
        rows: name to ``(scores (token,), signed)``.
        labels: the tokens.
        marked: tokens to underline (a rationale).
    """
    widths = np.array([max(2, len(label)) + 1.2 for label in labels])
    left = np.concatenate([[0], widths.cumsum()[:-1]])
    for line, (name, (scores, signed)) in enumerate(rows.items()):
        values = scores.detach().float().cpu().numpy()
        colours = _colours(values, signed)
        ax.text(-1.0, -line, name, ha="right", va="center", fontsize=SMALLEST)
        for place, (start, width, label) in enumerate(zip(left, widths, labels, strict=True)):
            ax.barh(-line, width - 0.15, left=start, height=0.82, color=colours[place])
            light = np.dot(colours[place][:3], (0.299, 0.587, 0.114)) > 0.55
            weight = "bold" if marked is not None and marked[place] else "normal"
            ink = "black" if light else "white"
            ax.text(
                start + width / 2 - 0.07,
                -line,
                label,
                ha="center",
                va="center",
                fontsize=SMALLEST,
                color=ink,
                weight=weight,
            )
            if weight == "bold":
                ax.plot([start + 0.2, start + width - 0.35], [-line - 0.33] * 2, color=ink, linewidth=1)
    ax.set_xlim(-1, left[-1] + widths[-1])
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    if len(rows) > 1:
        ax.set_title("colours: each row to its own largest score", loc="right", fontsize=SMALLEST, color="0.35")
    ax.axis("off")


def head_grid(fig: Figure, maps: Tensor, title: str = "", unit: str = "") -> None:
    """Show small maps as a grid, heads downwards and layers across, all on one colour scale.

    Args:
        fig: an empty figure.
        maps: ``(layer, head, row, column)``: attention matrices, or one query's attention on the patches.
        title: above the grid.
        unit: beside the colour bar.
    """
    check.finite("maps", maps)
    values = maps.detach().float().cpu().numpy()
    layers, heads = values.shape[:2]
    axes = fig.subplots(heads, layers, squeeze=False, gridspec_kw={"hspace": 0.06, "wspace": 0.06})
    norm = Normalize(0, float(np.quantile(values, 0.995)) or 1.0)
    for layer in range(layers):
        for head in range(heads):
            ax = axes[head, layer]
            ax.imshow(values[layer, head], cmap=AMOUNT, norm=norm, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            if layer == 0:
                ax.set_ylabel(head, rotation=0, ha="right", va="center")
            if head == heads - 1:
                ax.set_xlabel(layer)
    fig.supxlabel("layer (0 is the first)")
    fig.supylabel("head")
    fig.suptitle(title)
    colours = fig.colorbar(ScalarMappable(norm, AMOUNT), ax=axes, fraction=0.03, pad=0.02, extend="max")
    colours.set_label(unit)


def matrix(
    ax: Axes,
    values: Tensor,
    labels: Sequence[str] | None = None,
    title: str = "",
    unit: str = "",
    name_keys: bool = True,
) -> None:
    """Show one ``(query, key)`` map; up to 40 tokens are named on the queries and, if asked for, on the keys."""
    drawn = ax.imshow(values.detach().float().cpu().numpy(), cmap=AMOUNT, interpolation="nearest")
    if labels is not None and len(labels) <= 40:
        ax.set_xticks(range(len(labels)) if name_keys else (), labels if name_keys else (), rotation=90)
        ax.set_yticks(range(len(labels)), labels)
    ax.set_xlabel("key: the token that is read")
    ax.set_ylabel("query: the token that reads")
    ax.set_title(title)
    ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03).set_label(unit)


def band(ax: Axes, x: Sequence[float], samples: Tensor, label: str, colour: str | None = None) -> None:
    """Draw the mean over samples ``(sample, point)`` with the range from the 5th to the 95th percentile."""
    values = samples.detach().cpu().double()
    mean = values.mean(0)
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=torch.float64), dim=0)
    (line,) = ax.plot(x, mean, marker="o", markersize=3, label=label, color=colour)
    ax.fill_between(x, low, high, alpha=0.18, color=line.get_color(), linewidth=0)


def strands(ax: Axes, samples: Tensor, label: str = "", colour: str = BLUE) -> None:
    """Draw one thin line a sample of ``(sample, point)``, where :func:`band` would hide single ones; NaN is a gap."""
    ax.plot(samples.detach().cpu().T, color=colour, linewidth=0.8, alpha=0.6)
    if label:
        ax.plot([], [], color=colour, label=label)


def panels(
    names: Sequence[str], columns: int = 4, width: float = 3.5, height: float = 3.9
) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure of panels in rows, each with its axes by name; places left over stay empty.

    Args:
        names: of the panels.
        columns: panels in a row.
        width: of a panel, inches.
        height: of a panel, inches.
    """
    rows = -(-len(names) // columns)
    size = (columns * width, rows * height)
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    return fig, dict(zip(names, axes.flat, strict=False))


def bands(ax: Axes, samples: Mapping[str, Tensor], x: Sequence[float] | None = None, legend: bool = True) -> None:
    """Draw a :func:`band` for each name, over ``x`` or the number of the point; none where there is no sample."""
    for name, values in samples.items():
        if len(values):
            band(ax, range(values.shape[1]) if x is None else x, values, name)
    if legend:
        ax.legend()


def interval_line(ax: Axes, x: Sequence[float], found: Sequence[Interval], label: str, bars: bool = False) -> None:
    """Join means by a line and draw their confidence intervals, as a band or as bars."""
    mean, low, high = (np.array([getattr(one, part) for one in found]) for part in ("mean", "low", "high"))
    if bars:
        ax.errorbar(x, mean, [mean - low, high - mean], marker="o", markersize=3, capsize=2, label=label)
    else:
        ax.plot(x, mean, marker="o", markersize=3, label=label)
        ax.fill_between(x, low, high, alpha=0.15)


def legend_below(fig: Figure, columns: int = 4) -> None:
    """Write one legend for panels that show the same things, that of the first panel, below them."""
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=columns)


def intervals(
    ax: Axes, found: Mapping[str, Interval], unit: str, null: float | None = None, nulls: Collection[str] = ("random",)
) -> None:
    """Draw named means with their confidence intervals, and the null as a dashed line; says so if there are none.

    Args:
        ax: where to draw.
        found: name to mean and interval, the first on top.
        unit: of the mean.
        null: where the dashed line is.
        nulls: names that are drawn in grey.
    """
    for place, (name, interval) in enumerate(found.items()):
        colour = "0.5" if name in nulls else BLUE
        ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
        ax.plot(interval.mean, place, "o", color=colour, markersize=5)
    if null is not None:
        ax.axvline(null, color="0.4", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set_xlabel(unit)
    ax.spines[["top", "right"]].set_visible(False)
    if not found:
        ax.text(0.5, 0.5, "no known truth for this model", ha="center", va="center", transform=ax.transAxes)


def before_after(
    fig: Figure, before: Tensor, after: Tensor, titles: tuple[str, str] = ("before", "after"), unit: str = ""
) -> None:
    """Show two ``(row, column)`` maps side by side on one colour scale."""
    axes = fig.subplots(1, 2)
    values = torch.stack([before.detach().cpu(), after.detach().cpu()]).float().numpy()
    norm = _norm(values, signed=bool(values.min() < 0))
    name = SIGNED if isinstance(norm, TwoSlopeNorm) else AMOUNT
    for ax, drawn_values, title in zip(axes, values, titles, strict=True):
        drawn = ax.imshow(drawn_values, cmap=name, norm=norm, interpolation="nearest")
        _bare(ax, title)
    fig.colorbar(drawn, ax=list(axes), fraction=0.03, pad=0.02).set_label(unit)


def bipartite(ax: Axes, steps: Tensor, labels: Sequence[str], least: float = 0.05, query: int | None = None) -> None:
    """Draw attention as a graph: one column of tokens a depth, input on the left, a line for each weight.

    Args:
        ax: where to draw.
        steps: ``(layer, query, key)``; a line's width and darkness grow with the root of its weight.
        labels: the tokens.
        least: weights below this are not drawn.
        query: draw only what this token of the last layer draws on, weights multiplied along the paths; ``None`` draws
            every weight.
    """
    depth, tokens, _ = steps.shape
    weights = steps.detach().cpu().double()
    reach = torch.ones(tokens, dtype=torch.float64)
    if query is not None:
        reach = torch.zeros(tokens, dtype=torch.float64)
        reach[query] = 1
    for layer in range(depth - 1, -1, -1):
        flows = reach[:, None] * weights[layer]
        for reader, source in (flows >= least).nonzero().tolist():
            strength = float(flows[reader, source]) ** 0.5  # so that weak paths stay visible beside the skip
            ax.plot(
                [layer, layer + 1],
                [source, reader],
                color=BLUE,
                alpha=min(1.0, 0.1 + strength),
                linewidth=0.3 + 3.5 * strength,
            )
        reach = flows.sum(0) if query is not None else reach
    ax.set_yticks(range(tokens), labels)
    ax.set_xticks(range(depth + 1), ["input", *(f"after {layer}" for layer in range(depth))])
    ax.invert_yaxis()
    ax.grid(axis="x", linewidth=0.3)
    ax.spines[:].set_visible(False)


def layer_bars(ax: Axes, distances: Tensor, used: Tensor, threshold: float, title: str = "") -> None:
    """Draw each layer's distance ``(layer,)`` from the last one used, filled if it is used; the first has none."""
    colours = [BLUE if one else "#d5dbe8" for one in used[1:].tolist()]
    ax.bar(range(1, len(distances)), distances[1:].tolist(), color=colours, edgecolor=BLUE)
    ax.axhline(threshold, color="0.3", linewidth=0.8, linestyle="--")
    ax.set(xlabel="layer", ylabel="distance", title=title)
    ax.spines[["top", "right"]].set_visible(False)


def spectra(ax: Axes, maps: Mapping[str, Tensor]) -> None:
    """Draw the singular values of stacks ``(..., query, key)``, largest first: the mean over maps and its range."""
    for name, stack in maps.items():
        values = torch.linalg.svdvals(stack.detach().double().cpu()).flatten(0, -2)
        places = range(1, values.shape[-1] + 1)
        (line,) = ax.plot(places, values.mean(0).clamp(min=1e-9), linewidth=1.4, label=name)
        ax.fill_between(places, *values.clamp(min=1e-9).aminmax(dim=0), alpha=0.12, color=line.get_color(), linewidth=0)
    ax.set(xlabel="place", ylabel="singular value", yscale="log", ylim=(1e-4, None))
    ax.minorticks_off()  # most of the time of drawing
    ax.legend()
    ax.spines[["top", "right"]].set_visible(False)


def masked(ax: Axes, picture: np.ndarray, scores: Tensor, how: str = "soft", title: str = "") -> None:
    """Show only what a map marks: faded by its value (``"soft"``), or cut out at Otsu's threshold (``"otsu"``).

    Args:
        ax: where to draw.
        picture: ``(3, height, width)`` in [0, 1].
        scores: ``(row, column)``; negative scores count as zero, the greatest keeps its picture whole.
        how: ``"soft"`` or ``"otsu"``.
        title: above the picture.
    """
    check.one_of("how", how, ("soft", "otsu"))
    check.finite("scores", scores)
    positive = scores.detach().float().cpu().clamp(min=0)
    if not positive.any():
        raise ValueError("no score is positive, so the mask would hide everything.")
    large = F.interpolate(positive[None, None], picture.shape[1:], mode="bilinear", align_corners=False)[0, 0].numpy()
    shown = large / large.max() if how == "soft" else (large > threshold_otsu(large)).astype(float)
    image(ax, picture * shown + 0.5 * (1 - shown), title)


def _norm(values: np.ndarray, signed: bool) -> Normalize:
    if signed:
        limit = float(np.abs(values).max()) or 1.0
        return TwoSlopeNorm(0, -limit, limit)
    return Normalize(float(values.min()), float(values.max()))


def _colours(values: np.ndarray, signed: bool) -> np.ndarray:
    limit = float(np.abs(values).max()) or 1.0
    norm = Normalize(-limit, limit) if signed else Normalize(0, limit)
    return ScalarMappable(norm, SIGNED if signed else AMOUNT).to_rgba(values)  # type: ignore[return-value]


def _bare(ax: Any, title: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_title(title)
