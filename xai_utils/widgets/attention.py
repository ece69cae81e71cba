"""Widgets over a captured pass: capture once, redraw many.

Every picture is one PNG of a few kilobytes for the chosen layer and head, so the length of a text does not matter, and
nothing is fetched from anywhere.
"""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from xai_utils import methods, plots
from xai_utils.maths import rollout
from xai_utils.methods.observation import Observation, observe
from xai_utils.models import Model
from xai_utils.models.kinds import UNITS
from xai_utils.models.targets import probabilities
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample

WIDE = {"description_width": "5.5em"}


class Canvas:
    """A picture, a line of numbers and a line for errors; ``draw`` replaces all three."""

    def __init__(self, width: float, height: float) -> None:
        """Begin empty; sizes in inches at 80 dots."""
        self.size = (width, height)
        self.image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.note = widgets.HTML()
        self.box = widgets.VBox([self.image, self.note])

    def draw(self, paint: Callable[[Figure], str]) -> None:
        """Paint on a fresh figure; an error becomes a message and leaves the picture as it was."""
        begun = time.perf_counter()
        try:
            with _collected_young():
                self.image.value, words = self._png(paint)
        except (ValueError, IndexError, OSError, TypeError, RuntimeError) as error:
            self.note.value = f"<b style='color:#a40000'>{escape(str(error))}</b>"
            return
        self.note.value = f"{escape(words)} <small>({1000 * (time.perf_counter() - begun):.0f} ms)</small>"

    def _png(self, paint: Callable[[Figure], str]) -> tuple[bytes, str]:
        fig, file = Figure(figsize=self.size, dpi=80), io.BytesIO()
        words = paint(fig)
        fig.savefig(file, format="png")
        return file.getvalue(), words


