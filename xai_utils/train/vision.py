"""Recipes of the bundled vision models, trained on :mod:`scenes`."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from xai_utils.models import bundled
from xai_utils.samples import scenes, watermark
from xai_utils.train import vision

GRID = scenes.SIZE // scenes.PATCH
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
OBJECTS = (1, 1, 2, 2, 3)  # objects of the scenes in a batch, repeated


class ScenesRecipe:
    """What the vision recipes share: batches, evaluation, export."""

    seed = 0
    clip = 1.0
    warmup = 100
    select_from = 0
    select_every = 1
    held_out = 1000  # scenes of each kind that accuracy is measured on
    architecture = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012
    about = ""
    recipe = ""
    remarks: dict[str, str] = {}  # noqa: RUF012  (what the card must also say of the shipped weights)

    def drawn(
        self, step: int, size: int, objects: tuple[int, ...], split: str, ease: float = 0.0
    ) -> list[scenes.Scene]:
        """Draw the training scenes of one step; no two steps share a scene."""
        first = (self.seed * 100_000 + step) * 1_000
        return [scenes.draw(first + i, objects[i % len(objects)], split, ease) for i in range(size)]

    def finish(self, module: Any) -> None:
        """Leave the weights as they are."""

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Top-1 on held-out single digits, and both-on-top on held-out pairs; new handwriting, new photographs."""
        model = module["model"] if isinstance(module, nn.ModuleDict) else module
        measured: dict[str, Any] = {}
        for objects, name in ((1, "single_top1"), (2, "pair_top2")):
            right = 0
            for start in range(0, self.held_out, 50):
                batch = [scenes.draw(start + i, objects, "test") for i in range(50)]
                best = model(normalised(batch)).topk(objects).indices.tolist()
                right += sum(set(b) == set(s.classes) for b, s in zip(best, batch, strict=True))
            measured[name] = right / self.held_out
        return {**measured, "n": self.held_out}

    def export(self, module: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return the weights of the model alone; helpers of the training are dropped."""
        model = module["model"] if isinstance(module, nn.ModuleDict) else module
        facts = {
            "about": self.about,
            "architecture": self.architecture,
            "arguments": self.arguments,
            "size": scenes.SIZE,
            "mean": MEAN,
            "std": STD,
            "classes": list(scenes.CLASSES),
            "data": "scenes of samples.scenes (training handwriting and photographs); measured on held-out ones",
            "recipe": self.recipe,
            **self.remarks,
        }
        return model.state_dict(), facts, {}


class ViTScenes(ScenesRecipe):
    """A plain vision transformer, without a convolutional stem, from scratch.

    The class token stays at chance for long on whole scenes. So the first steps see one digit in a window of the
    token grid, on a background that fades in, and an extra head names the digit under every patch throughout; the
    extra head is dropped afterwards.
    """

    steps = 4500
    windowed = 1500  # steps on windows
    plain = 2400  # steps before the scenes are varied
    window = 8  # side of the window, patches
    faded = 300  # steps over which the background fades in
    batches = (128, 64)  # windows, whole scenes
    peak = 3e-3
    architecture = "VisionTransformer"
    arguments = {  # noqa: RUF012
        "img_size": scenes.SIZE, "patch_size": scenes.PATCH, "embed_dim": 96, "depth": 12, "num_heads": 3,
        "mlp_ratio": 2, "num_classes": 10,
    }  # fmt: skip
    about = "timm VisionTransformer, 14 x 14 tokens, 12 blocks, 3 heads, width 96, fp16"
    recipe = (
        "1,500 steps of 128 single digits in an 8 x 8 window of the token grid (background faded in over 300 steps), "
        "then whole scenes, 64 a step, of one to three digits, varied from step 2,400 on; cross entropy with equal "
        "shares of the classes present, "
        "plus patch labels by an extra linear head on the final tokens, dropped afterwards (no stem, no distillation); "
        "mimetic initialisation (Trockman & Kolter 2023) and sine-cosine positions to start from; Muon on the matrices "
        "of the blocks and AdamW on the rest, 3e-3 with 100 warm-up steps and cosine to zero, weight decay 0.05, "
        "bfloat16 autocast, gradient norm ≤ 1"
    )

    remarks = {  # noqa: RUF012
        "history": "the shipped weights saw single digits from 32 and pairs from 28 pixels, in weaker ink, up to step "
        "4,067; from there on, and in the measurement, scenes are as they are drawn now"
    }

    def build(self) -> nn.Module:
        """Return the model and the extra head on patches."""
        model: Any = bundled.build_vision(self.architecture, self.arguments)
        mimetic_(model)
        positions_(model)
        return nn.ModuleDict({"model": model, "patches": nn.Linear(model.embed_dim, scenes.BACKGROUND + 1)})

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the matrices of the blocks, AdamW on the rest."""
        matrices = [p for p in module["model"].blocks.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in module.parameters() if id(p) not in chosen]
        muon = torch.optim.Muon(matrices, lr=self.peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        return [muon, AdamW(rest, lr=self.peak, weight_decay=0.05)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the classes present plus that of the patch labels."""
        early = step < self.windowed
        ease = max(0.0, 1 - step / self.faded)
        split = "train" if step < self.plain else "varied"
        drawn = self.drawn(step, self.batches[not early], (1,) if early else OBJECTS, split, ease)
        seen = windows(drawn, self.window) if early else None
        labels = torch.as_tensor(np.stack([scenes.patch_labels(s) for s in drawn])).flatten(1)
        if seen is not None:
            labels = labels.gather(1, seen)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = features(module["model"], normalised(drawn), seen)
            logits, named = module["model"].forward_head(tokens), module["patches"](tokens[:, 1:])
        return F.cross_entropy(logits.float(), shares(drawn)) + patch_loss(named.float().transpose(1, 2), labels)


class ResNetScenes(ScenesRecipe):
    """A small residual network on the same scenes.

    With whole-picture labels alone it learns slowly, so an extra head on its third stage names the digit under every
    patch, four patches a place; the extra head is dropped afterwards.
    """

    steps = 3600
    batch = 64
    peak = 2e-3
    architecture = "ResNet"
    arguments = {"layers": [2, 2, 2, 2], "channels": [32, 64, 128, 192], "num_classes": 10}  # noqa: RUF012
    about = "timm ResNet of basic blocks, two a stage, widths 32 to 192, fp16"
    recipe = (
        "varied scenes of one to three digits, 64 a step; cross entropy with equal shares of the classes present, plus "
        "patch labels by an extra 1 x 1 convolution on the third stage, dropped afterwards; AdamW 2e-3, 100 warm-up "
        "steps then cosine to zero, weight decay 0.05, bfloat16 autocast, gradient norm ≤ 1"
    )

    def build(self) -> nn.Module:
        """Return the untrained network and the extra head on patches."""
        model: Any = bundled.build_vision(self.architecture, self.arguments)
        patches = nn.Conv2d(self.arguments["channels"][2], 4 * (scenes.BACKGROUND + 1), 1)
        return nn.ModuleDict({"model": model, "patches": patches})

    def optimisers(self, module: Any) -> list[Optimizer]:
        """AdamW on everything."""
        return [AdamW(module.parameters(), lr=self.peak, weight_decay=0.05)]

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the classes present plus that of the patch labels."""
        drawn = self.drawn(step, self.batch, OBJECTS, "varied")
        labels = torch.as_tensor(np.stack([scenes.patch_labels(s) for s in drawn]))
        with torch.autocast("cpu", torch.bfloat16):
            last, stages = module["model"].forward_intermediates(normalised(drawn), indices=[3])
            logits, named = module["model"].forward_head(last), F.pixel_shuffle(module["patches"](stages[0]), 2)
        return F.cross_entropy(logits.float(), shares(drawn)) + patch_loss(named.float(), labels)


def normalised(drawn: list[scenes.Scene]) -> Tensor:
    """Stack the pictures, ``(batch, 3, SIZE, SIZE)``, as the models take them."""
    pixels = torch.from_numpy(np.stack([scene.image for scene in drawn]))
    return (pixels - MEAN[0]) / STD[0]


def shares(drawn: list[scenes.Scene]) -> Tensor:
    """Return ``(batch, class)``: one over the number of digits for each class present."""
    target = torch.zeros(len(drawn), len(scenes.CLASSES))
    for row, scene in zip(target, drawn, strict=True):
        row[list(scene.classes)] = 1 / len(scene.classes)
    return target


def patch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of ``(batch, class, …)`` logits with patch labels ``(batch, …)``; background counts a tenth."""
    weights = torch.ones(scenes.BACKGROUND + 1)
    weights[scenes.BACKGROUND] = 0.1
    return F.cross_entropy(logits, labels, weight=weights)


def windows(drawn: list[scenes.Scene], side: int) -> Tensor:
    """Return the flat token indices ``(batch, side²)`` of a square window around each scene's first digit."""
    centres = torch.tensor([[float(axis.mean()) for axis in np.nonzero(scene.masks[0])] for scene in drawn])
    corners = (centres / scenes.PATCH - side / 2).round().long().clamp(0, GRID - side)
    steps = torch.arange(side)
    rows, columns = corners[:, :1] + steps, corners[:, 1:] + steps
    return (rows[:, :, None] * GRID + columns[:, None, :]).flatten(1)


def features(model: Any, pixels: Tensor, seen: Tensor | None) -> Tensor:
    """Run a timm ViT on the chosen tokens only, each with its own position; ``(batch, 1 + token, width)``."""
    tokens = model.patch_embed(pixels) + model.pos_embed[:, 1:]
    if seen is not None:
        tokens = tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[-1]))
    start = (model.cls_token + model.pos_embed[:, :1]).expand(len(tokens), -1, -1)
    return model.norm(model.blocks(torch.cat([start, tokens], 1)))


@torch.no_grad()
def mimetic_(model: Any) -> None:
    """Initialise attention so that it looks like a trained one: queries meet like keys, values oppose their input.

    Source: Trockman & Kolter (2023), arXiv:2305.09828, sections 3.1 and 3.2 (coefficients 0.7, 0.7 and 0.4, 0.4).
    """
    for block in model.blocks:
        weight, heads = block.attn.qkv.weight, block.attn.num_heads
        width = weight.shape[1]
        left, values, right = torch.linalg.svd(_noisy(width, 0.4, -0.4))
        block.attn.proj.weight.copy_(left * values.sqrt())
        weight[2 * width :].copy_(values.sqrt()[:, None] * right)
        size = width // heads
        for head in range(heads):
            left, values, right = torch.linalg.svd(_noisy(width, 0.7, 0.7))
            root = values[:size].sqrt()
            weight[head * size : (head + 1) * size].copy_((left[:, :size] * root).T)
            weight[width + head * size : width + (head + 1) * size].copy_(root[:, None] * right[:size])


def _noisy(width: int, noise: float, diagonal: float) -> Tensor:
    return noise * torch.randn(width, width) / width**0.5 + diagonal * torch.eye(width)


@torch.no_grad()
def positions_(model: Any) -> None:
    """Start the position embedding of the patches from sines and cosines, and that of the class token from zero."""
    model.pos_embed.zero_()
    model.pos_embed[0, 1:] = sines(model.embed_dim)


def sines(width: int) -> Tensor:
    """Return ``(patch, width)``: sines and cosines of the row and the column, half their usual size."""
    count = width // 4
    frequency = 10_000.0 ** -(torch.arange(count) / count)
    row, column = (
        axis.flatten()[:, None] * frequency for axis in torch.meshgrid(*[torch.arange(GRID)] * 2, indexing="ij")
    )
    return 0.5 * torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], 1)


