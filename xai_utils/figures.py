"""Save figures so that the same command writes the same bytes, each with the record of what made it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xai_utils import files, runtime

plt.rcParams["figure.dpi"] = 56  # of the pictures kept inside notebooks; files have their own resolution
FORMATS = ("png", "pdf")
_NAME = re.compile(r"\d\d_[a-z0-9_]+")


def folder() -> Path:
    """Return where figures go: ``$XAI_FIGURES`` if set, else the project's ``figures``."""
    return Path(os.environ.get("XAI_FIGURES") or files.ROOT / "figures")


def save(fig: Figure, name: str, caption: str = "", formats: Sequence[str] = ("png",), dpi: int = 110) -> None:
    """Write ``name.png`` (and ``.pdf`` if asked) and ``name.json`` with its provenance, then show the figure.

    Args:
        fig: the figure; it stays open so that the notebook displays it.
        name: ``NN_words``, beginning with the notebook's number; unique in the project.
        caption: one sentence for galleries.
        formats: among ``FORMATS``.
        dpi: dots per inch of the PNG.

    Returns:
        None, because a path printed by a compared cell would differ between machines.

    Raises:
        ValueError: a name that does not fit the pattern, an unknown format.
        OSError: the disk is full or read-only; the old figure and its record stay, and no half-written file is left.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"figure name {name!r} should read NN_words, such as 01_rollout_by_depth.")
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"cannot write {sorted(unknown)}, only {FORMATS}.")
    contents = {f"{name}.{kind}": _draw(fig, kind, dpi) for kind in formats}
    about = {"figure": name, "caption": caption, "notebook": _notebook(name), **runtime.record.as_dict()}
    contents[f"{name}.json"] = (json.dumps(about, indent=1) + "\n").encode()
    files.write_together(folder(), contents)
    plt.show()


def _notebook(name: str) -> str:
    return os.environ.get("XAI_NOTEBOOK", f"{name[:2]}_*")


def _draw(fig: Figure, kind: str, dpi: int) -> bytes:
    nameless: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    file = io.BytesIO()
    fig.savefig(file, format=kind, dpi=dpi, metadata=nameless, bbox_inches="tight")
    return file.getvalue()
