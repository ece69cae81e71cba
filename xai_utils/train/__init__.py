"""The recipes that made the bundled models."""

from xai_utils.train import attention, detector, loop, mamba, masked_words, text, vision
from xai_utils.train.loop import train
