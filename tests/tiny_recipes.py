"""Recipes in miniature: a few steps on few scenes, or on sentences made up here in place of SST-2."""

import numpy as np

from xai_utils.train import vision


class TinyViT(vision.ViTScenes):
    """Five steps: two on windows, three on whole scenes."""

    steps, partial, plain, faded, warmup, part = 5, 2, 3, 2, 2, (4, 4)
    batches = (6, 4)
    arguments = {**vision.ViTScenes.arguments, "embed_dim": 24, "depth": 2, "num_heads": 2}  # noqa: RUF012

    def evaluate(self, module):
        return {"n": len(list(module.parameters()))}


class TinyResNet(vision.ResNetScenes):
    """Five steps."""

    steps, warmup, batch = 5, 2, 4
    arguments = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "num_classes": 10}  # noqa: RUF012
    evaluate = TinyViT.evaluate


class TinyVim(vision.VimScenes):
    """Five steps: two on strips, three on whole scenes, of which the last two are the second round."""

    steps, partial, faded, warmup, part = 5, 2, 2, 2, (3, 14)
    rounds = ((3, 1.0), (5, 0.7))
    batches = (4, 3)
    arguments = {**vision.VimScenes.arguments, "embed_dim": 16, "depth": 2, "d_state": 2}  # noqa: RUF012
    evaluate = TinyViT.evaluate


RECIPES = {"vit-scenes": TinyViT, "resnet-scenes": TinyResNet, "vim-scenes": TinyVim}

GOOD, BAD = ("warm", "witty", "tender", "lovely"), ("dull", "stale", "clumsy", "bleak")


def sst2(split):
    """Return sentences whose one adjective is the label."""
    noise = np.random.default_rng([0, split == "train"])
    labels = noise.integers(0, 2, 800 if split == "train" else 100)
    things = noise.choice(["film", "plot", "story", "cast"], len(labels))
    words = [noise.choice(GOOD if label else BAD) for label in labels]
    lengths = noise.integers(0, 6, len(labels))
    return [f"a {w} {t} {'indeed ' * n}" for w, t, n in zip(words, things, lengths, strict=True)], labels
