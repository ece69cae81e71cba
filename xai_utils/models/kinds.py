"""What a model is here: where it comes from, what a loader returns, and a model ready to be explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_utils import check


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input.

    Attributes:
        size: side of the square the model sees, pixels.
        resize: the shorter side before the centre crop, pixels; equal to ``size`` for no margin.
        mean: per channel, subtracted from values in [0, 1].
        std: per channel, divided by.
        interpolation: a name of ``PIL.Image.Resampling``, lower case.
        squash: resize both sides to ``resize`` (the aspect ratio changes).
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    squash: bool = False


@dataclass(frozen=True)
class Loaded:
    """What a loader returns: the bare model and how to feed it."""

    module: nn.Module
    classes: tuple[str, ...]
    tokenizer: Any = None
    preprocessing: Preprocessing | None = None
    prefix: int = 0


class Unavailable(OSError):
    """A model of a hub that is neither cached nor reachable."""


@dataclass(frozen=True)
class Spec:
    """One line of the table: where a model comes from and what we expect to find.

    Attributes:
        load: function ``(source, revision) -> Loaded``.
        source: folder under ``data/models``, or hub id.
        blocks: number of attention blocks that :mod:`capture` sees and compares; 0 for a model without, and ``None``
            where the table cannot know (``hf:`` and ``timm:`` names).
        revision: pinned commit of the hub, where the table names one.
        instead: bundled model to try without a network.
    """

    load: Callable[[str, str | None], Loaded]
    source: str
    blocks: int | None
    revision: str | None = None
    instead: str = ""


@dataclass(frozen=True)
class Model:
    """A model ready to be explained: evaluation mode, on its device, named.

    Attributes:
        name: as given to :func:`load`.
        module: the untouched transformers or timm model, or our own.
        classes: class names in the order of the logits; empty for a model without a classifier.
        blocks: number of attention blocks, 0 for a model without attention.
        prefix: leading tokens of a picture that stand for no patch.
        tokenizer: for text models, else ``None``.
        preprocessing: for vision models, else ``None``.
        sha256: of all weights and buffers, in the order of the state dict.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]
    blocks: int | None
    prefix: int
    tokenizer: Any
    preprocessing: Preprocessing | None
    sha256: str

    @property
    def kind(self) -> str:
        """``"text"`` or ``"vision"``."""
        return "text" if self.tokenizer is not None else "vision"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.module.parameters()).device

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return class scores ``(batch, class)``; ``ValueError`` for a model without a classifier."""
        if not self.classes:
            raise ValueError(f"{self.name} has no classifier, so no class to explain; try minilm-sst2.")
        output = self.module(**inputs)
        return output if isinstance(output, Tensor) else output.logits

    def class_index(self, target: int | str) -> int:
        """Return the index of a class given by index or name; the error lists what exists."""
        if isinstance(target, str):
            if target not in self.classes:
                near = [name for name in self.classes if target.lower() in name.lower()][:8]
                shown = near or self.classes[:12]
                raise ValueError(f"{self.name} has no class {target!r}; such as: {', '.join(shown)}.")
            return self.classes.index(target)
        check.index(f"class of {self.name}", target, len(self.classes))
        return target % len(self.classes)
