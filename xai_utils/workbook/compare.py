"""Compare two folders of figures: which pictures look different, and which tables hold other numbers.

The same command gives the same bytes on one machine. On another processor sums are added in another order, so a few
pixels may differ by a shade; that is no difference here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

SHADE = 1  #: of 255, by which a pixel may differ
RELATIVE = 1e-4  #: by which a number may differ
KINDS = (".png", ".csv")


def differences(one: Path, other: Path) -> dict[str, str]:
    """Return what differs between two folders, by file; nothing where all is the same.

    Args:
        one: a folder of figures, their runs in folders below it.
        other: another one.

    Raises:
        ValueError: a folder is not there, or holds neither figure nor table.
    """
    files = [_files(folder) for folder in (one, other)]
    found = {}
    for name in sorted(set().union(*files)):
        if missing := [folder for folder, there in zip((one, other), files, strict=True) if name not in there]:
            found[name] = f"not in {missing[0]}"
        elif said := _difference(one / name, other / name):
            found[name] = said
    return found


def _files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in KINDS}
    if not found:
        raise ValueError(f"there is no figure in {folder}; name a folder that `make figures` wrote.")
    return found


def _difference(one: Path, other: Path) -> str:
    if one.read_bytes() == other.read_bytes():
        return ""
    return _of_pictures(one, other) if one.suffix == ".png" else _of_tables(one, other)


def _of_pictures(one: Path, other: Path) -> str:
    first, second = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (one, other))
    if first.shape != second.shape:
        return "of another size: {1} x {0}".format(*first.shape) + ", {1} x {0}".format(*second.shape)
    apart = abs(first - second).max(-1)
    share = float((apart > SHADE).mean())
    return f"{share:.2%} of the pixels differ, by up to {apart.max()} of 255" if share else ""


def _of_tables(one: Path, other: Path) -> str:
    first, second = pd.read_csv(one), pd.read_csv(other)
    try:
        pd.testing.assert_frame_equal(first, second, rtol=RELATIVE, atol=RELATIVE)
    except AssertionError as error:
        return " ".join(str(error).split()[:12])
    return ""


def report(found: Mapping[str, str]) -> int:
    """Print what differs; return the exit code, 1 if anything does."""
    if not found:
        print(f"the same: no pixel differs by more than {SHADE} of 255, no number by more than {RELATIVE:g}")
        return 0
    table = Table("figure", "difference")
    for name, said in found.items():
        table.add_row(name, said)
    Console().print(table)
    return 1
