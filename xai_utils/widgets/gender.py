"""A widget on gender scores: type a sentence with one [MASK], choose pair, method and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils import plots
from xai_utils.methods import masked
from xai_utils.methods.masked import Masked
from xai_utils.models import Model
from xai_utils.plots import gender as plots_gender
from xai_utils.samples import gender as gender_texts
from xai_utils.widgets.attention import Canvas

METHODS = ("AttCAT", "DensRay", "AttDR", "attention of [MASK]")


def gender(
    model: Model, sentence: str, vectors: Tensor, pairs: Sequence[tuple[str, str]] | None = None
) -> widgets.Widget:
    """Show one score of every token by layer, for whatever is typed.

    Args:
        model: of masked words.
        sentence: to begin with, one [MASK].
        vectors: DensRay directions ``(layer, width)`` of this model.
        pairs: to choose the target from, masculine first; default he and she, and the bundled ones.

    Returns:
        Sentence, pair, method and layer above the layer's scores and the map of all layers.
    """
    known = gender_texts.pairs() if pairs is None else gender_texts.check_pairs(pairs)
    wide = widgets.Layout(width="36em")
    typed = widgets.Text(value=sentence, description="sentence", continuous_update=False, layout=wide)
    pair = widgets.Dropdown(options=[(f"{a} − {b}", (a, b)) for a, b in known], description="target")
    method = widgets.Dropdown(options=METHODS, description="method")
    module: Any = model.module
    layers = (model.blocks or module.config.num_hidden_layers) + 1
    layer = widgets.IntSlider(value=layers - 1, max=layers - 1, description="layer", continuous_update=False)
    canvas = Canvas(10, 3.6)
    kept: dict[tuple[str, tuple[str, str]], Masked] = {}

    def paint(fig: Figure) -> str:
        asked = (typed.value, pair.value)
        if asked not in kept:
            kept.clear()
            kept[asked] = masked.observe(model, [typed.value], pair.value)
        return _paint(fig, kept[asked], pair.value, method.value, layer.value, vectors)

    def redraw(*_: Any) -> None:
        canvas.draw(paint)

    for control in (typed, pair, method, layer):
        control.observe(redraw, names="value")
    redraw()
    note = widgets.HTML("<small>the layer behind the last one is the sum</small>")
    return widgets.VBox([typed, widgets.HBox([pair, method]), widgets.HBox([layer, note]), canvas.box])


def _paint(fig: Figure, seen: Masked, pair: tuple[str, str], method: str, layer: int, vectors: Tensor) -> str:
    scores = {
        "AttCAT": seen.attcat, "DensRay": lambda: seen.ray(vectors), "AttDR": lambda: seen.attdr(vectors),
        "attention of [MASK]": seen.paid,
    }[method]()[:, 0]  # fmt: skip
    places = list(seen.tokens(0))
    labels, shown = [seen.batch.labels[0][t] for t in places], scores[:, places].float().cpu()
    left, right = fig.subplots(1, 2, gridspec_kw={"width_ratios": (1, 2)})
    one = shown.sum(0) if layer == len(shown) else shown[layer]
    title = f"{method}, {'sum' if layer == len(shown) else f'layer {layer}'}"
    plots.token_bars(left, one, labels, title, signed=True)
    plots_gender.heat(right, shown, labels, "all layers, each row on its own scale", ring=layer)
    fig.subplots_adjust(left=0.1, right=0.99, bottom=0.2, top=0.9, wspace=0.15)
    first, second = seen.probabilities[0].tolist()
    return f"P({pair[0]}) = {first:.3f}, P({pair[1]}) = {second:.3f}; most likely: {seen.likeliest[0]}"
