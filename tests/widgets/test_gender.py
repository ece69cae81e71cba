"""The widget on gender scores: every control redraws, errors are told and keep the picture."""

import pytest
import tiny
import torch

from xai_utils.widgets import gender

PAIR, TEXTS = ("warm", "dull"), ("[MASK] is the very slow film .", "the plot is [MASK] .")


@pytest.fixture
def opened():
    torch.manual_seed(0)
    rays = torch.nn.functional.normalize(torch.randn(tiny.BLOCKS + 1, tiny.WIDTH).double(), dim=-1)
    return gender.gender(tiny.mlm(), TEXTS[0], rays, [PAIR, ("slow", "funny")])


def controls(box):
    typed, (pair, method), (layer, _) = box.children[0], box.children[1].children, box.children[2].children
    image, note = box.children[3].children
    return typed, pair, method, layer, image, note


def test_every_control_redraws(opened):
    typed, pair, method, layer, image, note = controls(opened)
    assert note.value.startswith("P(warm) = ") and layer.value == layer.max == tiny.BLOCKS
    seen = {bytes(image.value)}
    for control, value in (
        (layer, 0),
        (pair, ("slow", "funny")),  # while AttCAT is shown: a direction does not depend on the target
        (method, "DensRay"),
        (method, "AttDR"),
        (typed, TEXTS[1]),
    ):
        control.value = value
        assert bytes(image.value) not in seen, value
        seen.add(bytes(image.value))


@pytest.mark.parametrize(("text", "message"), [("the film", "0 [MASK]"), ("[MASK] [MASK]", "2 [MASK]")])
def test_what_cannot_be_explained_is_told_and_keeps_the_picture(opened, text, message):
    typed, *_, image, note = controls(opened)
    before = bytes(image.value)
    typed.value = text
    assert message in note.value and bytes(image.value) == before
