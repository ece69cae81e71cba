"""Time the kernel's share of a redraw of the explorer, against one plain pass of the model; weigh a page of maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.bench.measure import Against, Row, in_turn, named, there
from xai_utils import models
from xai_utils.samples import Text
from xai_utils.widgets.explorer import linked, view

METHODS = ("rollout", "gradient_rollout", "transformer_attribution", "attnlrp")


def rows(quick: bool = False) -> Iterator[Row]:
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
        picture.show_maps(captured, [*view.panels(captured, request), *view.before_after(captured, "spectral", 0.5)])

    repeats = 5 if quick else 20
    cases = {"drag over layers": layer, "drag over a filter's strength": strength}
    for name, act in cases.items():
        times = in_turn({name: act, "plain": plain}, repeats)
        yield Row(f"explorer, vit-scenes: {name}", times[name], Against("a plain pass of one picture", times["plain"]))
    yield page(128 if quick else 512)


def page(tokens: int) -> Row:
    """Weigh what a browser is sent for one text: all layers and heads of BertViz, one layer at a time here."""
    model = models.load("minilm-sst2")
    captured = view.capture(model, Text("good " * (tokens - 2)))
    picture = linked.Linked()
    picture.show(captured, view.panels(captured, view.Request("minilm-sst2", "", methods=METHODS)), 0, None, 0)
    ours = sum(len(value) if isinstance(value, bytes) else len(repr(value)) for value in picture.get_state().values())
    peer = Against(named("bertviz"))
    if there("bertviz"):
        peer = Against(f"head view of {named('bertviz')}", _bertviz(captured) / 1e6, 1.0)
    return Row(f"what a browser is sent for {tokens} tokens, minilm-sst2, MB for seconds", ours / 1e6, None, peer)


def _bertviz(captured: view.Captured) -> int:
    from bertviz import head_view

    maps = captured.seen.attention
    return len(head_view(list(maps), list(captured.batch.labels[0]), html_action="return").data)
