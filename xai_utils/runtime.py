"""Start a notebook: seed, device, quiet libraries, and a record of everything that makes its figures."""

from __future__ import annotations

import gc
import os
import platform
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from xai_utils.files import DATA as DATA
from xai_utils.files import ROOT as ROOT

LIBRARIES = (
    "torch",
    "transformers",
    "timm",
    "captum",
    "matplotlib",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
)


@dataclass
class Record:
    """What the running notebook used; :mod:`figures` writes it beside every picture."""

    parameters: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record with the versions that made it, ready for JSON; no time and no path."""
        return {
            "parameters": self.parameters,
            "device": self.device,
            "models": self.models,
            "data": self.data,
            "versions": versions(),
        }


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


record = Record()
LISTS = ("METHODS", "TEXT_MODELS", "PLACED", "COSTED", "CLASSES", "SKIPS", "QUANTILES")  #: parameters of many values


def start(parameters: Mapping[str, Any], threads: int | None = None) -> torch.device:
    """Seed everything, choose the device and begin a new record.

    Args:
        parameters: the notebook's ``globals()``; its UPPER_CASE literals are the parameters. ``SEED`` is required,
            ``DEVICE`` is optional (``"auto"``: the GPU when there is one).
        threads: torch threads; by default as many as torch chose (``OMP_NUM_THREADS``).

    Returns:
        The device. It is kept in the record, so no figure hides where it was computed.
    """
    literals: dict[str, Any] = {
        name: value
        for name, value in parameters.items()
        if name.isupper() and not name.startswith("_") and _is_literal(value)
    }
    if "SEED" not in literals:
        raise ValueError(f"no SEED among the parameters ({', '.join(literals) or 'none at all'}).")
    for name in LISTS:
        if isinstance(one := literals.get(name, ()), str | int | float):
            raise ValueError(f"{name} is {one!r}, expected a list. papermill takes one by -y '{name}: [{one}]'.")
    gc.freeze()  # what was imported stays, and need not be looked through for garbage
    gc.set_threshold(700)
    seed(literals["SEED"])
    if threads is not None:
        torch.set_num_threads(threads)
    quiet()
    chosen = device(literals.get("DEVICE", "auto"))
    record.parameters, record.models, record.data = literals, {}, {}
    record.device = _describe(chosen)
    return chosen


def seed(value: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def own_device(name: str = "cpu", place: int = 0) -> torch.device:
    """Return the device of one of several workers on a machine: each has a GPU of its own.

    Args:
        name: as for :func:`device`.
        place: of the worker on its machine, from 0.

    Raises:
        ValueError: torch cannot use the device, or there are fewer GPUs than workers.
    """
    chosen = device(name)
    if chosen.type != "cuda" or chosen.index is not None or not place:
        return chosen
    if place >= torch.cuda.device_count():
        raise ValueError(f"worker {place + 1} has no GPU of its own: there are {torch.cuda.device_count()}.")
    return torch.device("cuda", place)


def device(name: str = "auto") -> torch.device:
    """Return ``"auto"`` (CUDA, then Apple's MPS, then CPU) or the named device; never another one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"DEVICE is {name!r}, which torch cannot use here: {reason} Try 'auto' or 'cpu'.") from None
    return torch.device(name)


def quiet() -> None:
    """Silence progress bars and advice of the libraries; errors still speak."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is imported
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft asks for it


def _is_literal(value: Any) -> bool:
    """Whether a value can be written down as it is: a text, a number, None, or a list, tuple or dictionary of them."""
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) for key in value) and all(map(_is_literal, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_literal, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _describe(chosen: torch.device) -> str:
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
