"""Recipe of the bundled detector, trained on :mod:`scenes` with their exact masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torchvision.ops import masks_to_boxes

from xai_utils.metrics.pictures import iou
from xai_utils.models import bundled, detector
from xai_utils.samples import scenes
from xai_utils.train.recipe import Export
from xai_utils.train.vision import MEAN, OBJECTS, STD, ScenesRecipe


class MaskRCNNScenes(ScenesRecipe):
    """A small Mask R-CNN that finds, names and outlines the digits of a scene.

    It starts from the first three stages of the bundled ``resnet-scenes``, whose batch statistics stay as they are.
    """

    steps = 2200
    batch = 10
    clip = 5.0
    decay = 0.01
    held_out = 500
    architecture = "MaskRCNN"
    arguments: dict[str, Any] = {  # noqa: RUF012
        "backbone": {"layers": [2, 2, 2, 2], "channels": [32, 64, 128, 192], "num_classes": 10},
        "classes": len(scenes.CLASSES) + 1,
        "size": scenes.SIZE,
        "mean": list(MEAN),
        "std": list(STD),
        "width": 64,
        "hidden": 128,
        "anchors": [28, 40, 56, 76],
        "ratios": [1.0, 1.6],
        "mask_side": 20,
        "limits": {
            "rpn_pre_nms_top_n_train": 300,
            "rpn_pre_nms_top_n_test": 200,
            "rpn_post_nms_top_n_train": 100,
            "rpn_post_nms_top_n_test": 30,
            "rpn_batch_size_per_image": 64,
            "box_batch_size_per_image": 24,
            "box_detections_per_img": 10,
        },
    }
    about = "torchvision MaskRCNN on three stages of a small ResNet with a feature pyramid, fp16"
    recipe = (
        "2,200 steps of 10 varied scenes of one to three digits with exact boxes and masks; torchvision's own five "
        "losses, summed; starts from stages 1 to 3 of resnet-scenes with their batch statistics frozen; AdamW, 1e-3 "
        "(the stages a fifth of it), 100 warm-up steps then cosine to zero, weight decay 0.01, gradient norm ≤ 5"
    )

    def build(self) -> nn.Module:
        """Return the detector on the trained stages."""
        module = detector.build_small(self.arguments)
        detector.start_from(module, bundled.scenes("resnet-scenes", None).module.state_dict())
        return module

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on everything, the trained stages a fifth as fast."""
        stages = list(module.backbone.body.parameters())
        chosen = {id(p) for p in stages}
        rest = [p for p in module.parameters() if id(p) not in chosen]
        groups = [{"params": rest, "lr": self.peak}, {"params": stages, "lr": self.peak / 5}]
        return [AdamW(groups, weight_decay=self.decay)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Sum of torchvision's losses of regions, boxes, classes and masks."""
        drawn = self.drawn(step, self.batch, OBJECTS, "varied")
        pictures = [torch.from_numpy(scene.image) for scene in drawn]
        return torch.stack(list(module(pictures, [truth(scene) for scene in drawn]).values())).sum()

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure masks on held-out scenes of one and two digits: new handwriting, new photographs.

        ``mask_iou`` compares the union of all detections with score and mask probability of at least 0.5 with the
        union of the digits, 0 where nothing was detected; ``class_iou`` compares each digit with the detections named
        as it.
        """
        whole, by_class, empty = [], [], 0
        for objects in (1, 2):
            for start in range(0, self.held_out, 50):
                batch = [scenes.draw(start + i, objects, "test") for i in range(50)]
                found = module([torch.from_numpy(scene.image) for scene in batch])
                for scene, one in zip(batch, found, strict=True):
                    chosen = one["scores"] >= 0.5
                    masks, labels = one["masks"][chosen, 0] >= 0.5, one["labels"][chosen]
                    digits = torch.from_numpy(scene.masks)
                    empty += not len(masks)
                    whole.append(iou(masks.any(0).flatten(), digits.any(0).flatten()))
                    by_class += [
                        iou(masks[labels == number + 1].any(0).flatten(), digit.flatten())
                        for number, digit in zip(scene.classes, digits, strict=True)
                    ]
        return {
            "mask_iou": round(float(np.mean(whole)), 4),
            "class_iou": round(float(np.mean(by_class)), 4),
            "without_detection": empty,
            "n": len(whole),
        }

    def export(self, module: Any) -> Export:
        """Return the weights and the card's facts."""
        return module.state_dict(), self.facts(), {}


def truth(scene: scenes.Scene) -> dict[str, Tensor]:
    """Return the boxes, labels (from 1 on; 0 is background) and masks of a scene as torchvision takes them."""
    masks = torch.from_numpy(scene.masks)
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1  # the far side of the last pixel
    return {"boxes": boxes, "labels": torch.tensor(scene.classes) + 1, "masks": masks.to(torch.uint8)}