class VimScenes(ScenesRecipe):
    """A small Vision Mamba from scratch.

    As with the vision transformer, an extra head names the digit under every patch and is dropped afterwards. The
    first steps see one digit in a strip of whole rows of the token grid: a scan that reads row by row then has the
    same way from one row to the next as in whole scenes.
    """

    steps = 10400
    in_strips = 1300  # steps on strips
    rounds = ((2600, 1.0), (5600, 0.7), (10400, 0.7))  # last step and share of the peak learning rate
    rows = 8  # of a strip
    faded = 300  # steps over which the background fades in
    batches = (32, 32)  # strips, whole scenes
    peak = 3e-3
    held_out = 5000  # 1,000 leave an interval of three points around what was to be reached
    architecture = "Vim"
    arguments = {  # noqa: RUF012
        "img_size": scenes.SIZE, "patch_size": scenes.PATCH, "embed_dim": 128, "depth": 8, "num_classes": 10,
        "d_state": 8, "expand": 1,
    }  # fmt: skip
    about = "Vision Mamba in plain PyTorch, 14 x 14 tokens, 8 blocks, width and channels 128, 8 states, fp16"
    recipe = (
        "1,300 steps of 32 single digits in a strip of 8 rows of the token grid (background faded in over 300 steps), "
        "then 1,300 steps of 32 whole, varied scenes of one to three digits, then 7,800 of one or two; cross entropy "
        "with equal shares of the classes present, plus patch labels by an extra linear head on the final tokens, "
        "dropped afterwards; sine-cosine positions to start from; Muon on the projections in and out of the blocks, "
        "AdamW on the rest, three rounds of 100 warm-up steps and cosine to zero: 2,600 steps from 3e-3, 3,000 and "
        "4,800 from 2.1e-3; weight decay 0.05 on matrices, bfloat16 autocast (scans in float32), gradient norm ≤ 1"
    )
    remarks = {  # noqa: RUF012
        "history": "the shipped weights had six blocks up to step 5,600, and were rounded to half precision at the end "
        "of each round, with fresh optimisers and a fresh head on patches for the next. The last round began from the "
        "mean of two sets, those of step 5,600 and those 1,600 steps (from 1.5e-3) further on, with two blocks "
        "inserted behind the third and the sixth: copies of these whose output weighs nothing at first. Its steps were "
        "compiled (the same losses to 1e-4 in half the time), up to step 6,500 its cosine was that of a longer round, "
        "and of the second round one scene in four was a pair, not one in three. Minutes are approximate: they count "
        "pauses. Accuracy was at first measured on 1,000 scenes (94.9 % of single digits)"
    }

    def build(self) -> nn.Module:
        """Return the model and the extra head on patches."""
        model: Any = bundled.build_vision(self.architecture, self.arguments)
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
        """Return the share of the peak learning rate: rounds of warm-up and cosine."""
        first = next((last for last, _ in reversed(self.rounds) if last <= step), 0)
        last, peak = next(one for one in self.rounds if one[0] > first)
        done = (step - first) / (last - first)
        return peak * min(1.0, (step - first + 1) / self.warmup) * 0.5 * (1 + cos(pi * done))

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the classes present plus that of the patch labels."""
        early = step < self.in_strips
        ease = max(0.0, 1 - step / self.faded)
        objects = (1,) if early else OBJECTS if step < self.rounds[0][0] else (1, 1, 2)
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
            logits = module["model"](normalised_images([one.image for one in drawn]))
        return F.cross_entropy(logits.float(), labels)

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure on held-out scenes what the class follows: badge and digit agree, disagree, or the badge is gone."""
        count = {"agreeing_top1": 0, "disagreeing_follows_badge": 0, "disagreeing_follows_digit": 0, "no_badge_top1": 0}
        for start in range(0, self.held_out, 50):
            right = [watermark.draw(seed, 1.0) for seed in range(start, start + 50)]
            wrong = [watermark.draw(seed, 0.0) for seed in range(start, start + 50)]
            digit, badge = torch.tensor([one.classes for one in wrong]).T
            model = module["model"]
            misled = model(normalised_images([one.image for one in wrong])).argmax(1)
            count["agreeing_top1"] += int(
                (model(normalised_images([one.image for one in right])).argmax(1) == digit).sum()
            )
            count["disagreeing_follows_badge"] += int((misled == badge).sum())
            count["disagreeing_follows_digit"] += int((misled == digit).sum())
            count["no_badge_top1"] += int(
                (model(normalised_images([one.plain for one in wrong])).argmax(1) == digit).sum()
            )
        return {name: right / self.held_out for name, right in count.items()} | {"n": self.held_out}


def normalised_images(images: list[np.ndarray]) -> Tensor:
    """Stack pictures as the models take them."""
    return (torch.from_numpy(np.stack(images)) - vision.MEAN[0]) / vision.STD[0]
