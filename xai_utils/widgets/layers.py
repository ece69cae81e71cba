"""Widgets over what is done to the layers before they are rolled out: some left out, or each of them filtered."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai_utils import methods, plots
from xai_utils.maths import diffusion, rollout, selective
from xai_utils.methods.observation import Observation, observe
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Sample
from xai_utils.widgets.attention import WIDE, Canvas

_PANELS = (0.08, 0.41, 0.74)  # left edges


def selected(model: Model, sample: Sample) -> widgets.Widget:
    """Drag over the threshold of selective rollout; see which layers are used and what the class token then reads.

    Args:
        model: text or vision model with attention.
        sample: one sentence or picture; it is captured once.
    """
    seen = observe(model, [sample], gradient=False)
    maps = rollout.fuse(seen.view(0).attention).cpu()
    distance = widgets.Dropdown(options=list(selective.DISTANCES), description="distance", style=WIDE)
    share = widgets.FloatSlider(max=1.0, step=0.01, value=0.5, description="threshold", style=WIDE)
    canvas = _canvas(seen)

    def paint(fig: Figure) -> str:
        every = selective.selective_rollout(maps, 0.0, distance.value)
        threshold = share.value * float(every.distances.max())
        found = selective.selective_rollout(maps, threshold, distance.value)
        options = {"distance": distance.value, "threshold": threshold}
        pair = [methods.attribute("rollout", seen), methods.attribute("selective_rollout", seen, **options)]
        _side_by_side(fig, seen, pair, ("every layer", "layers used"))
        plots.layer_bars(fig.axes[-1], found.distances, found.used, threshold)
        return f"{int(found.used.sum())} of {len(maps)} layers used, threshold {threshold:.3g}"

    for control in (distance, share):
        control.observe(lambda *_: canvas.draw(paint), names="value")
    canvas.draw(paint)
    note = widgets.Label("threshold: as a share of the greatest distance between neighbouring layers of this sample")
    return widgets.VBox([widgets.HBox([distance, share]), note, canvas.box])


def _canvas(seen: Observation) -> Canvas:
    return Canvas(9.6, 3.2) if seen.batch.grid else Canvas(9.6, 0.9 + 0.17 * len(seen.batch.labels[0]))


def _side_by_side(fig: Figure, seen: Observation, pair: list[Attribution], titles: tuple[str, str]) -> None:
    """Draw two maps on the left and leave an empty panel on the right."""
    axes: list[Axes] = [fig.add_axes((left, 0.16, 0.24, 0.72)) for left in _PANELS]
    for ax, one, title in zip(axes, pair, titles, strict=False):
        if seen.batch.views is None:
            plots.relevance(ax, one.words(), title=title)
        else:
            plots.relevance(ax, one, seen.batch.views[0], title, bar=False)
    axes[1].set_yticks([])  # the tokens stand beside the first


def diffused(model: Model, sample: Sample) -> widgets.Widget:
    """Drag over a filter's parameter and the skip; see one sample's rollout before and after, and the spectrum.

    Args:
        model: text or vision model with attention.
        sample: one sentence or picture; it is captured once.
    """
    seen = observe(model, [sample], gradient=False)
    maps = rollout.fuse(seen.view(0).attention).cpu()
    name = widgets.Dropdown(options=[f for f in diffusion.FILTERS if f != "identity"], description="filter", style=WIDE)
    strength = widgets.FloatSlider(min=0.01, max=0.99, step=0.01, value=0.8, description="alpha", style=WIDE)
    count = widgets.IntSlider(min=1, max=maps.shape[-1], value=min(4, maps.shape[-1]), description="rank", style=WIDE)
    time = widgets.FloatSlider(min=0.0, max=10.0, step=0.1, value=3.0, description="time", style=WIDE)
    layer = widgets.IntSlider(max=len(maps) - 1, value=len(maps) - 1, description="layer", style=WIDE)
    skip = widgets.FloatSlider(min=0.0, max=0.99, step=0.01, value=0.5, description="skip", style=WIDE)
    used = {"rank": count, "heat": time}
    canvas = _canvas(seen)

    def paint(fig: Figure) -> str:
        value = used.get(name.value, strength).value
        before = methods.attribute("rollout", seen, residual=skip.value)
        options = {"filter": name.value, "strength": value, "residual": skip.value}
        after = methods.attribute("diffusion_rollout", seen, **options)
        _side_by_side(fig, seen, [before, after], ("before", "after"))
        chosen = maps[layer.value][None]
        plots.spectra(fig.axes[-1], {"before": chosen, "after": diffusion.diffuse(chosen, name.value, value)})
        said = f"{name.value}, {diffusion.FILTERS[name.value].parameter} {value:g}, skip {skip.value:g}"
        return f"{said}; spectrum of layer {layer.value}"

    def redraw(*_: Any) -> None:
        strength.description = diffusion.FILTERS[name.value].parameter if name.value not in used else "alpha"
        for control in (strength, count, time):
            control.disabled = control is not used.get(name.value, strength)
        canvas.draw(paint)

    for control in (name, strength, count, time, layer, skip):
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox(
        [widgets.HBox([widgets.VBox([name, layer, skip]), widgets.VBox([strength, count, time])]), canvas.box]
    )
