"""Masks of objects from a detector: a small Mask R-CNN on scenes, or torchvision's own on everyday objects.

Found masks take the place of exact ones in a :class:`samples.Picture`, so whatever reads masks from there cannot tell
the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from xai_utils import check, runtime
from xai_utils.models import bundled, table
from xai_utils.models.kinds import Unavailable
from xai_utils.samples.kinds import Picture


@dataclass(frozen=True)
class Detector:
    """A Mask R-CNN in evaluation mode.

    Attributes:
        name: a name in :data:`DETECTORS`.
        module: torchvision's model; it takes pictures of any size with values in [0, 1].
        classes: name of each label; the first is the background.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one picture, best score first.

    Attributes:
        names: class of each instance.
        scores: ``(instance,)`` in [0, 1].
        boxes: ``(instance, 4)``: left, top, right, bottom, pixels.
        soft: ``(instance, height, width)``: probability of each pixel.
    """

    names: tuple[str, ...]
    scores: Tensor
    boxes: Tensor
    soft: Tensor

    def masks(self, score: float = 0.5, mask: float = 0.5) -> dict[str, np.ndarray]:
        """Return the union of each class's instances of at least this score, from this probability of a pixel on.

        Args:
            score: least score of an instance.
            mask: least probability of a pixel.

        Returns:
            Class name to ``(height, width)`` bool; empty where nothing scores so high. A mask can be all false.
        """
        check.share("score", score)
        check.share("mask", mask)
        found: dict[str, np.ndarray] = {}
        for name, sure, soft in zip(self.names, self.scores.tolist(), self.soft.numpy(), strict=True):
            if sure >= score:
                found[name] = found.get(name, False) | (soft >= mask)
        return found


def load(name: str, device: torch.device | str = "cpu") -> Detector:
    """Load a detector by its name in :data:`DETECTORS`.

    Raises:
        ValueError: unknown name, or bundled weights that are not the ones we ship.
        Unavailable: torchvision's weights are not in its cache and cannot be fetched; nothing else is loaded.
    """
    check.one_of("detector", name, tuple(DETECTORS))
    found = DETECTORS[name](name)
    found.module.eval().requires_grad_(False).to(device)
    digest = table.state_sha256(found.module)
    runtime.record.models[name] = {"source": name, "revision": None, "state_sha256": digest}
    return found


@torch.inference_mode()
def detect(detector: Detector, pictures: Sequence[Picture], batch_size: int = 16) -> list[Detections]:
    """Find objects; several pictures of one size go in one pass.

    Raises:
        ValueError: NaN or values outside [0, 1] in a picture.
    """
    check.at_least_one("batch_size", batch_size)
    device = next(detector.module.parameters()).device
    found: list[Detections] = []
    for start in range(0, len(pictures), batch_size):
        some = pictures[start : start + batch_size]
        for picture in some:
            if not (0 <= picture.image.min() and picture.image.max() <= 1):  # false for NaN too
                raise ValueError(f"the picture {picture.name!r} has values outside [0, 1], or NaN.")
        for one in detector.module([torch.from_numpy(picture.image).to(device) for picture in some]):
            names = tuple(detector.classes[label] for label in one["labels"].tolist())
            scores, boxes, soft = (one[key].cpu() for key in ("scores", "boxes", "masks"))
            found.append(Detections(names, scores, boxes, soft[:, 0]))
    return found


def with_masks(
    pictures: Sequence[Picture], found: Sequence[Detections], score: float = 0.5, mask: float = 0.5
) -> list[Picture]:
    """Return the pictures with found masks in the place of whatever masks they had."""
    return [replace(one, masks=seen.masks(score, mask)) for one, seen in zip(pictures, found, strict=True)]


def small(name: str) -> Detector:
    """Load the bundled detector of scenes."""
    card, weights = bundled.bundled_weights(name)
    module = build_small(card["arguments"])
    module.load_state_dict(weights)
    return Detector(name, module, ("background", *card["classes"]))


def everyday(name: str) -> Detector:
    """Load torchvision's Mask R-CNN with its COCO weights through torchvision's own download and cache."""
    from torch.hub import get_dir
    from torchvision.models import get_model, get_model_weights

    weights: Any = get_model_weights(name)["COCO_V1"]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise Unavailable(
            f"the COCO weights of torchvision's {name} are not in {get_dir()}/checkpoints and cannot be fetched "
            f"({error}). Connect once, or set TORCH_HOME to a cache that has them. Or take the bundled "
            "maskrcnn-scenes, which knows digits only."
        ) from error
    categories = tuple(weights.meta["categories"])
    module = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
    module.load_state_dict(state)
    return Detector(name, module, categories)


DETECTORS: Mapping[str, Any] = {"maskrcnn-scenes": small, "maskrcnn_resnet50_fpn_v2": everyday}


def build_small(arguments: dict[str, Any]) -> MaskRCNN:
    """Build torchvision's Mask R-CNN on the first three stages of a small timm ResNet, untrained.

    Args:
        arguments: ``backbone`` (arguments of :func:`bundled.build_vision`), ``classes`` (with the background as class
            0), ``size`` (side of the picture, pixels), ``mean`` and ``std`` (per channel), ``width`` (channels of the
            feature pyramid and the mask head), ``hidden`` (units of the box head), ``anchors`` (sides of the square
            root of their area on the four levels of strides 4 to 32, pixels), ``ratios`` (height over width),
            ``mask_side`` (side of the features of one mask; the mask is twice as fine), and ``limits``, further
            arguments of torchvision's class.
    """
    width, side, classes = arguments["width"], arguments["mask_side"], arguments["classes"]
    stages = bundled.build_vision("ResNet", arguments["backbone"])
    _freeze_statistics(stages)
    names = {f"layer{stage + 1}": str(stage) for stage in range(3)}
    backbone = BackboneWithFPN(stages, names, arguments["backbone"]["channels"][:3], width)
    anchors = AnchorGenerator(
        tuple((side,) for side in arguments["anchors"]), (tuple(arguments["ratios"]),) * len(arguments["anchors"])
    )
    return MaskRCNN(
        backbone,
        min_size=arguments["size"],
        max_size=arguments["size"],
        image_mean=list(arguments["mean"]),
        image_std=list(arguments["std"]),
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2, canonical_scale=arguments["size"] // 2),
        box_head=TwoMLPHead(width * 49, arguments["hidden"]),
        box_predictor=FastRCNNPredictor(arguments["hidden"], classes),
        mask_roi_pool=MultiScaleRoIAlign(["0"], side, 2),
        mask_head=MaskRCNNHeads(width, (width, width), 1),
        mask_predictor=MaskRCNNPredictor(width, width, classes),
        **arguments["limits"],
    )


def start_from(detector: Any, state: Mapping[str, Any]) -> None:
    """Copy the stages that a trained ResNet shares with the detector's backbone."""
    body: Any = detector.backbone.body
    body.load_state_dict({key: state[key] for key in body.state_dict()})


def _freeze_statistics(module: nn.Module) -> None:
    """Put torchvision's batch normalisation with constant statistics in the place of every other."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps))
        else:
            _freeze_statistics(child)
