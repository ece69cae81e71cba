"""Recipe of the bundled Vision Mamba, trained on :mod:`scenes`."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from xai_utils import loaders, scenes
from xai_utils.recipes_vision import GRID, OBJECTS, ScenesRecipe, normalised, patch_loss, shares, sines


class VimScenes(ScenesRecipe):
    """A small Vision Mamba from scratch.

    As with the vision transformer, an extra head names the digit under every patch and is dropped afterwards. The
    first steps see one digit in a strip of whole rows of the token grid: a scan that reads row by row then has the
    same way from one row to the next as in whole scenes.
    """

    steps = 5600
    in_strips = 1300  # steps on strips
    again = 2600  # step at which the learning rate starts anew
    rows = 8  # of a strip
    faded = 300  # steps over which the background fades in
    batches = (32, 32)  # strips, whole scenes
    peak = 3e-3
    architecture = "Vim"
    arguments = {  # noqa: RUF012
        "img_size": scenes.SIZE, "patch_size": scenes.PATCH, "embed_dim": 128, "depth": 6, "num_classes": 10,
        "d_state": 8, "expand": 1,
    }  # fmt: skip
    about = "Vision Mamba in plain PyTorch, 14 x 14 tokens, 6 blocks, width and channels 128, 8 states, fp16"
    recipe = (
        "1,300 steps of 32 single digits in a strip of 8 rows of the token grid (background faded in over 300 steps), "
        "then 1,300 steps of 32 whole, varied scenes of one to three digits, then 3,000 of one or two; cross entropy "
        "with equal shares of the classes present, plus patch labels by an extra linear head on the final tokens, "
        "dropped afterwards; sine-cosine positions to start from; Muon on the projections in and out of the blocks, "
        "AdamW on the rest, 3e-3 with 100 warm-up steps and cosine to zero, and once more from 2.1e-3 for the last "
        "3,000 steps, weight decay 0.05 on matrices, bfloat16 autocast (scans in float32), gradient norm ≤ 1"
    )
    remarks = {  # noqa: RUF012
        "history": "the shipped weights were rounded to half precision at step 2,600, and went on from there with "
        "fresh optimisers and a fresh head on patches"
    }

    def build(self) -> nn.Module:
        """Return the model and the extra head on patches."""
        model: Any = loaders.build_vision(self.architecture, self.arguments)
        positions, middle = sines(model.embed_dim), model.class_position
        with torch.no_grad():
            model.pos_embed[0] = torch.cat([positions[:middle], torch.zeros(1, model.embed_dim), positions[middle:]])
        return nn.ModuleDict({"model": model, "patches": nn.Linear(model.embed_dim, scenes.BACKGROUND + 1)})

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the projections in and out of the blocks, AdamW on the rest; decays, skips and biases stay free."""
        matrices = [p for n, p in module.named_parameters() if n.endswith(("in_proj.weight", "out_proj.weight"))]
        chosen = {id(p) for p in matrices}
        rest = [(n, p) for n, p in module.named_parameters() if id(p) not in chosen]
        free = [p for n, p in rest if p.ndim < 2 or n.endswith("_log")]
        bound = [p for n, p in rest if not (p.ndim < 2 or n.endswith("_log"))]
        groups: list[dict[str, Any]] = [{"params": bound}, {"params": free, "weight_decay": 0.0}]
        muon = torch.optim.Muon(matrices, lr=self.peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        return [muon, AdamW(groups, lr=self.peak, weight_decay=0.05)]

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate: two rounds of warm-up and cosine, the second one lower."""
        first = step < self.again
        taken, total = (step, self.again) if first else (step - self.again, self.steps - self.again)
        return (1.0 if first else 0.7) * min(1.0, (taken + 1) / self.warmup) * 0.5 * (1 + cos(pi * taken / total))

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the classes present plus that of the patch labels."""
        early = step < self.in_strips
        ease = max(0.0, 1 - step / self.faded)
        objects = (1,) if early else OBJECTS if step < self.again else (1, 1, 1, 2)
        drawn = self.drawn(step, self.batches[not early], objects, "varied", ease)
        seen = strips(drawn, self.rows) if early else None
        labels = torch.as_tensor(np.stack([scenes.patch_labels(s) for s in drawn])).flatten(1)
        if seen is not None:
            labels = labels.gather(1, seen)
        model = module["model"]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = model.forward_tokens(model.tokens(normalised(drawn), seen))
            middle = tokens.shape[1] // 2
            patches = torch.cat([tokens[:, :middle], tokens[:, middle + 1 :]], 1)
            logits, named = model.forward_head(tokens), module["patches"](patches)
        return F.cross_entropy(logits.float(), shares(drawn)) + patch_loss(named.float().transpose(1, 2), labels)


def strips(drawn: list[scenes.Scene], rows: int) -> Tensor:
    """Return the flat token indices ``(batch, rows * GRID)`` of whole rows around each scene's first digit."""
    centres = torch.tensor([float(np.nonzero(scene.masks[0])[0].mean()) for scene in drawn])
    first = (centres / scenes.PATCH - rows / 2).round().long().clamp(0, GRID - rows)
    return first[:, None] * GRID + torch.arange(rows * GRID)
