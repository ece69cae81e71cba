"""Destroying a model part by part, teaching it random labels, and shifting its input for nothing."""

import copy

import numpy as np
import pytest
import tiny
import torch

from xai_utils import models
from xai_utils.evaluation import sanity
from xai_utils.models.encoding import encode

BOTH = pytest.mark.parametrize("name", ["bert", "timm-vit"])


def weights(model):
    return {key: value.clone() for key, value in model.module.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@BOTH
def test_parts_go_from_the_output_to_the_input_and_hold_every_weight_once(name):
    model = tiny.model(name)
    names = sanity.layers(model)
    held = [p for part in names for p in model.module.get_submodule(part).parameters()]
    loose = [p for key, p in model.module.named_parameters() if key in ("cls_token", "pos_embed")]
    assert len({id(p) for p in held}) == len(held) and len(held) + len(loose) == len(list(model.module.parameters()))
    blocks = [part for part in names if part.rsplit(".", 1)[-1].isdigit()]
    assert len(blocks) == tiny.BLOCKS and blocks == sorted(blocks, reverse=True)
    assert names[0] in ("classifier", "head") and names.index(blocks[-1]) < len(names) - 1


@BOTH
def test_shuffled_weights_keep_their_values_and_come_back(name):
    model = tiny.model(name)
    before, part = weights(model), sanity.layers(model)[0]
    with pytest.raises(RuntimeError, match="inside"), sanity.randomised(model, [part], 0):
        now = weights(model)
        differs = [key for key in before if not torch.equal(before[key], now[key])]
        assert differs and all(key.startswith(part) for key in differs)
        for key in before:
            assert torch.equal(before[key].flatten().sort().values, now[key].flatten().sort().values)
        raise RuntimeError("inside")
    assert unchanged(model, before)


def test_the_cascade_ends_with_everything_and_the_other_test_changes_one_part():
    model = tiny.model("bert")
    names = sanity.layers(model)
    cascade, alone = (sanity.steps(model, way) for way in sanity.WAYS)
    assert cascade[-1] == (names[-1], names) and cascade[0] == (names[0], names[:1])
    assert alone == [(name, [name]) for name in names]


def test_a_map_that_knows_no_model_survives_and_one_that_does_not(monkeypatch):
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit")
    for method, survives in (("centre", True), ("gradient_x_input", False)):
        left = sanity.randomisation(model, method, some, [0, 1, 2], "cascading", 0)
        last = np.mean(list(left.values())[-1])
        assert (last > 0.999) == survives and (survives or abs(last) < 0.6), (method, last)
        assert len(left) == len(sanity.layers(model)) and all(len(one) == 3 for one in left.values())


def test_a_shift_that_the_model_takes_away_changes_nothing_it_computes():
    torch.manual_seed(0)
    model = tiny.model("timm-vit")
    pixels = torch.randn(2, 3, tiny.SIDE, tiny.SIDE)
    before, kept = model.logits({"x": pixels}), weights(model)
    with sanity.shifted(model, 0.7):
        torch.testing.assert_close(model.logits({"x": pixels + 0.7}), before, rtol=0, atol=1e-4)
        assert not torch.allclose(model.logits({"x": pixels}), before, atol=1e-2)
    assert unchanged(model, kept)


def test_shift_leaves_the_pixel_gradient_and_moves_integrated_gradients():
    model = models.load("vit-shortcut")
    from xai_utils import samples

    pictures = samples.marked_pictures(2)
    still = sanity.shift(model, "pixel_gradient", pictures, [1, 2], 0.1, 0)
    moved = sanity.shift(model, "integrated_gradients", pictures, [1, 2], 0.1, 0)
    assert max(still) < 1e-3 and min(moved) > 0.02


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: sanity.steps(m, "sideways"), ValueError, "sideways"),
        (lambda m: sanity.randomised(m, ["nothing"], 0).__enter__(), ValueError, "nothing"),
        (lambda m: sanity.shifted(m, 1.0).__enter__(), TypeError, "convolution"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(tiny.model("bert"))


def test_the_classifier_learns_random_labels_and_comes_back():
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit", 6)
    before, inputs = weights(model), encode(model, some).inputs
    with pytest.raises(RuntimeError, match="inside"), sanity.relabelled(model, inputs, 3) as learnt:
        now = weights(model)
        assert learnt == 1.0
        assert {key for key in before if not torch.equal(before[key], now[key])} == {"head.weight", "head.bias"}
        raise RuntimeError("inside")
    assert unchanged(model, before)


def test_what_never_looks_at_the_class_does_not_notice_random_labels():
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit", 6)
    left = {
        name: sanity.relabelling(model, name, some[:3], [0, 1, 2], some, 0)[0]
        for name in ("attention", "gradient_x_input")
    }
    assert left["attention"] == pytest.approx([1.0] * 3) and np.mean(left["gradient_x_input"]) < 0.9


def test_only_a_linear_classifier_is_relabelled():
    model = copy.deepcopy(tiny.model("timm-vit"))  # the shared one stays as it is
    model.module.head = torch.nn.Identity()
    with pytest.raises(TypeError, match="linear classifier"), sanity.relabelled(model, {}, 0):
        pass
