"""Recipes of the bundled vision models, trained on :mod:`scenes`.

A vision transformer, a control of it without patch labels, a residual network, a Vision Mamba, and a vision transformer
that reads a planted badge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from xai_utils.models import bundled
from xai_utils.samples import scenes, watermark
from xai_utils.samples.scenes import Scene
from xai_utils.train.recipe import Export, Recipe, cosine, muon_and_adamw

GRID = scenes.SIZE // scenes.PATCH
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
OBJECTS = (1, 1, 2, 2, 3)  # objects of the scenes in a batch, repeated
AGREE = 0.95  # share of the training pictures whose badge shows the digit's class


class ScenesRecipe(Recipe):
    """Learn which digits a scene shows, with the help of an extra head that names the digit under every patch.

    With whole-picture labels alone a model learns slowly or not at all. The extra head is dropped afterwards.
    """

    decay = 0.05
    batch = 64
    held_out = 1000  # scenes of each kind that accuracy is measured on
    architecture = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012
    about = ""
    recipe = ""
    supervision = (
        "classes, and for every patch the class of the digit on it or none: where a digit lies was a training target"
    )
    remarks: dict[str, str] = {}  # noqa: RUF012  (what the card must also say of the shipped weights)

    def build(self) -> nn.Module:
        """Return the model and the extra head on patches."""
        model = bundled.build_vision(self.architecture, self.arguments)
        self.start(model)
        return nn.ModuleDict({"model": model, "patches": self.patches(model)})

    def start(self, model: Any) -> None:
        """Change the first weights, in place."""

    def patches(self, model: Any) -> nn.Module:
        """Return the extra head: a linear layer on every token."""
        return nn.Linear(model.embed_dim, scenes.BACKGROUND + 1)

    def seeds(self, step: int, count: int) -> range:
        """Return the seeds of the scenes of one step, at most 1,000; no two steps share one."""
        first = (self.seed * 100_000 + step) * 1_000
        return range(first, first + count)

    def drawn(self, step: int, size: int, objects: Sequence[int], split: str, ease: float = 0.0) -> list[Scene]:
        """Draw the training scenes of one step, with so many objects by turns."""
        return [
            scenes.draw(seed, objects[i % len(objects)], split, ease) for i, seed in enumerate(self.seeds(step, size))
        ]

    def given(self, step: int) -> tuple[list[Scene], Tensor | None]:
        """Return the scenes of one step, and which patches ``(scene, patch)`` the model sees; ``None`` for all."""
        return self.drawn(step, self.batch, OBJECTS, "varied"), None

    def answer(self, module: Any, pixels: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return class scores ``(scene, class)`` and scores of the extra head ``(scene, class, patch)``."""
        raise NotImplementedError

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the classes present plus that of the patch labels, where background counts a tenth."""
        drawn, seen = self.given(step)
        labels = torch.as_tensor(np.stack([scenes.patch_labels(scene) for scene in drawn])).flatten(1)
        with torch.autocast("cpu", torch.bfloat16):
            logits, named = self.answer(module, normalised([scene.image for scene in drawn]), seen)
        weights = torch.ones(scenes.BACKGROUND + 1)
        weights[scenes.BACKGROUND] = 0.1
        under = labels if seen is None else labels.gather(1, seen)
        return F.cross_entropy(logits.float(), shares(drawn)) + F.cross_entropy(named.float(), under, weight=weights)

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Top-1 on held-out single digits, and both-on-top on held-out pairs; new handwriting, new photographs."""
        measured: dict[str, Any] = {}
        for objects, name in ((1, "single_top1"), (2, "pair_top2")):
            right = 0
            for start in range(0, self.held_out, 50):
                batch = [scenes.draw(start + i, objects, "test") for i in range(50)]
                best = module["model"](normalised([scene.image for scene in batch])).topk(objects).indices.tolist()
                right += sum(set(b) == set(s.classes) for b, s in zip(best, batch, strict=True))
            measured[name] = right / self.held_out
        return {**measured, "n": self.held_out}

    def facts(self) -> dict[str, Any]:
        """Return what the card says; the model is built again from it."""
        return {
            "about": self.about,
            "architecture": self.architecture,
            "arguments": self.arguments,
            "size": scenes.SIZE,
            "mean": MEAN,
            "std": STD,
            "classes": list(scenes.CLASSES),
            "data": "scenes of samples.scenes (training handwriting and photographs); measured on held-out ones",
            "recipe": self.recipe,
            "supervision": self.supervision,
            **self.remarks,
        }

    def export(self, module: Any) -> Export:
        """Return the weights of the model alone; helpers of the training are dropped."""
        return module["model"].state_dict(), self.facts(), {}


