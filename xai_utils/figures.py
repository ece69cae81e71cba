"""Save figures so that the same command writes the same bytes, each with the record of what made it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xai_utils import runtime

plt.rcParams["figure.dpi"] = 56  # of the pictures kept inside notebooks; files have their own resolution
FORMATS = ("png", "pdf")
_NAME = re.compile(r"\d\d_[a-z0-9_]+")


def folder() -> Path:
    """Return where figures go: ``$XAI_FIGURES`` if set, else the project's ``figures``."""
    return Path(os.environ.get("XAI_FIGURES") or runtime.ROOT / "figures")


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
        OSError: the disk is full or read-only; no half-written file is left.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"figure name {name!r} should read NN_words, such as 01_rollout_by_depth.")
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"cannot write {sorted(unknown)}, only {FORMATS}.")
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    for kind in formats:
        _write(target / f"{name}.{kind}", lambda file, kind=kind: _draw(fig, file, kind, dpi))  # type: ignore[misc]
    about = {"figure": name, "caption": caption, "notebook": _notebook(name), **runtime.record.as_dict()}
    _write(target / f"{name}.json", lambda file: file.write((json.dumps(about, indent=1) + "\n").encode()))
    plt.show()


def _notebook(name: str) -> str:
    return os.environ.get("XAI_NOTEBOOK", f"{name[:2]}_*")


def _draw(fig: Figure, file: IO[bytes], kind: str, dpi: int) -> None:
    nameless: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    fig.savefig(file, format=kind, dpi=dpi, metadata=nameless, bbox_inches="tight")


def _write(path: Path, fill: Any) -> None:
    """Fill a temporary file beside ``path``, then rename it: whole or not at all."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            fill(file)
            file.flush()
        except BaseException as error:
            temporary.unlink()
            if isinstance(error, OSError):
                raise OSError(error.errno, f"cannot save {path.name}: {error.strerror}; nothing was written") from error
            raise
    temporary.chmod(0o644)
    temporary.replace(path)
