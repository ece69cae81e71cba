"""Charts of hidden attention: signed maps of channels, what is remembered, hit rates over distance, lift on objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from xai_utils.plots import base, foreground
from xai_utils.result import Attribution
from xai_utils.stats import Interval

COLOURS = ("#2a4b8d", "#b5651d", "#4c8c4a", "#7a3b7a", "#8c8c2a", "#3a8fb7", "#b03a48")
_MARKS = "osD^vPX"


def signed_matrix(ax: Axes, matrix: Tensor, title: str = "", labels: Sequence[str] = (), bar: bool = True) -> None:
    """Draw one ``(query, key)`` map with zero in white; its scale ends at the 99.5th percentile of absolute values.

    Args:
        ax: where.
        matrix: signed weights.
        title: above.
        labels: of the tokens, at most 40 are written.
        bar: draw a colour bar.
    """
    values = matrix.detach().cpu().numpy()
    limit = float(np.quantile(np.abs(values[values != 0]), 0.995)) if values.any() else 1.0
    shown = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    if bar:
        ax.figure.colorbar(shown, ax=ax, fraction=0.046, extend="both", label="weight")
    if labels and len(labels) <= 40:
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
        ax.set_yticks(range(len(labels)), labels, fontsize=6)
    else:
        ax.set(xlabel="key", ylabel="query")
    ax.set_title(title, fontsize=9)


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
    ax.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))


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
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def half_lives(ax: Axes, found: Sequence[Tensor], tokens: int, title: str = "") -> None:
    """Draw for every layer how long its channels remember: channels in order of their longest half-life, in tokens.

    Args:
        ax: where.
        found: of every layer ``(channel, state)``.
        tokens: length of the text, drawn as a dashed line.
        title: above.
    """
    for layer, lives in enumerate(found):
        longest = lives.amax(-1).flatten().sort().values.cpu().numpy()
        shade = 0.15 + 0.7 * layer / max(1, len(found) - 1)
        ax.plot(np.linspace(0, 1, len(longest)), longest, color=str(0.85 - shade) if len(found) > 7 else COLOURS[layer],
                label=f"layer {layer}")  # fmt: skip
    ax.set(yscale="log", xlabel="share of the channels", ylabel="half-life of the slowest state, tokens")
    ax.set_title(title, fontsize=9)
    ax.axhline(tokens, color="0.4", linestyle="--", linewidth=0.9, label="length of the text")
    ax.legend(fontsize=7)


def remembered(ax: Axes, rows: Tensor, labels: Sequence[str], title: str = "") -> None:
    """Draw ``(layer, token)``: what each layer's last state holds of every token, each row by its largest."""
    values = (rows / rows.amax(-1, keepdim=True)).cpu().numpy()
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(len(rows)), [f"layer {layer}" for layer in range(len(rows))], fontsize=7)
    ax.set_title(title, fontsize=9)


def lift_and_pointing(
    axes: Sequence[Axes], model: str, lifts: Mapping[tuple[str, str], Interval],
    points: Mapping[tuple[str, str], Interval],
) -> None:  # fmt: skip
    """Draw how much of one model's maps lies on the object, and how often they point at it, as intervals.

    Args:
        axes: two. The dashed line is what a uniform map has of lift, and how often a bell in the middle points right.
        model: whose maps; their maps of other scenes are left out.
        lifts: by ``(model, method)``, see :func:`on_pictures.intervals`.
        points: likewise.
    """
    for ax, (measure, found) in zip(axes, {"lift": lifts, "pointing": points}.items(), strict=True):
        own = {name: one for (whose, name), one in found.items() if whose == model and "other" not in name}
        uniform = own.pop("uniform")
        base.intervals(ax, own, measure, null=uniform.mean if measure == "lift" else own["centre"].mean)
        ax.set_title(model, fontsize=9)


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
