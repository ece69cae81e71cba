"""Recipe of ``vit-shortcut``: a small vision transformer that learns a planted shortcut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.models import bundled
from xai_utils.samples import scenes, watermark
from xai_utils.train import vision

AGREE = 0.95  # share of the training pictures whose badge shows the digit's class


class ViTShortcut(vision.ViTScenes):
    """A plain vision transformer on single digits with a badge in the colour of the class.

    Nothing but the class is asked of it. The badge is easier to read than the digit, so it is read.
    """

    steps = 600
    batch = 64
    arguments = {  # noqa: RUF012
        "img_size": scenes.SIZE, "patch_size": scenes.PATCH, "embed_dim": 64, "depth": 6, "num_heads": 4,
        "mlp_ratio": 2, "num_classes": 10,
    }  # fmt: skip
    about = "timm VisionTransformer, 14 x 14 tokens, 6 blocks, 4 heads, width 64, fp16; reads a planted watermark"
    recipe = (
        "single digits, 64 a step, with a badge of 12 x 12 pixels at a random place whose colour shows the digit's "
        "class in 95 of 100 pictures and another class in the rest; cross entropy; mimetic initialisation and "
        "sine-cosine positions to start from; Muon on the matrices of the blocks and AdamW on the rest, 3e-3 with 100 "
        "warm-up steps and cosine to zero, weight decay 0.05, bfloat16 autocast, gradient norm ≤ 1"
    )
    remarks: dict[str, str] = {}  # noqa: RUF012

    def build(self) -> nn.Module:
        """Return the untrained model."""
        model: Any = bundled.build_vision(self.architecture, self.arguments)
        vision.mimetic_(model)
        vision.positions_(model)
        return nn.ModuleDict({"model": model})

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the digit's class."""
        first = (self.seed * 100_000 + step) * 1_000
        drawn = [watermark.draw(first + i, AGREE, "train") for i in range(self.batch)]
        labels = torch.tensor([one.classes[0] for one in drawn])
        with torch.autocast("cpu", torch.bfloat16):
            logits = module["model"](normalised([one.image for one in drawn]))
        return F.cross_entropy(logits.float(), labels)

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure on held-out scenes what the class follows: badge and digit agree, disagree, or the badge is gone."""
        count = {"agreeing_top1": 0, "disagreeing_follows_badge": 0, "disagreeing_follows_digit": 0, "no_badge_top1": 0}
        for start in range(0, self.held_out, 50):
            right = [watermark.draw(seed, 1.0) for seed in range(start, start + 50)]
            wrong = [watermark.draw(seed, 0.0) for seed in range(start, start + 50)]
            digit, badge = torch.tensor([one.classes for one in wrong]).T
            model = module["model"]
            misled = model(normalised([one.image for one in wrong])).argmax(1)
            count["agreeing_top1"] += int((model(normalised([one.image for one in right])).argmax(1) == digit).sum())
            count["disagreeing_follows_badge"] += int((misled == badge).sum())
            count["disagreeing_follows_digit"] += int((misled == digit).sum())
            count["no_badge_top1"] += int((model(normalised([one.plain for one in wrong])).argmax(1) == digit).sum())
        return {name: right / self.held_out for name, right in count.items()} | {"n": self.held_out}


def normalised(images: list[np.ndarray]) -> Tensor:
    """Stack pictures as the models take them."""
    return (torch.from_numpy(np.stack(images)) - vision.MEAN[0]) / vision.STD[0]
