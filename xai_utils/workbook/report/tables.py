"""The tables of the report: the leaderboard as means with intervals, and tables that lie among the figures.

The leaderboard is a tidy parquet with one row a (model, method, sample, metric, operator); here it becomes one row a
(model, metric, operator, method): the mean over samples with n and a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from scipy.stats import t as student

from xai_utils.workbook.report.sources import TABLES, read_json

COLUMNS = ("model", "method", "sample", "metric", "operator", "value", "seconds")
GROUP = ["model", "metric", "operator", "method"]
NONE = "none"  # of metrics that remove nothing
LEVEL = 0.95
SHOWN = 500  # rows of a table among the figures


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard; without two samples there is no interval, and ``missing`` samples have no value."""

    model: str
    metric: str
    operator: str
    method: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    missing: int
    seconds: float | None


@dataclass(frozen=True)
class Table:
    """A table as it lies among the figures: texts and numbers, and what its record says."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int
    about: dict[str, Any]
    files: tuple[Path, ...]
    folder: str


def leaderboard(file: Path) -> list[Row] | None:
    """Return the leaderboard's lines, or None while the file does not exist.

    Values of one sample that occur more than once (several seeds) are averaged first, so that n counts samples. The
    interval is Student's t at 95 % over samples.

    Raises:
        ValueError: the file is no parquet, lacks a column, is empty, or holds texts or infinite numbers as values; the
            message names the file.
    """
    if not file.exists():
        return None
    table = _read(file)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(
            f"{file.name} lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}, got "
            f"{', '.join(map(str, table.columns))}."
        )
    if table.empty:
        raise ValueError(f"{file.name} has no row; remove it or make it again.")
    for name in ("value", "seconds"):
        if not pd.api.types.is_numeric_dtype(table[name]) or np.isinf(table[name].to_numpy(float)).any():
            raise ValueError(f"{file.name} holds texts or infinite numbers in {name!r}; expected finite numbers.")
    return _aggregate(table)


def _aggregate(table: pd.DataFrame) -> list[Row]:
    keys = {name: table[name].astype("object").fillna(NONE).astype(str).replace("", NONE) for name in GROUP}
    samples = table.assign(**keys).groupby([*GROUP, "sample"], sort=True, observed=True)[["value", "seconds"]].mean()
    groups = samples.groupby(GROUP, sort=True)
    found = groups["value"].agg(["mean", "std", "count", "size"])
    found["seconds"] = groups["seconds"].mean()
    spread = student.ppf((1 + LEVEL) / 2, found["count"].clip(lower=2) - 1) * found["std"] / np.sqrt(found["count"])
    found["low"], found["high"] = found["mean"] - spread, found["mean"] + spread
    found["missing"] = found["size"] - found["count"]
    return [
        Row(
            **dict(zip(GROUP, map(str, key), strict=True)),  # type: ignore[arg-type]
            mean=_number(one["mean"]),
            low=_number(one["low"]),
            high=_number(one["high"]),
            n=int(one["count"]),
            missing=int(one["missing"]),
            seconds=_number(one["seconds"]),
        )
        for key, one in found.iterrows()
    ]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def read_tables(folder: Path) -> list[Table]:
    """Read every CSV and parquet below ``folder`` with the record beside it, if there is one.

    Raises:
        ValueError: a file that is no table, a malformed record.
    """
    found = (path for path in sorted(folder.rglob("*.*")) if path.suffix in TABLES)
    return [_table(path, path.parent.relative_to(folder).as_posix()) for path in found]


def _table(path: Path, run: str) -> Table:
    content, record = _read(path), path.with_suffix(".json")
    rows = content.head(SHOWN).itertuples(index=False, name=None)
    return Table(
        name=path.stem,
        columns=tuple(map(str, content.columns)),
        rows=tuple(tuple(_plain(value) for value in row) for row in rows),
        total=len(content),
        about=read_json(record) if record.exists() else {},
        files=tuple(one for one in (path, record) if one.exists()),
        folder="figures" if run == "." else f"figures/{run}",
    )


def _plain(value: Any) -> Any:
    """Return a number or text of Python; nothing for what is missing."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return ", ".join(map(str, value))
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{file.name} cannot be read as a table: {str(error).splitlines()[0]}") from error
