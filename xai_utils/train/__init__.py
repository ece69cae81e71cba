"""The recipes that made the bundled models."""

from xai_utils.train import attention, detector, mamba, masked_words, planted, shortcut, text, vim, vision
from xai_utils.train.loop import RECIPES, main, rate, train

__all__ = [
    "RECIPES",
    "attention",
    "detector",
    "main",
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