@contextmanager
def _collected_young() -> Iterator[None]:
    """Let no garbage be collected inside, and only the new one behind.

    A figure is many thousand objects in circles. Were they to grow old, Python would look through all of its memory,
    every library included, for half a second in one redraw out of twenty.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect(0)


class _Passes:
    """Observations by class: one pass for each class that is asked for, then kept."""

    def __init__(self, model: Model, sample: Sample) -> None:
        self.model, self.sample = model, sample
        self.kept: dict[int | None, Observation] = {}

    def of(self, target: int | None) -> Observation:
        """Return the pass explained for ``target`` (``None``: the predicted class)."""
        if target not in self.kept:
            seen = observe(self.model, [self.sample], target, gradient=bool(self.model.classes))
            self.kept[target] = seen
            if seen.targets is not None:
                self.kept[seen.targets[0]] = seen
        return self.kept[target]


def attention(model: Model, sample: Sample) -> widgets.Widget:
    """Drag over layers, heads and rows of one sample's attention, raw or rolled out.

    Args:
        model: text or vision model.
        sample: one sentence or picture.

    Returns:
        Controls above a picture: a sentence shows the whole ``(query, key)`` map beside the chosen row, a picture shows
        the chosen row over its patches.
    """
    passes = _Passes(model, sample)
    first = passes.of(None)
    layers, _, heads = first.attention.shape[:3]
    names = ["attention", "rollout"] + (["gradient_rollout"] if model.classes else [])
    controls: dict[str, Any] = {
        "method": widgets.Dropdown(options=names, description="method", style=WIDE),
        "layer": widgets.IntSlider(value=layers - 1, max=layers - 1, description="layer", style=WIDE),
        "head": widgets.Dropdown(
            options=[("mean", None), *((str(h), h) for h in range(heads))], description="head", style=WIDE
        ),
        "row": widgets.Dropdown(options=_rows(first), description="row", style=WIDE),
        "fusion": widgets.Dropdown(options=rollout.FUSIONS, description="fusion", style=WIDE),
        "discard": widgets.FloatSlider(value=0.0, max=0.95, step=0.05, description="discard", style=WIDE),
        "residual": widgets.FloatSlider(value=0.5, max=1.0, step=0.05, description="residual", style=WIDE),
    }
    if model.classes:
        controls["target"] = _class_chooser(first)
    canvas = Canvas(8.4, 4.0) if first.batch.grid is None else Canvas(7.6, 3.9)

    def redraw(*_: Any) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        used = _used(chosen["method"])
        for name, control in controls.items():
            control.disabled = name not in used
        canvas.draw(lambda fig: _paint(fig, passes.of(chosen.pop("target", None)), used, chosen))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    half = (len(controls) + 1) // 2
    columns = [widgets.VBox(list(controls.values())[:half]), widgets.VBox(list(controls.values())[half:])]
    return widgets.VBox([widgets.HBox(columns), canvas.box])


def _rows(first: Observation) -> list[tuple[str, Any]]:
    """Offer the token that the answer is read from, the two rules over all rows, and every position by its label."""
    prefix = first.batch.prefix
    positions = [(f"{i}: {label}", i + prefix) for i, label in enumerate(first.batch.labels[0])]
    return [("reader", "reader"), ("max over rows", "max"), ("mean over rows", "mean"), *positions]


def _class_chooser(first: Observation) -> widgets.Dropdown:
    assert first.logits is not None
    logits, link = first.logits[0], first.model.link
    order = logits.argsort(descending=True)[:50].tolist()
    score = logits if link in UNITS else probabilities(logits, link)
    options = [(f"{first.model.classes[i]} ({score[i]:.2f})", i) for i in order]
    return widgets.Dropdown(options=options, description="class", style=WIDE)


def _used(method: str) -> tuple[str, ...]:
    """Name the controls that mean something for a method."""
    common = ("method", "layer", "row", "target")
    return (
        common
        + {
            "attention": ("head",),
            "rollout": ("fusion", "discard", "residual"),
            "gradient_rollout": ("discard", "residual"),
        }[method]
    )


def _paint(fig: Figure, seen: Observation, used: tuple[str, ...], chosen: dict[str, Any]) -> str:
    options = {name: chosen[name] for name in used if name in chosen and name != "method"}
    found = methods.attribute(chosen["method"], seen, 0, **options)
    if seen.batch.views is None:
        left, right = fig.add_axes((0.12, 0.22, 0.4, 0.68)), fig.add_axes((0.68, 0.12, 0.3, 0.78))
        plots.matrix(left, _matrix(seen, chosen), found.labels, "every row", name_keys=False)  # the bars name them
        plots.relevance(right, found, title="the chosen row")
    else:
        left, right = fig.add_axes((0.01, 0.03, 0.42, 0.88)), fig.add_axes((0.46, 0.03, 0.42, 0.88))
        plots.image(left, seen.batch.views[0], seen.model.name)
        plots.relevance(right, found, seen.batch.views[0])
    strongest = found.scores.argsort(descending=True, stable=True)[:4].tolist()
    return "strongest: " + ", ".join(f"{found.labels[i]} {found.scores[i]:.3g}" for i in strongest)


def _matrix(seen: Observation, chosen: dict[str, Any]) -> Tensor:
    """Return the whole map that the chosen row is read from, ``(query, key)``."""
    view = seen.view(0)
    maps = view.attention[: chosen["layer"] + 1]
    if chosen["method"] == "attention":
        return maps[-1].mean(0) if chosen["head"] is None else maps[-1][chosen["head"]]
    if chosen["method"] == "rollout":
        fused = rollout.fuse(maps, chosen["fusion"], chosen["discard"], keep=0)
    else:
        assert view.gradient is not None
        fused = rollout.gradient_weighted(maps, view.gradient[: len(maps)], chosen["discard"], keep=0)
    return rollout.rollout(fused, chosen["residual"], rescale=True)[-1]


def depth_graph(steps: Tensor, labels: tuple[str, ...]) -> widgets.Widget:
    """Choose a token of the last layer and a threshold, and see on which paths it draws on the input.

    Args:
        steps: residual-mixed maps ``(layer, query, key)`` (see :func:`rollout.mix`).
        labels: the tokens.
    """
    query = widgets.Dropdown(options=[("every token", None), *((f"{i}: {t}", i) for i, t in enumerate(labels))],
                             description="reader", style=WIDE)  # fmt: skip
    least = widgets.FloatSlider(value=0.05, min=0.01, max=0.5, step=0.01, description="least", style=WIDE)
    canvas = Canvas(8.4, 0.8 + 0.28 * len(labels))

    def paint(fig: Figure) -> str:
        plots.bipartite(fig.add_axes((0.12, 0.08, 0.86, 0.88)), steps, labels, least.value, query.value)
        return f"lines of at least {least.value:.2f}"

    for control in (query, least):
        control.observe(lambda *_: canvas.draw(paint), names="value")
    canvas.draw(paint)
    return widgets.VBox([widgets.HBox([query, least]), canvas.box])


def classes(model: Model, sample: Sample, names: Sequence[str]) -> widgets.Widget:
    """Choose a method and a class and see the map; every pair is computed once.

    Args:
        model: text or vision classifier.
        sample: one sentence or picture.
        names: methods on offer (see :data:`methods.METHODS`).
    """
    first = observe(model, [sample], gradient=False)
    name = widgets.Dropdown(options=list(names), description="method", style=WIDE)
    target = _class_chooser(first)
    canvas = Canvas(7.6, 3.9) if first.batch.grid else Canvas(7.6, 1.0 + 0.2 * len(first.batch.labels[0]))
    kept: dict[tuple[str, int], Attribution] = {}

    def paint(fig: Figure) -> str:
        pair = name.value, target.value
        if pair not in kept:
            kept[pair] = methods.explain(pair[0], model, sample, pair[1])
        ax = fig.add_axes((0.2, 0.1, 0.7, 0.8))
        plots.relevance(ax, kept[pair], None if first.batch.views is None else first.batch.views[0])
        return "strongest: " + ", ".join(kept[pair].top(4))

    for control in (name, target):
        control.observe(lambda *_: canvas.draw(paint), names="value")
    canvas.draw(paint)
    return widgets.VBox([widgets.HBox([name, target]), canvas.box])
