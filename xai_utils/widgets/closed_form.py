"""A widget on the closed forms: type a sentence, pick a head, and attention, gradient and LIME follow together."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from xai_utils import plots, samples
from xai_utils.methods import closed_forms
from xai_utils.methods.closed_forms import Document
from xai_utils.models import Model
from xai_utils.widgets.attention import Canvas

SHOWN = ("attention mean", "gradient L2", "gradient × input", "LIME", "integrated gradients")


def sentence_and_head(model: Model, sentence: str, target: int | str = -1) -> widgets.Widget:
    """Explain whatever is typed, by every closed form at once, for the model or for one of its heads.

    Args:
        model: an attention classifier.
        sentence: to begin with.
        target: class whose score is explained.

    Returns:
        A text field and a head chooser above one highlighted copy of the sentence for each form.
    """
    typed = widgets.Text(
        value=sentence, description="sentence", continuous_update=False, layout=widgets.Layout(width="42em")
    )
    heads = range(_read(model, sentence, target).layer.heads)
    chosen = widgets.Dropdown(options=[("all heads", None), *((f"head {h}", h) for h in heads)], description="head")
    canvas = Canvas(10, 2.2)

    def paint(fig: Figure) -> str:
        read = _read(model, typed.value, target)
        seen = read if chosen.value is None else read.head(chosen.value)
        plots.highlighted(fig.add_axes((0.16, 0.02, 0.83, 0.94)), closed_forms.highlights(seen, SHOWN), read.words)
        note = f"; unknown: {', '.join(read.unknown)}" if read.unknown else ""
        return f"score of {model.classes[read.target]}: {read.score:.2f}{note}"

    def redraw(*_: Any) -> None:
        canvas.draw(paint)

    for control in (typed, chosen):
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([widgets.HBox([typed, chosen]), canvas.box])


def _read(model: Model, sentence: str, target: int | str) -> Document:
    return closed_forms.read(model, samples.text(sentence), target)
