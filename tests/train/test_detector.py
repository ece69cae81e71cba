"""The recipe of the detector: exact boxes and masks, trained stages, and what is shipped."""

import json

import pytest
import torch

from xai_utils import runtime
from xai_utils.models import bundled
from xai_utils.models import detector as models_detector
from xai_utils.samples import scenes
from xai_utils.train import detector, loop


class Tiny(detector.MaskRCNNScenes):
    """One step on two scenes."""

    steps, batch, held_out = 1, 2, 50


def test_the_recipe_learns_boxes_that_hold_the_masks():
    scene = scenes.draw(3, 2)
    truth = detector.truth(scene)
    assert truth["labels"].tolist() == [c + 1 for c in scene.classes] and truth["masks"].shape == scene.masks.shape
    for (left, top, right, bottom), mask in zip(truth["boxes"].int().tolist(), scene.masks, strict=True):
        assert mask[top:bottom, left:right].sum() == mask.sum()
        assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()


def test_one_step_of_the_recipe_changes_the_stages_and_the_heads():
    recipe = Tiny()
    module = recipe.build().train()
    start = bundled.scenes("resnet-scenes", None).module.state_dict()
    assert torch.equal(module.backbone.body.state_dict()["layer2.0.conv1.weight"], start["layer2.0.conv1.weight"])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (optimiser,) = recipe.optimisers(module)
    torch.manual_seed(0)
    recipe.loss(module, 0).backward()
    optimiser.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {"backbone.body.layer1.0.conv1.weight", "roi_heads.mask_predictor.mask_fcn_logits.weight"} <= changed
    assert not [name for name in changed if "running" in name or ".bn" in name]


def test_what_is_shipped_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "evaluate", lambda *_: {"n": 0})
    card = loop.train("maskrcnn-scenes", Tiny(), tmp_path / "models/maskrcnn-scenes", tmp_path / "one.pt", quiet=True)
    assert card["architecture"] == "MaskRCNN" and card["classes"] == list(scenes.CLASSES)
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    found = models_detector.load("maskrcnn-scenes")
    assert found.classes == ("background", *scenes.CLASSES) and not found.module.training


class Perfect(torch.nn.Module):
    """Find every digit where it is, or nothing at all."""

    def __init__(self, blind):
        super().__init__()
        self.blind, self.asked = blind, 0

    def forward(self, pictures):
        objects = 1 if self.asked < 50 else 2
        drawn = [scenes.draw(self.asked % 50 + i, objects, "test") for i in range(len(pictures))]
        assert all(torch.equal(torch.from_numpy(s.image), p) for s, p in zip(drawn, pictures, strict=True))
        self.asked += len(pictures)
        return [
            {
                "scores": torch.full((objects,), 0.1 if self.blind else 0.9),
                "labels": torch.tensor(scene.classes) + 1,
                "masks": torch.from_numpy(scene.masks)[:, None].float(),
            }
            for scene in drawn
        ]


@pytest.mark.parametrize(("blind", "measured"), [(False, 1.0), (True, 0.0)])
def test_exact_masks_measure_one_and_none_at_all_zero(blind, measured):
    found = Tiny().evaluate(Perfect(blind))
    assert found == {"mask_iou": measured, "class_iou": measured, "without_detection": 100 * blind, "n": 100}


def test_the_bundled_detector_is_the_recipes():
    card = json.loads((runtime.DATA / "models/maskrcnn-scenes/card.json").read_text())
    assert (card["recipe"], card["about"]) == (detector.MaskRCNNScenes.recipe, detector.MaskRCNNScenes.about)
