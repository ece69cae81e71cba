"""The widget of the foreground fraction: masks of either source, thresholds, classes."""

import numpy as np
import tiny
import torch

from xai_utils import methods
from xai_utils.models.detector import Detections
from xai_utils.samples import Picture
from xai_utils.widgets import foreground


def pictures():
    found = []
    for i, one in enumerate(tiny.samples("timm-vit")[:2]):
        mask = np.zeros(one.image.shape[1:], dtype=bool)
        mask[: (i + 1) * 8] = True
        found.append(Picture(one.image, one.name, {"circle": mask}))
    return found


def test_the_widget_tells_faf_for_masks_of_either_source(monkeypatch):
    model, some, looked = tiny.model("timm-vit"), pictures(), []
    soft = torch.zeros(1, *some[0].masks["circle"].shape)
    soft[0, :4], soft[0, 4:8] = 0.9, 0.6

    def detect(_detector, given):
        looked.append(given)
        return [Detections(("circle",), torch.tensor([0.7]), torch.zeros(1, 4), soft)]

    monkeypatch.setattr(foreground.detectors, "detect", detect)
    box = foreground.faf(model, some, ["rollout", "attnlrp"], detector=object())
    controls = {one.description: one for column in box.children[0].children for one in column.children}
    image, note = box.children[1].children

    def expected(picture, mask, name="rollout"):
        found = methods.explain(name, model, picture)
        inside = foreground.metrics.foreground_fraction(found.picture()[None], torch.from_numpy(mask)[None])
        return f"FAF {inside.fraction[0]:.3f}"

    assert expected(some[0], some[0].masks["circle"]) in note.value and controls["score ≥"].disabled
    before = bytes(image.value)
    controls["picture"].value = 1
    assert expected(some[1], some[1].masks["circle"]) in note.value and bytes(image.value) != before
    controls["method"].value = "attnlrp"
    assert expected(some[1], some[1].masks["circle"], "attnlrp") in note.value
    controls["mask"].value = "detector"
    assert expected(some[1], (soft[0] >= 0.5).numpy(), "attnlrp") in note.value and not controls["score ≥"].disabled
    controls["pixel ≥"].value = 0.8
    assert expected(some[1], (soft[0] >= 0.8).numpy(), "attnlrp") in note.value and len(looked) == 1
    controls["score ≥"].value = 0.9
    assert "0 of 1 maps scored, 1 without foreground" in note.value


def test_the_widget_matches_classes():
    model, some = tiny.model("timm-vit"), pictures()[:1]
    box = foreground.faf(model, some, ["rollout"], match="class", classes={"circle": range(5)})
    assert "FAF" in box.children[1].children[1].value
    box = foreground.faf(model, some, ["rollout"], match="class", classes={"circle": []})
    assert "1 without foreground" in box.children[1].children[1].value
