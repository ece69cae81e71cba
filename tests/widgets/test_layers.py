"""Widgets over layers that are left out or filtered: one captured pass, and the numbers of the methods."""

import pytest
import tiny
import torch

from xai_utils import methods
from xai_utils.widgets import layers

BOTH = pytest.mark.parametrize("name", ["bert", "timm-vit"])


@BOTH
def test_layers_are_selected_from_one_pass(name, monkeypatch):
    model, drawn, bars, passes = tiny.model(name), [], [], []
    counted = model.module.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(layers.plots, "relevance", lambda _ax, one, *_, **__: drawn.append(one))
    monkeypatch.setattr(layers.plots, "layer_bars", lambda _ax, *given: bars.append(given))
    box = layers.selected(model, tiny.samples(name)[1])
    distance, share = box.children[0].children
    counted.remove()
    assert len(passes) == 1 and len(drawn) == 2
    for value, kind in ((0.0, "frobenius"), (1.0, "frobenius"), (0.6, "jensen_shannon")):
        distance.value, share.value = kind, value
        _, used, threshold = bars[-1]
        expected = methods.explain(
            "selective_rollout", model, tiny.samples(name)[1], distance=kind, threshold=threshold
        )
        shown = expected if name == "timm-vit" else expected.words()
        torch.testing.assert_close(drawn[-1].scores, shown.scores)
        assert used.nonzero()[:, 0].tolist() == expected.details["used"]
        assert f"{int(used.sum())} of {tiny.BLOCKS} layers used" in box.children[2].children[1].value
        if not value:
            assert used.all() and torch.equal(drawn[-1].scores, drawn[-1].scores)
            torch.testing.assert_close(drawn[-1].scores, drawn[-2].scores)


@BOTH
def test_its_picture_changes_with_the_threshold(name):
    box = layers.selected(tiny.model(name), tiny.samples(name)[1])
    image = box.children[2].children[0]
    before = bytes(image.value)
    box.children[0].children[1].value = 1.0
    assert before.startswith(b"\x89PNG") and bytes(image.value) != before


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_diffusion_is_redrawn_from_one_pass(name, monkeypatch):
    model, drawn, passes = tiny.model(name), [], []
    counted = model.module.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(layers.plots, "relevance", lambda _ax, one, *_, **__: drawn.append(one))
    box = layers.diffused(model, tiny.samples(name)[1])
    controls = {part.description: part for column in box.children[0].children for part in column.children}
    image, note = box.children[1].children
    plain = methods.explain("rollout", model, tiny.samples(name)[1])
    for filter, control, value in (
        ("spectral", "alpha", 0.4), ("rank", "rank", 2), ("heat", "time", 1.5), ("enhancement", "alpha", 0.6),
        ("pagerank", "alpha", 0.25),
    ):  # fmt: skip
        before = bytes(image.value)
        controls["filter"].value = filter
        assert not controls[control].disabled
        assert all(controls[other].disabled for other in {"alpha", "rank", "time"} - {control})
        controls[control].value = value
        assert bytes(image.value) != before and "color" not in note.value
        expected = methods.explain("diffusion_rollout", model, tiny.samples(name)[1], filter=filter, strength=value)
        shown = [expected, plain] if name == "timm-vit" else [expected.words(), plain.words()]
        torch.testing.assert_close(drawn[-1].scores, shown[0].scores)
        torch.testing.assert_close(drawn[-2].scores, shown[1].scores)
        assert f"{value:g}, skip 0.5; spectrum of layer" in note.value
    controls["skip"].value = 0.8
    expected = methods.explain("rollout", model, tiny.samples(name)[1], residual=0.8)
    torch.testing.assert_close(drawn[-2].scores, (expected if name == "timm-vit" else expected.words()).scores)
    counted.remove()
    assert len(passes) == 1 + 7  # the widget's one, and those of the comparison
