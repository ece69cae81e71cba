"""Masks from a detector: thresholds, the bundled one on held-out scenes, torchvision's own through its loader."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from xai_utils import runtime, samples
from xai_utils.metrics.pictures import iou
from xai_utils.models import detector
from xai_utils.models.detector import Detections
from xai_utils.models.kinds import Unavailable
from xai_utils.samples import Picture
from xai_utils.train.detector import MaskRCNNScenes


@pytest.fixture(scope="module")
def small():
    return detector.load("maskrcnn-scenes")


def detections():
    soft = torch.zeros(3, 4, 4)
    soft[0, 0], soft[1, 1], soft[2, :, 3] = 0.6, 0.95, 0.8
    return Detections(("cat", "cat", "dog"), torch.tensor([0.9, 0.6, 0.4]), torch.zeros(3, 4), soft)


def test_masks_are_unions_by_class_above_both_thresholds():
    found = detections().masks()
    assert list(found) == ["cat"] and found["cat"].sum(1).tolist() == [4, 4, 0, 0]
    assert detections().masks(score=0.7)["cat"].sum(1).tolist() == [4, 0, 0, 0]
    assert detections().masks(score=0.3)["dog"].sum(1).tolist() == [1, 1, 1, 1]
    assert detections().masks(mask=0.9)["cat"].sum(1).tolist() == [0, 4, 0, 0]
    assert detections().masks(score=0.95) == {}
    with pytest.raises(ValueError, match=r"score is 1\.5"):
        detections().masks(score=1.5)


def test_found_masks_take_the_place_of_exact_ones():
    picture = Picture(np.zeros((3, 4, 4), np.float32), "one", {"bird": np.ones((4, 4), bool)})
    (found,) = detector.with_masks([picture], [detections()])
    assert list(found.masks) == ["cat"] and found.name == "one" and list(picture.masks) == ["bird"]


def test_the_bundled_detector_outlines_and_names_held_out_digits(small):
    overlap, named, pictures = [], 0, samples.scene_pictures(24, first=2000)
    for picture, found in zip(pictures, detector.detect(small, pictures), strict=True):
        ((name, exact),) = picture.masks.items()
        masks = found.masks()
        found = np.any([np.zeros_like(exact), *masks.values()], 0)
        overlap.append(iou(*(torch.from_numpy(mask).flatten() for mask in (found, exact))))
        named += name in masks
    assert np.mean(overlap) > 0.75 and named >= 20


def test_the_card_says_what_was_measured_and_the_file_is_small():
    folder = runtime.DATA / "models" / "maskrcnn-scenes"
    card = json.loads((folder / "card.json").read_text())
    assert card["measured"]["mask_iou"] >= 0.75 and card["measured"]["n"] >= 1000 and card["seed"] == 0
    assert (folder / "model.safetensors").stat().st_size <= 6e6
    assert card["arguments"] == MaskRCNNScenes.arguments


def test_a_batch_finds_what_single_pictures_find(small):
    pictures = samples.scene_pictures(3, objects=2)
    for one, picture in zip(detector.detect(small, pictures, batch_size=2), pictures, strict=True):
        (alone,) = detector.detect(small, [picture])
        assert one.names == alone.names
        torch.testing.assert_close(one.scores, alone.scores, atol=1e-4, rtol=1e-4)


def test_pictures_out_of_range_are_refused(small):
    for wrong in (2.0, np.nan):
        with pytest.raises(ValueError, match=r"outside \[0, 1\], or NaN"):
            detector.detect(small, [Picture(np.full((3, 112, 112), wrong, np.float32), "wrong", {})])
    with pytest.raises(ValueError, match="expected one of: maskrcnn-scenes"):
        detector.load("yolo")


def coco_weights(state):
    return {"COCO_V1": SimpleNamespace(meta={"categories": ["__background__", "person", "cat"]}, get_state_dict=state)}


def test_torchvisions_detector_comes_through_its_own_loader(monkeypatch):
    import torchvision.models

    asked, real = [], get_model
    tiny = detector.build_small({**MaskRCNNScenes.arguments, "classes": 3})

    def state(**options):
        asked.append(options)
        return tiny.state_dict()

    def build(name, **options):
        asked.append((name, options))
        return detector.build_small({**MaskRCNNScenes.arguments, "classes": options["num_classes"]})

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _name: coco_weights(state))
    monkeypatch.setattr(torchvision.models, "get_model", build)
    found = detector.load("maskrcnn_resnet50_fpn_v2")
    assert found.classes == ("__background__", "person", "cat") and not found.module.training
    assert asked[0] == {"progress": False, "check_hash": True, "weights_only": True}
    options = {"weights": None, "weights_backbone": None, "num_classes": 3}
    assert asked[1] == ("maskrcnn_resnet50_fpn_v2", options)
    assert real is not build and isinstance(detector.detect(found, samples.scene_pictures(1))[0].names, tuple)


def test_missing_weights_are_named_with_the_bundled_detector(monkeypatch):
    import torchvision.models

    def state(**_options):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _name: coco_weights(state))
    with pytest.raises(Unavailable, match=r"TORCH_HOME.*maskrcnn-scenes") as caught:
        detector.load("maskrcnn_resnet50_fpn_v2")
    assert "no route to host" in str(caught.value)
