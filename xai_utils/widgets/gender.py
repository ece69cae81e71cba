"""A widget on gender scores: type a sentence with one [MASK], choose pair, method and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils import plots
from xai_utils.gender import probes
from xai_utils.gender.probes import Observed
from xai_utils.models import Model
from xai_utils.plots import gender as plots_gender
from xai_utils.samples import gender as gender_texts
from xai_utils.samples.gender import Probe
from xai_utils.widgets.attention import Canvas


def gender(model: Model, sentence: str, rays: Tensor, pairs: Sequence[tuple[str, str]] | None = None) -> widgets.Widget:
    """Show one score of every token by layer, for whatever is typed.

    Args:
        model: of masked words.
        sentence: to begin with, one [MASK].
        rays: DensRay directions ``(layer + 1, width)`` of this model.
        pairs: to choose the target from, masculine first; default he and she, and the bundled ones.

    Returns:
        Sentence, pair, method and layer above the layer's scores and the map of all layers.
    """
    known = gender_texts.pairs() if pairs is None else gender_texts.check_pairs(pairs)
    wide = widgets.Layout(width="36em")
    typed = widgets.Text(value=sentence, description="sentence", continuous_update=False, layout=wide)
    pair = widgets.Dropdown(options=[(f"{a} − {b}", (a, b)) for a, b in known], description="target")
    method = widgets.Dropdown(options=probes.SCORES, description="method")
    most = len(rays) - 1
    layer = widgets.IntSlider(value=most, max=most, description="layer", continuous_update=False)
    canvas = Canvas(10, 3.6)
    kept: dict[Probe, Observed] = {}

    def paint(fig: Figure) -> str:
        asked = Probe(typed.value, pair=pair.value)
        if asked not in kept:
            kept.clear()
            kept[asked] = probes.observe(model, [asked])
        return _paint(fig, kept[asked], method.value, layer.value, rays)

    def redraw(*_: Any) -> None:
        canvas.draw(paint)

    for control in (typed, pair, method, layer):
        control.observe(redraw, names="value")
    redraw()
    note = widgets.HTML("<small>the layer behind the last one is the mean over all</small>")
    return widgets.VBox([typed, widgets.HBox([pair, method]), widgets.HBox([layer, note]), canvas.box])


def _paint(fig: Figure, seen: Observed, method: str, layer: int, rays: Tensor) -> str:
    shown, labels = seen.shown(method, rays)
    left, right = fig.subplots(1, 2, gridspec_kw={"width_ratios": (1, 2)})
    one = shown.mean(0) if layer == len(shown) else shown[layer]
    title = f"{method}, {'mean over layers' if layer == len(shown) else f'layer {layer}'}"
    plots.token_bars(left, one, labels, title, signed=True)
    plots_gender.heat(right, shown, labels, "all layers, one scale", ring=layer)
    fig.subplots_adjust(left=0.1, right=0.99, bottom=0.2, top=0.9, wspace=0.15)
    return f"{seen.chances}; most likely: {seen.likeliest[0]}"