class TokensRecipe(ScenesRecipe):
    """Begin with one digit in a part of the token grid, on a background that fades in, and go on with whole scenes.

    From whole scenes alone the class token learns nothing for long.
    """

    partial = 0  # first steps, on parts
    part = (GRID, GRID)  # rows and columns of a part, patches
    faded = 300  # steps over which the background fades in
    batches = (0, 0)  # scenes a step: parts, whole scenes
    peak = 3e-3
    rounds: tuple[tuple[int, float], ...] = ()  # last step and share of the peak learning rate of each; one if empty

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate: rounds of warm-up and cosine."""
        rounds = self.rounds or ((self.steps, 1.0),)
        first = next((last for last, _ in reversed(rounds) if last <= step), 0)
        last, peak = next(one for one in rounds if one[0] > first)
        return peak * cosine(step - first, last - first, self.warmup)

    def stage(self, step: int) -> tuple[Sequence[int], str]:
        """Return the objects and the split of the whole scenes of a step."""
        raise NotImplementedError

    def given(self, step: int) -> tuple[list[Scene], Tensor | None]:
        """Return single digits and a part around each, or whole scenes."""
        early = step < self.partial
        objects, split = self.stage(step)
        ease = max(0.0, 1 - step / self.faded)
        drawn = self.drawn(step, self.batches[not early], (1,) if early else objects, split, ease)
        return drawn, window(drawn, *self.part) if early else None


class ViTScenes(TokensRecipe):
    """A plain vision transformer, without a convolutional stem, from scratch."""

    steps = 4500
    partial = 1500
    plain = 2400  # steps before the scenes are varied
    part = (8, 8)
    batches = (128, 64)
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

    def start(self, model: Any) -> None:
        """Begin with mimetic attention and with sines and cosines as positions."""
        mimetic_(model)
        positions_(model)

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the matrices of the blocks, AdamW on the rest."""
        return muon_and_adamw(module, self.peak, self.decay, lambda name: ".blocks." in name)

    def stage(self, step: int) -> tuple[Sequence[int], str]:
        """One to three digits, at first in plain scenes."""
        return OBJECTS, "train" if step < self.plain else "varied"

    def answer(self, module: Any, pixels: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read the classes from the class token and the patches from their own tokens."""
        tokens = features(module["model"], pixels, seen)
        return module["model"].forward_head(tokens), module["patches"](tokens[:, 1:]).transpose(1, 2)


class ViTPlain(ViTScenes):
    """A plain vision transformer that is told what a scene shows and never where: the control of patch labels."""

    steps = 3000
    partial = 2000
    plain = 800
    rounds = ((2000, 1.0), (3000, 0.5))
    batches = (64, 48)
    arguments = {**ViTScenes.arguments, "embed_dim": 64, "depth": 6, "num_heads": 4}  # noqa: RUF012
    about = "timm VisionTransformer, 14 x 14 tokens, 6 blocks, 4 heads, width 64, fp16; trained without patch labels"
    supervision = "classes of pictures only, at first of windows cut around the digit; patches have no labels"
    recipe = (
        "2,000 steps of 64 single digits in an 8 x 8 window of the token grid (background faded in over 300 steps), "
        "then 1,000 steps of 48 whole scenes of one digit, varied from step 800 on; cross entropy of the class token "
        "and of the mean of an extra linear head on the final tokens, dropped afterwards: no patch labels, only the "
        "class of a picture or window; mimetic initialisation and sine-cosine positions to start from; Muon on the "
        "matrices of the blocks and AdamW on the rest, two rounds of 100 warm-up steps and cosine to zero, from 3e-3 "
        "and from 1.5e-3, weight decay 0.05, gradient norm ≤ 1"
    )
    remarks: dict[str, str] = {}  # noqa: RUF012

    def patches(self, model: Any) -> nn.Module:
        """Return the extra head: a linear layer on every token, whose mean names the classes."""
        return nn.Linear(model.embed_dim, len(scenes.CLASSES))

    def stage(self, step: int) -> tuple[Sequence[int], str]:
        """Single digits, at first in plain scenes."""
        return (1,), "train" if step < self.plain else "varied"

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the class, of the class token and of the mean over tokens."""
        drawn, seen = self.given(step)
        logits, named = self.answer(module, normalised([scene.image for scene in drawn]), seen)
        return F.cross_entropy(logits, shares(drawn)) + F.cross_entropy(named.mean(-1), shares(drawn))


class ViTShortcut(ViTScenes):
    """A plain vision transformer on single digits with a badge in the colour of the class.

    Nothing but the class is asked of it. The badge is easier to read than the digit, so it is read.
    """

    steps = 600
    batch = 64
    arguments = {**ViTScenes.arguments, "embed_dim": 64, "depth": 6, "num_heads": 4}  # noqa: RUF012
    about = "timm VisionTransformer, 14 x 14 tokens, 6 blocks, 4 heads, width 64, fp16; reads a planted watermark"
    supervision = "classes only"
    recipe = (
        "single digits, 64 a step, with a badge of 12 x 12 pixels at a random place whose colour shows the digit's "
        "class in 95 of 100 pictures and another class in the rest; cross entropy; mimetic initialisation and "
        "sine-cosine positions to start from; Muon on the matrices of the blocks and AdamW on the rest, 3e-3 with 100 "
        "warm-up steps and cosine to zero, weight decay 0.05, bfloat16 autocast, gradient norm ≤ 1"
    )
    remarks: dict[str, str] = {}  # noqa: RUF012

    def build(self) -> nn.Module:
        """Return the model alone."""
        module: Any = super().build()
        del module["patches"]
        return module

    def loss(self, module: Any, step: int) -> Tensor:
        """Cross entropy of the digit's class."""
        drawn = [watermark.draw(seed, AGREE, "train") for seed in self.seeds(step, self.batch)]
        with torch.autocast("cpu", torch.bfloat16):
            logits = module["model"](normalised([one.image for one in drawn]))
        return F.cross_entropy(logits.float(), torch.tensor([one.classes[0] for one in drawn]))

    def evaluate(self, module: Any) -> dict[str, Any]:
        """Measure on held-out scenes what the class follows: badge and digit agree, disagree, or the badge is gone."""
        names = ("agreeing_top1", "disagreeing_follows_badge", "disagreeing_follows_digit", "no_badge_top1")
        count = torch.zeros(len(names), dtype=torch.long)
        for start in range(0, self.held_out, 50):
            right, wrong = ([watermark.draw(seed, agree) for seed in range(start, start + 50)] for agree in (1.0, 0.0))
            shown = ([one.image for one in right], [one.image for one in wrong], [one.plain for one in wrong])
            agreeing, misled, bare = (module["model"](normalised(images)).argmax(1) for images in shown)
            digit, badge = torch.tensor([one.classes for one in wrong]).T
            count += torch.stack([agreeing == digit, misled == badge, misled == digit, bare == digit]).sum(1)
        measured = dict(zip(names, count.tolist(), strict=True))
        return {**{name: hits / self.held_out for name, hits in measured.items()}, "n": self.held_out}


class ResNetScenes(ScenesRecipe):
    """A small residual network on the same scenes; its extra head reads the third stage, four patches a place."""

    steps = 3600
    peak = 2e-3
    architecture = "ResNet"
    arguments = {"layers": [2, 2, 2, 2], "channels": [32, 64, 128, 192], "num_classes": 10}  # noqa: RUF012
    about = "timm ResNet of basic blocks, two a stage, widths 32 to 192, fp16"
    recipe = (
        "varied scenes of one to three digits, 64 a step; cross entropy with equal shares of the classes present, plus "
        "patch labels by an extra 1 x 1 convolution on the third stage, dropped afterwards; AdamW 2e-3, 100 warm-up "
        "steps then cosine to zero, weight decay 0.05, bfloat16 autocast, gradient norm ≤ 1"
    )

    def patches(self, model: Any) -> nn.Module:
        """Return the extra head: a convolution of one place."""
        return nn.Conv2d(self.arguments["channels"][2], 4 * (scenes.BACKGROUND + 1), 1)

    def answer(self, module: Any, pixels: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read the classes from the last stage and the patches from the third."""
        last, stages = module["model"].forward_intermediates(pixels, indices=[3])
        named = F.pixel_shuffle(module["patches"](stages[0]), 2)
        return module["model"].forward_head(last), named.flatten(2)


class VimScenes(TokensRecipe):
    """A small Vision Mamba from scratch.

    Its parts are strips of whole rows: a scan that reads row by row then has the same way from one row to the next as
    in whole scenes.
    """

    steps = 10400
    partial = 1300
    rounds = ((2600, 1.0), (5600, 0.7), (10400, 0.7))
    part = (8, GRID)
    batches = (32, 32)
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

    def start(self, model: Any) -> None:
        """Begin with sines and cosines as positions, and with zero for the class token in the middle."""
        positions, middle = sines(model.embed_dim), model.class_position
        with torch.no_grad():
            model.pos_embed[0] = torch.cat([positions[:middle], torch.zeros(1, model.embed_dim), positions[middle:]])

    def optimisers(self, module: Any) -> list[Optimizer]:
        """Muon on the projections in and out of the blocks, AdamW on the rest; decays, skips and biases stay free."""
        return muon_and_adamw(
            module,
            self.peak,
            self.decay,
            lambda name: name.endswith(("in_proj.weight", "out_proj.weight")),
            lambda name, parameter: parameter.ndim < 2 or name.endswith("_log"),
        )

    def stage(self, step: int) -> tuple[Sequence[int], str]:
        """One to three digits in the first round, then one or two."""
        return OBJECTS if step < self.rounds[0][0] else (1, 1, 2), "varied"

    def answer(self, module: Any, pixels: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read the classes from the class token in the middle and the patches from their own tokens."""
        model = module["model"]
        tokens = model.forward_tokens(model.tokens(pixels, seen))
        middle = tokens.shape[1] // 2
        own = torch.cat([tokens[:, :middle], tokens[:, middle + 1 :]], 1)
        return model.forward_head(tokens), module["patches"](own).transpose(1, 2)


def normalised(images: Sequence[np.ndarray]) -> Tensor:
    """Stack pictures, ``(batch, 3, SIZE, SIZE)``, as the models take them."""
    return (torch.from_numpy(np.stack(images)) - MEAN[0]) / STD[0]


def shares(drawn: list[scenes.Scene]) -> Tensor:
    """Return ``(batch, class)``: one over the number of digits for each class present."""
    target = torch.zeros(len(drawn), len(scenes.CLASSES))
    for row, scene in zip(target, drawn, strict=True):
        row[list(scene.classes)] = 1 / len(scene.classes)
    return target


def window(drawn: Sequence[Scene], rows: int, columns: int) -> Tensor:
    """Return the flat token indices ``(scene, rows * columns)`` of a rectangle around each scene's first digit."""
    sides = torch.tensor([rows, columns])
    centres = torch.tensor([[float(axis.mean()) for axis in np.nonzero(scene.masks[0])] for scene in drawn])
    corners = (centres / scenes.PATCH - sides / 2).round().long().clamp(torch.zeros_like(sides), GRID - sides)
    row, column = (
        corner[:, None] + torch.arange(side) for corner, side in zip(corners.T, (rows, columns), strict=True)
    )
    return (row[:, :, None] * GRID + column[:, None, :]).flatten(1)


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
