"""Recipe of the bundled detector, trained on :mod:`scenes` with their exact masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torchvision.ops import masks_to_boxes

from xai_utils.models import bundled, detector
from xai_utils.samples import scenes

OBJECTS = (1, 1, 2, 2, 3)  # objects of the scenes in a batch, repeated
HELD_OUT = 500  # scenes of each kind that masks are measured on


class MaskRCNNScenes:
    """A small Mask R-CNN that finds, names and outlines the digits of a scene.

    It starts from the first three stages of the bundled ``resnet-scenes``, whose batch statistics stay as they are.
    """

    seed = 0
    steps = 2200
    batch = 10
    peak = 1e-3
    clip = 5.0
    warmup = 100
    select_from = 0
    select_every = 1
    start = "resnet-scenes"
    arguments: dict[str, Any] = {  # noqa: RUF012
        "backbone": {"layers": [2, 2, 2, 2], "channels": [32, 64, 128, 192], "num_classes": 10},
        "classes": len(scenes.CLASSES) + 1,
        "size": scenes.SIZE,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
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
    recipe = (
        "2,200 steps of 10 varied scenes of one to three digits with exact boxes and masks; torchvision's own five "
        "losses, summed; starts from stages 1 to 3 of resnet-scenes with their batch statistics frozen; AdamW, 1e-3 "
        "(the stages a fifth of it), 100 warm-up steps then cosine to zero, weight decay 0.01, gradient norm ≤ 5"
    )

    def build(self) -> nn.Module:
        """Return the detector on the trained stages."""
        module = detector.build_small(self.arguments)
        detector.start_from(module, bundled.scenes(self.start, None).module.state_dict())
        return module

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on everything, the trained stages a fifth as fast."""
        stages = list(module.backbone.body.parameters())
        chosen = {id(p) for p in stages}
        rest = [p for p in module.parameters() if id(p) not in chosen]
        groups = [{"params": rest, "lr": self.peak}, {"params": stages, "lr": self.peak / 5}]
        return [AdamW(groups, weight_decay=0.01)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Sum of torchvision's losses of regions, boxes, classes and masks."""
        first = (self.seed * 100_000 + step) * 1_000
        drawn = [scenes.draw(first + i, OBJECTS[i % len(OBJECTS)], "varied") for i in range(self.batch)]
        pictures = [torch.from_numpy(scene.image) for scene in drawn]
        return torch.stack(list(module(pictures, [truth(scene) for scene in drawn]).values())).sum()

    def finish(self, module: Any) -> None:
        """Leave the weights as they are."""

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure masks on held-out scenes of one and two digits: new handwriting, new photographs.

        ``mask_iou`` compares the union of all detections with score and mask probability of at least 0.5 with the
        union of the digits, 0 where nothing was detected; ``class_iou`` compares each digit with the detections named
        as it.
        """
        whole, by_class, empty = [], [], 0
        for objects in (1, 2):
            for start in range(0, HELD_OUT, 50):
                batch = [scenes.draw(start + i, objects, "test") for i in range(50)]
                found = module([torch.from_numpy(scene.image) for scene in batch])
                for scene, one in zip(batch, found, strict=True):
                    chosen = one["scores"] >= 0.5
                    masks, labels = (one["masks"][chosen, 0] >= 0.5).numpy(), one["labels"][chosen].numpy()
                    empty += not len(masks)
                    whole.append(iou(masks.any(0), scene.masks.any(0)))
                    by_class += [
                        iou(masks[labels == c + 1].any(0), m) for c, m in zip(scene.classes, scene.masks, strict=True)
                    ]
        return {
            "mask_iou": round(float(np.mean(whole)), 4),
            "class_iou": round(float(np.mean(by_class)), 4),
            "without_detection": empty,
            "n": len(whole),
        }

    def export(self, module: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return the weights and the card's facts."""
        facts = {
            "about": "torchvision MaskRCNN on three stages of a small ResNet with a feature pyramid, fp16",
            "architecture": "MaskRCNN",
            "arguments": self.arguments,
            "size": scenes.SIZE,
            "classes": list(scenes.CLASSES),
            "data": "scenes of samples.scenes (training handwriting and photographs); measured on held-out ones",
            "recipe": self.recipe,
        }
        return module.state_dict(), facts, {}


def truth(scene: scenes.Scene) -> dict[str, Tensor]:
    """Return the boxes, labels (from 1 on; 0 is background) and masks of a scene as torchvision takes them."""
    masks = torch.from_numpy(scene.masks)
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1  # the far side of the last pixel
    return {"boxes": boxes, "labels": torch.tensor(scene.classes) + 1, "masks": masks.to(torch.uint8)}


def iou(one: Any, two: Any) -> float:
    """Return intersection over union of two bool masks that are not both empty."""
    return float((one & two).sum() / (one | two).sum())
