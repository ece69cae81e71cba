"""A widget on the closed forms: type a sentence, pick a head, and attention, gradient and LIME follow together."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from xai_utils import plots, samples
from xai_utils.methods import closed_forms as document
from xai_utils.models import Model
from xai_utils.widgets.attention import Canvas

SHOWN = ("attention mean", "gradient L2", "gradient × input", "LIME", "integrated gradients")


def closed_forms(model: Model, sentence: str, target: int | str = -1) -> widgets.Widget:
    """Explain whatever is typed, by every closed form at once, for the model or for one of its heads.

    Args:
        model: an attention classifier.
        sentence: to begin with.
        target: class whose score is explained.

    Returns:
        A text field and a head chooser above one highlighted copy of the sentence for each method.
    """
    typed = widgets.Text(
        value=sentence, description="sentence", continuous_update=False, layout=widgets.Layout(width="42em")
    )
    heads = range(document.read(model, samples.text(sentence), target).layer.heads)
    chosen = widgets.Dropdown(options=[("all heads", None), *((f"head {h}", h) for h in heads)], description="head")
    canvas = Canvas(10, 2.2)

    def redraw(*_: Any) -> None:
        canvas.draw(lambda fig: _paint(fig, model, typed.value, target, chosen.value))

    for control in (typed, chosen):
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([widgets.HBox([typed, chosen]), canvas.box])


def _paint(fig: Figure, model: Model, sentence: str, target: int | str, head: int | None) -> str:
    read = document.read(model, samples.text(sentence), target)
    found = document.explain(read, SHOWN, head)
    rows = {name: (scores, name in document.SIGNED) for name, scores in found.items()}
    plots.highlighted(fig.add_axes((0.16, 0.02, 0.83, 0.94)), rows, read.words)
    unknown = [label for label, known in zip(read.labels, read.known.tolist(), strict=True) if not known]
    note = f"; unknown: {', '.join(dict.fromkeys(unknown))}" if unknown else ""
    return f"score of {model.classes[model.class_index(target)]}: {read.score:.2f}{note}"
