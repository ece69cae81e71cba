"""The controls of the explorer: what there is to choose, read as a request and filled from one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import traitlets

from xai_utils import methods, models, samples
from xai_utils.models import Model
from xai_utils.samples import prompts
from xai_utils.widgets.explorer import decided, known, view
from xai_utils.widgets.explorer.view import CHANGES, Captured, Request

STYLE = {"description_width": "7.5em"}
BESIDE = " · "  #: stands between a class and its probability
PREDICTED = ""
OFFERED_CLASSES, OFFERED_REVIEWS, OFFERED_PROMPTS = 1000, 12, 4
EXAMPLES = "choose an example"
#: what is shown at first, the first four that suit a model
PREFERRED = (
    "rollout", "gradient_rollout", "transformer_attribution", "attnlrp", "hidden_rollout", "mamba_attribution",
    "mamba_lrp", "gradcam", "closed_attention", "closed_gradient_mean", "gradient_x_input", "integrated_gradients",
    "leave_one_out",
)  # fmt: skip


def fitting(model: Model, chosen: Sequence[str]) -> tuple[str, ...]:
    """Return those of some methods that can explain a model, or the first four of :data:`PREFERRED` that can."""
    kept = tuple(name for name in chosen if not methods.METHODS[name].suits(model))
    return kept or tuple(name for name in PREFERRED if not methods.METHODS[name].suits(model))[:4]


class Methods(widgets.VBox):  # type: ignore[misc]
    """Every method as a box to tick; ``value`` are the ticked ones, in the order in which they were ticked."""

    value = traitlets.Tuple()

    def __init__(self) -> None:
        """Make the boxes; every method may be ticked until :meth:`offer` says which model it is."""
        self._quiet = False
        self.boxes = {name: _tick(name) for name in methods.METHODS}
        super().__init__(list(self.boxes.values()), layout=widgets.Layout(max_height="15em", overflow="auto"))
        for name, box in self.boxes.items():
            box.observe(lambda change, name=name: self._ticked(name, change["new"]), "value")

    def offer(self, model: Model) -> None:
        """Put what suits a model first; what does not cannot be ticked, and says why when pointed at."""
        reasons = {name: methods.METHODS[name].suits(model) for name in self.boxes}
        for name, box in self.boxes.items():
            box.disabled, box.tooltip = bool(reasons[name]), reasons[name] or _worth(model, name)
            box.description = name if not reasons[name] else f"{name} (not for this model)"
        self.children = [self.boxes[name] for name in sorted(self.boxes, key=lambda name: bool(reasons[name]))]

    def _ticked(self, name: str, there: bool) -> None:
        if not self._quiet:
            others = tuple(one for one in self.value if one != name)
            self.value = (*others, name) if there else others

    @traitlets.observe("value")
    def _tick_all(self, change: dict[str, Any]) -> None:
        self._quiet = True
        for name, box in self.boxes.items():
            box.value = name in change["new"]
        self._quiet = False


class Controls:
    """Every control with its label, arranged in ``box``; nothing happens here when one is moved."""

    def __init__(self) -> None:
        """Make and arrange them, still empty."""
        known, hub = list(models.MODELS), "a name, hf:owner/name"
        self.model = _box("model", hub, "which model looks: a name of the list, hf:owner/name or timm:name", known)
        self.second = _box("second model", "none", "a second model beside the first, on the same input", known)
        self.sample = widgets.Textarea(
            description="input", placeholder="a sentence, a prompt, a picture's name or file", continuous_update=False,
            rows=3, tooltip="a sentence or prompt; for a picture its name or file",
        )  # fmt: skip
        self.examples = widgets.Dropdown(
            options=[EXAMPLES], description="examples", tooltip="inputs to begin with; one replaces the input"
        )
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="own picture",
            tooltip="take a picture from your disk; models called scenes know digits only, deit_tiny everyday things",
        )
        self.target = _box("class", "predicted", "which answer is explained; type to search, empty for the predicted")
        self.against = _box("against", "no other", "an answer that this one is set against: one map of the difference")
        self.methods = Methods()
        self.layer = widgets.IntSlider(description="layer", tooltip="of the linked map")
        self.play = widgets.Play(interval=500, description="play the layers", tooltip="play the layers")
        self.everywhere = widgets.Checkbox(
            description="all layers and heads", indent=False,
            tooltip="what every head of every layer reads at the chosen position; a click enlarges one",
        )  # fmt: skip
        self.lines = widgets.Checkbox(
            description="lines", indent=False, tooltip="from the chosen position to what it reads most"
        )
        self.change = widgets.Dropdown(
            options=list(CHANGES), description="change", tooltip="rollout before and after the layers are changed"
        )
        self.strength = widgets.FloatSlider(
            description="strength", min=0.0, max=1.0, step=0.01, tooltip="how strongly the layers are changed"
        )
        self.table = widgets.Checkbox(description="numbers as a table", indent=False, tooltip="what the colours say")
        self.pieces = widgets.Checkbox(
            description="pieces of words", indent=False, tooltip="take single pieces away instead of whole words"
        )
        self.difference = widgets.Checkbox(
            description="difference", indent=False,
            tooltip="the first method minus the second, or the first model minus the second, as one map",
        )  # fmt: skip
        self.look = widgets.Button(description="Look", button_style="primary", tooltip="capture this input again")
        self.stop = widgets.Button(description="Stop", disabled=True, tooltip="stop what is running")
        self.export = widgets.Button(
            description="Export view", tooltip="pictures, scores, a page, a record, parameters"
        )
        self.dpi = widgets.BoundedIntText(
            value=300, min=50, max=1200, description="dpi", tooltip="dots per inch of the exported PNG"
        )
        self.progress = widgets.IntProgress(description="ready", max=1)
        asked = (self.target, self.against, self.methods)
        self.slow = (self.model, self.second, self.sample, *asked)  # ask the model again
        self._answers: dict[str, int] = {}
        self.box = self._arranged()

    def _arranged(self) -> widgets.VBox:
        narrow = (*self.slow[:-1], self.examples, self.layer, self.change, self.strength, self.dpi, self.progress)
        for one in narrow:
            one.style, one.layout = STYLE, widgets.Layout(width="auto")
        for one in (self.look, self.stop, self.export):
            one.layout = widgets.Layout(width="auto")
        widgets.link((self.play, "value"), (self.layer, "value"))
        played = widgets.HBox([widgets.Label("play the layers"), self.play])
        groups = {
            "Model and input": [self.model, self.second, self.sample, self.examples, self.upload],
            "Question": [self.target, self.against],
            "Methods": [self.methods, self.difference],
            "Layers": [self.layer, played, self.everywhere, self.lines, self.change, self.strength],
            "Show and keep": [self.pieces, self.table, self.dpi],
        }  # fmt: skip
        top = [widgets.HBox([self.look, self.stop, self.export]), self.progress]
        parts = [widgets.VBox([widgets.HTML(f"<b>{name}</b>"), *group]) for name, group in groups.items()]
        return widgets.VBox([*top, *parts], layout=widgets.Layout(width="22em", flex="0 0 auto"))

    def asked(self, before: Request) -> Request:
        """Read the slow controls into a request; classes chosen for another model do not count."""
        model, change = self.model.value.strip(), self.change.value
        same = model == before.model
        target = self._answer(self.target.value) if self.target.value.strip() else None
        against = self.against.value.rpartition(BESIDE)[0] or self.against.value
        return replace(
            before, model=model, second_model=self.second.value.strip(), sample=self.sample.value,
            target=target if same else None, against=against.strip() if same else "",
            methods=tuple(self.methods.value), change=change, difference=self.difference.value,
            strength=None if change == view.NONE else self.strength.value,
        )  # fmt: skip

    def _answer(self, written: str) -> int | str:
        """Read a class as it is offered, with its probability, or as somebody typed it."""
        return self._answers.get(written.rpartition(BESIDE)[0] or written, written.strip())

    def name(self, shown: Request) -> None:
        """Write what a view names, whether or not it can be shown."""
        self.model.value, self.second.value, self.sample.value = shown.model, shown.second_model, shown.sample
        self.against.value, self.methods.value = shown.against, shown.methods
        self.difference.value = shown.difference

    def fill(self, shown: Request, first: Captured) -> None:
        """Put the controls where a view is that is shown."""
        self.name(shown)
        self.examples.options = [EXAMPLES, *_inputs(first)]
        self._fill_classes(shown, first)
        self.methods.offer(first.model)
        self.upload.disabled = first.model.kind == "text"
        for one in (self.layer, self.everywhere, self.lines):
            one.disabled = first.seen is None
        self.layer.max = self.play.max = 0 if first.seen is None else len(first.attention) - 1
        self.layer.value = min(shown.layer, self.layer.max) % (self.layer.max + 1)
        self.fill_change(shown.change, shown.strength)

    def _fill_classes(self, shown: Request, first: Captured) -> None:
        """Offer classes with their probabilities, likeliest first; every other one can be typed."""
        model, logits = first.model, first.logits
        self.target.description = "next word" if model.head == "next" else "class"
        self.target.disabled = self.against.disabled = logits is None
        if logits is None:
            self.target.options = self.against.options = []
            self.target.value = PREDICTED
            return
        values, order = decided.chances(model, logits).sort(descending=True)
        named = _told_apart([decided.named(model, i) for i in order[:OFFERED_CLASSES].tolist()])
        self._answers = dict(zip(named, order.tolist(), strict=False))
        offered = [
            f"{name}{BESIDE}{decided.amount(model, float(value))}" for name, value in zip(named, values, strict=False)
        ]
        self.target.options = self.against.options = offered
        chosen = None if shown.target is None else model.class_index(shown.target)
        written = dict(zip(self._answers.values(), offered, strict=True))
        self.target.value = PREDICTED if chosen is None else written.get(chosen, decided.named(model, chosen))

    def fill_change(self, change: str, strength: float | None) -> None:
        """Give the slider the parameter of a change; its range grows first, so that no value is ever outside."""
        parameter, least, greatest, first = CHANGES[change]
        self.change.value, self.strength.description = change, parameter
        self.strength.min, self.strength.max = min(least, self.strength.min), max(greatest, self.strength.max)
        self.strength.value = first if strength is None else strength
        self.strength.min, self.strength.max = least, greatest
        self.strength.step = 1.0 if change == "rank" else 0.01
        self.strength.disabled = change == view.NONE

    @contextmanager
    def busy(self, steps: int) -> Iterator[None]:
        """Show progress while something runs that can be stopped."""
        self.progress.max, self.progress.value, self.stop.disabled = steps, 0, False
        try:
            yield
        finally:
            self.stop.disabled, self.progress.description, self.progress.value = True, "ready", self.progress.max


def _told_apart(names: Sequence[str]) -> list[str]:
    """Number names that are there already, as ImageNet has two cranes."""
    count: Counter[str] = Counter()
    found = []
    for name in names:
        count[name] += 1
        found.append(name if count[name] == 1 else f"{name} ({count[name]})")
    return found


def _inputs(first: Captured) -> list[str]:
    """Return inputs to begin with that the model takes."""
    if first.model.kind != "text":
        return [*samples.PHOTOGRAPHS, "scene:3:2"]
    if first.model.head == "next":
        return [prompts.draw(task, seed).text for task in prompts.TASKS for seed in range(OFFERED_PROMPTS)]
    return [one.text for one in samples.reviews(OFFERED_REVIEWS)]


def _worth(model: Model, name: str) -> str:
    badge = known.badge(model, name)
    return f"{methods.METHODS[name].family}; {badge or 'not scored on this kind of model'}"


def _tick(name: str) -> widgets.Checkbox:
    return widgets.Checkbox(description=name, indent=False, layout=widgets.Layout(width="auto"))


def _box(description: str, placeholder: str, tooltip: str, options: Sequence[str] = ()) -> widgets.Combobox:
    return widgets.Combobox(
        description=description, placeholder=placeholder, tooltip=tooltip, options=options, continuous_update=False
    )
