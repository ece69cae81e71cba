"""What can be asked: one table of models, how a sample becomes their input, and what is asked of them."""

from xai_utils.models import (
    attention_classifier,
    bundled,
    detector,
    encoding,
    masked,
    memory,
    removal,
    targets,
    vim_checkpoint,
)
from xai_utils.models.bundled import Preprocessing, Unavailable
from xai_utils.models.table import MODELS, Model, identity, load, shared, state_sha256, work_on

__all__ = [
    "MODELS",
    "Model",
    "Preprocessing",
    "Unavailable",
    "attention_classifier",
    "bundled",
    "detector",
    "encoding",
    "identity",
    "load",
    "masked",
    "memory",
    "removal",
    "shared",
    "state_sha256",
    "targets",
    "vim_checkpoint",
    "work_on",
]
