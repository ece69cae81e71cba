"""Save figures so that the same command writes the same bytes, each with the record of what made it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xai_utils import files, runtime

plt.rcParams["figure.dpi"] = 56  # of the pictures kept inside notebooks; files have their own resolution
FORMATS = ("png", "pdf")
_NAME = re.compile(r"\d\d_[a-z0-9_]+")


def folder() -> Path:
    """Return where figures go: ``$XAI_FIGURES`` if set, else the notebook's parameter ``FIGURES``, else ``figures``.

    The parameter is how a view exported by the explorer keeps out of the project's figures when it is made again.
    """
    return files.ROOT / (os.environ.get("XAI_FIGURES") or runtime.record.parameters.get("FIGURES", "figures"))


def save(
    fig: Figure,
    name: str,
    caption: str = "",
    formats: Sequence[str] = ("png",),
    dpi: int = 110,
    table: pd.DataFrame | None = None,
) -> None:
    """Write ``name.png`` (and ``.pdf`` if asked) and ``name.json`` with its provenance, then show the figure.

    Args:
        fig: the figure; it stays open so that the notebook displays it.
        name: ``NN_words``, beginning with the notebook's number; unique in the project.
        caption: one sentence for galleries.
        formats: among ``FORMATS``.
        dpi: dots per inch of the PNG.
        table: the numbers that the figure shows; written as ``name.csv`` under the same record, see
            :func:`save_table`.

    Returns:
        None, because a path printed by a compared cell would differ between machines.

    Raises:
        ValueError: a name that does not fit the pattern, an unknown format.
        OSError: the disk is full or read-only; the old figure and its record stay, and no half-written file is left.
    """
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"cannot write {sorted(unknown)}, only {FORMATS}.")
    _write(name, caption, {kind: _draw(fig, kind, dpi) for kind in formats} | _as_csv(table))
    plt.show()


def save_table(table: pd.DataFrame, name: str, caption: str = "") -> None:
    """Write ``name.csv``, and ``name.json`` with its provenance, for a table that no figure shows as it is.

    Args:
        table: its index becomes the first columns if it has a name; numbers are kept to six digits.
        name: ``NN_words`` as for :func:`save`, and no figure's.
        caption: one sentence for galleries.

    Raises:
        ValueError: a name that does not fit the pattern.
        OSError: as :func:`save`.
    """
    _write(name, caption, _as_csv(table))


def read_table(name: str, where: Path | None = None) -> pd.DataFrame:
    """Return a saved table; numbers that prose or a page speaks of are read, not typed.

    Args:
        name: of the figure or table.
        where: its folder, if not :func:`folder`.

    Raises:
        ValueError: there is none of this name.
    """
    path = (where or folder()) / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"there is no table {path.name} in {path.parent.name}/; run the notebook {name[:2]} first.")
    return pd.read_csv(path)


def _as_csv(table: pd.DataFrame | None) -> dict[str, bytes]:
    if table is None:
        return {}
    named = any(name is not None for name in table.index.names)
    return {"csv": table.to_csv(index=named, float_format="%.6g", lineterminator="\n").encode()}


def _write(name: str, caption: str, contents: Mapping[str, bytes]) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"figure name {name!r} should read NN_words, such as 01_rollout_by_depth.")
    about = {"figure": name, "caption": caption, "notebook": _notebook(name), **runtime.record.as_dict()}
    about["files"] = {f"{name}.{kind}": sha256(content).hexdigest() for kind, content in contents.items()}
    record = {"json": (json.dumps(about, indent=1) + "\n").encode()}
    files.write_together(folder(), {f"{name}.{kind}": content for kind, content in {**contents, **record}.items()})


def _notebook(name: str) -> str:
    return os.environ.get("XAI_NOTEBOOK", f"{name[:2]}_*")


def _draw(fig: Figure, kind: str, dpi: int) -> bytes:
    nameless: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    file = io.BytesIO()
    fig.savefig(file, format=kind, dpi=dpi, metadata=nameless, bbox_inches="tight")
    return file.getvalue()
