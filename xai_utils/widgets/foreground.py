"""A widget: one picture, one map, and the foreground by exact masks or a detector's, thresholds to drag."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import ipywidgets as widgets
from matplotlib.figure import Figure

from xai_utils import methods, metrics, plots
from xai_utils.evaluation import on_objects, on_pictures
from xai_utils.models import Model, encoding
from xai_utils.models import detector as detectors
from xai_utils.models.detector import Detections, Detector
from xai_utils.plots import foreground as plots_foreground
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture
from xai_utils.widgets.attention import WIDE, Canvas


def faf(
    model: Model,
    pictures: Sequence[Picture],
    names: Sequence[str],
    detector: Detector | None = None,
    match: str = "any",
    classes: Mapping[str, Collection[int]] | None = None,
) -> widgets.Widget:
    """Choose a picture, a method and where the mask comes from, and read FAF and lift; each pass is run once and kept.

    Args:
        model: a vision model.
        pictures: with exact masks.
        names: methods on offer (see :data:`methods.METHODS`).
        detector: whose masks are offered beside the exact ones, with both of its thresholds.
        match: ``"any"`` or ``"class"``, see :func:`on_pictures.masks`.
        classes: mask name to class indices.
    """
    which = widgets.Dropdown(
        options=[(one.name, i) for i, one in enumerate(pictures)], description="picture", style=WIDE
    )
    method = widgets.Dropdown(options=list(names), description="method", style=WIDE)
    source = widgets.Dropdown(options=["exact"] + (["detector"] if detector else []), description="mask", style=WIDE)
    score = widgets.FloatSlider(value=0.5, min=0.05, max=0.95, step=0.05, description="score ≥", style=WIDE)
    mask = widgets.FloatSlider(value=0.5, min=0.05, max=0.95, step=0.05, description="pixel ≥", style=WIDE)
    canvas = Canvas(7.6, 3.7)
    maps: dict[tuple[int, str], Attribution] = {}
    seen: dict[int, Detections] = {}

    def masked() -> Picture:
        picture = pictures[which.value]
        if source.value == "exact" or detector is None:
            return picture
        if which.value not in seen:
            (seen[which.value],) = detectors.detect(detector, [picture])
        return detectors.with_masks([picture], [seen[which.value]], score.value, mask.value)[0]

    def paint(fig: Figure) -> str:
        key = which.value, method.value
        if key not in maps:
            maps[key] = methods.explain(method.value, model, pictures[which.value])
        found, picture = maps[key], masked()
        target = on_objects.predicted(model, [picture]) if match == "class" else None
        truth = on_pictures.masks(model, [picture], target, match, classes)
        assert model.preprocessing is not None
        view = encoding.view(picture.image, model.preprocessing)
        left, right = fig.add_axes((0.01, 0.03, 0.47, 0.88)), fig.add_axes((0.51, 0.03, 0.47, 0.88))
        plots.image(left, view, f"{picture.name}, {source.value} mask")
        plots.outline(left, {"": truth[0].numpy()})
        plots_foreground.on_grid(right, view, found.picture(), truth[0].numpy(), found.method, found.signed)
        result = metrics.foreground_fraction(found.picture()[None], truth)
        if not result.scored[0]:
            return str(result)
        return f"FAF {result.fraction[0]:.3f}, area {result.area[0]:.3f}, lift {result.lift[0]:.2f}"

    def redraw(*_: object) -> None:
        score.disabled = mask.disabled = source.value == "exact"
        canvas.draw(paint)

    for control in (which, method, source, score, mask):
        control.observe(redraw, names="value")
    redraw()
    columns = [widgets.VBox([which, method, source]), widgets.VBox([score, mask])]
    return widgets.VBox([widgets.HBox(columns), canvas.box])
