"""The recipes that made the bundled models."""

from xai_utils.train import attention, detector, loop, mamba, masked_words, planted, shortcut, text, vim, vision
from xai_utils.train.loop import RECIPES, rate, train

__all__ = [
    "RECIPES",
    "attention",
    "detector",
    "loop",
    "mamba",
    "masked_words",
    "planted",
    "rate",
    "shortcut",
    "text",
    "train",
    "vim",
    "vision",
]
