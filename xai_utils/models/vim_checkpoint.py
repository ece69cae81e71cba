"""Bring a published Vision Mamba from the hub into our own model: every tensor, or an error that names it."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai_utils.models import bundled
from xai_utils.models.bundled import Loaded, Preprocessing
from xai_utils.models.vim import Vim, arguments_of, load_strictly

KEY = "model"  #: of the weights in a published checkpoint, beside optimiser states
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZE = 224, 256  # pixels; resize the shorter side, then cut the middle, as in the published evaluation


def vim_hub(source: str, revision: str | None) -> Loaded:
    """Load a published checkpoint (``hustvl/Vim-*-midclstok``); classes are ImageNet's.

    Raises:
        Unavailable: neither cached nor reachable.
        ValueError: the repository holds not exactly one ``.pth`` file, or the checkpoint does not fit.
    """
    from huggingface_hub import snapshot_download
    from timm.data import ImageNetInfo

    folder = bundled.fetch(source, lambda: snapshot_download(source, revision=revision, allow_patterns="*.pth"))
    files = sorted(Path(folder).glob("*.pth"))
    if len(files) != 1:
        raise ValueError(f"{source} holds {[file.name for file in files]}, expected exactly one .pth file.")
    module = from_checkpoint(read(files[0]))
    count = module.num_classes
    numbered = tuple(f"class {i}" for i in range(count))
    classes = bundled._imagenet(ImageNetInfo()) if count == 1000 else numbered
    return Loaded(module, classes, None, Preprocessing(SIZE, RESIZE, MEAN, STD), module.num_prefix_tokens)


def read(path: Path) -> Mapping[str, Tensor]:
    """Read the weights of a published checkpoint without running code from it.

    The file also carries the training's arguments, a plain namespace; nothing else than tensors and that is accepted.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):
            checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than tensors and is not loaded: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, Mapping) or KEY not in checkpoint:
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(f"{path.name} has no entry {KEY!r} with the weights; it holds: {found}.")
    return checkpoint[KEY]


def from_checkpoint(state: Mapping[str, Tensor], img_size: int = SIZE) -> Vim:
    """Build the model whose shapes the weights have; ``ValueError`` names every tensor that does not fit."""
    model = Vim(**arguments_of(state, img_size))
    load_strictly(model, state)
    return model
