"""The controls of the explorer: what there is to choose, read as a request and filled from one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from xai_utils import methods, models, samples
from xai_utils.samples import prompts
from xai_utils.widgets.explorer import view
from xai_utils.widgets.explorer.view import CHANGES, Captured, Request

STYLE = {"description_width": "7.5em"}
PREDICTED = ("predicted", "")
OFFERED_CLASSES, OFFERED_REVIEWS, OFFERED_PROMPTS = 50, 12, 4


class Controls:
    """Every control with its label, arranged in ``box``; nothing happens here when one is moved."""

    def __init__(self) -> None:
        """Make and arrange them, still empty."""
        known, hub = list(models.MODELS), "a name of the list, hf:owner/name, timm:name"
        self.model = _box(description="model", options=known, placeholder=hub)
        self.second = _box(description="second model", options=known, placeholder="none")
        self.sample = _box(description="input", placeholder="a sentence, a prompt, a picture's name or file")
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="own picture")
        self.target = widgets.Dropdown(options=[PREDICTED], description="class")
        self.against = _box(description="against", placeholder="no other class or word")
        self.methods = widgets.SelectMultiple(options=list(methods.METHODS), rows=7, description="methods")
        self.layer = widgets.IntSlider(description="layer")
        self.play = widgets.Play(interval=500, description="play the layers", tooltip="play the layers")
        self.change = widgets.Dropdown(options=list(CHANGES), description="change")
        self.strength = widgets.FloatSlider(description="strength", min=0.0, max=1.0, step=0.01)
        self.table = widgets.Checkbox(description="numbers as a table", indent=False)
        self.look = widgets.Button(description="Look", button_style="primary", tooltip="capture this input again")
        self.stop = widgets.Button(description="Stop", disabled=True, tooltip="stop what is running")
        self.export = widgets.Button(description="Export view", tooltip="PNG, its record and parameters as YAML")
        self.progress = widgets.IntProgress(description="ready", max=1)
        asked = (self.target, self.against, self.methods)
        self.slow = (self.model, self.second, self.sample, *asked)  # ask the model again
        for one in (*self.slow, self.layer, self.change, self.strength):
            one.style, one.layout = STYLE, widgets.Layout(width="24em")
        widgets.link((self.play, "value"), (self.layer, "value"))
        columns = [
            [self.model, self.second, self.sample, self.upload, self.target, self.against],
            [self.methods, self.change, self.strength],
            [widgets.HBox([self.layer, self.play]), self.table, widgets.HBox([self.look, self.stop, self.export]),
             self.progress],
        ]  # fmt: skip
        self.box = widgets.HBox([widgets.VBox(column) for column in columns])
        self.box.layout.flex_flow = "row wrap"

    def asked(self, before: Request) -> Request:
        """Read the slow controls into a request; classes chosen for another model do not count."""
        model, change = self.model.value.strip(), self.change.value
        target = None if self.target.value == PREDICTED[1] else self.target.value
        same = model == before.model
        return replace(
            before, model=model, second_model=self.second.value.strip(), sample=self.sample.value,
            target=target if same else None, against=self.against.value.strip() if same else "",
            methods=tuple(self.methods.value), change=change,
            strength=None if change == view.NONE else self.strength.value,
        )  # fmt: skip

    def name(self, shown: Request) -> None:
        """Write what a view names, whether or not it can be shown."""
        self.model.value, self.second.value, self.sample.value = shown.model, shown.second_model, shown.sample
        self.against.value, self.methods.value = shown.against, shown.methods

    def fill(self, shown: Request, first: Captured) -> None:
        """Put the controls where a view is that is shown."""
        self.name(shown)
        self.sample.options = _inputs(first)
        self._fill_classes(shown, first)
        self._fill_methods(shown, first)
        self.layer.disabled = first.seen is None
        self.layer.max = self.play.max = 0 if first.seen is None else len(first.attention) - 1
        self.layer.value = shown.layer % (self.layer.max + 1)
        self.fill_change(shown.change, shown.strength)

    def _fill_classes(self, shown: Request, first: Captured) -> None:
        names = first.model.classes
        self.target.description = "next word" if first.model.head == "next" else "class"
        logits = None if first.seen is None else first.seen.logits
        order = list(range(len(names))) if logits is None else logits[0].argsort(descending=True).tolist()
        chosen = None if shown.target is None else first.model.class_index(shown.target)
        offered = [i for i in order[:OFFERED_CLASSES] if i != chosen]
        offered = offered if chosen is None else [chosen, *offered]
        self.target.options = [PREDICTED, *((names[i], i) for i in offered)]
        self.target.value = PREDICTED[1] if chosen is None else chosen

    def _fill_methods(self, shown: Request, first: Captured) -> None:
        """Offer what suits the model first; the rest stays to be chosen, and says its reason in its panel."""
        suiting = methods.methods_for(first.model)
        rest = [(f"{name} (not for this model)", name) for name in methods.METHODS if name not in suiting]
        self.methods.options = [*((name, name) for name in suiting), *rest]
        self.methods.value = shown.methods

    def fill_change(self, change: str, strength: float | None) -> None:
        """Give the slider the parameter of a change; its range grows first, so that no value is ever outside."""
        parameter, least, greatest, first = CHANGES[change]
        self.change.value, self.strength.description = change, parameter
        self.strength.min, self.strength.max = min(least, self.strength.min), max(greatest, self.strength.max)
        self.strength.value = first if strength is None else strength
        self.strength.min, self.strength.max = least, greatest
        self.strength.step = 1.0 if change == "rank" else 0.01
        self.strength.disabled = change == view.NONE


def _inputs(first: Captured) -> list[str]:
    """Return inputs to begin with that the model takes."""
    if first.model.kind != "text":
        return [*samples.PHOTOGRAPHS, "scene:3:2"]
    if first.model.head == "next":
        return [prompts.draw(task, seed).text for task in prompts.TASKS for seed in range(OFFERED_PROMPTS)]
    return [one.text for one in samples.reviews(OFFERED_REVIEWS)]


def _box(**about: Any) -> widgets.Combobox:
    return widgets.Combobox(continuous_update=False, **about)
