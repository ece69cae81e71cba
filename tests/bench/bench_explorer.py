"""Time the kernel's share of a redraw of the explorer, against one plain pass of the model."""

from __future__ import annotations

import torch

from tests.bench.bench_capture import in_turn, row
from xai_utils import models
from xai_utils.widgets.explorer import linked, view

METHODS = ("rollout", "gradient_rollout", "transformer_attribution", "attnlrp")


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Return one row for each slider; the browser's share, about a frame, is not in it."""
    request = view.Request("vit-scenes", "scene:3:2", methods=METHODS)
    model = models.load(request.model)
    captured = view.capture(model, view.sample_of(model, request.sample))
    picture = linked.Linked()
    picture.show(captured, view.panels(captured, request), 0, None, 0)

    @torch.inference_mode()
    def plain() -> None:
        model.logits(captured.batch.inputs)

    def layer() -> None:
        picture.show_layer(captured, 5, None)

    def strength() -> None:
        picture.show_maps([*view.panels(captured, request), *view.before_after(captured, "spectral", 0.5)])

    repeats, theirs = 5 if quick else 20, "plain pass of one picture"
    cases = {"drag over layers": layer, "drag over a filter's strength": strength}
    return [
        row("explorer, vit-scenes", name, theirs, in_turn({name: act, theirs: plain}, repeats))
        for name, act in cases.items()
    ]
