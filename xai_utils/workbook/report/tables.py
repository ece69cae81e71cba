"""The tables of the report: the standings of the leaderboard, and tables that lie among the figures, as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from xai_utils.workbook.report.sources import TABLES, read_json

NAMES = ("model", "metric", "operator", "better", "method")
NUMBERS = ("mean", "low", "high", "gain", "gain_low", "gain_high", "failed", "n", "seconds")
NONE = "none"  # of metrics that remove nothing
SHOWN = 20  # rows of a table among the figures; its file holds all
OPENED = {"model": "vit-scenes", "metric": "average_precision"}  # what the leaderboard opens on


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


def leaderboard(file: Path) -> list[dict[str, Any]] | None:
    """Return the standings as they stand in the file, one dictionary a row, or None while the file does not exist.

    A row also holds ``plot``: where its interval begins and ends and where its mean is, in per cent of what all rows of
    its metric span; and ``cells``, what its columns say.

    Raises:
        ValueError: the file is no table, lacks a column, is empty, or holds texts as numbers; the message names it.
    """
    if not file.exists():
        return None
    table = read_table(file)
    if missing := [name for name in (*NAMES, *NUMBERS) if name not in table.columns]:
        raise ValueError(f"{file.name} lacks the columns {', '.join(missing)}; run python -m xai_utils leaderboard.")
    if table.empty:
        raise ValueError(f"{file.name} has no row; remove it or make it again.")
    if texts := [name for name in NUMBERS if not pd.api.types.is_numeric_dtype(table[name])]:
        raise ValueError(f"{file.name} holds texts in {texts[0]!r}; expected numbers.")
    rows = ({name: _plain(row[name]) for name in (*NAMES, *NUMBERS)} for row in table.to_dict("records"))
    told = ({**row, "operator": row["operator"] or NONE, "better": row["better"] or "–"} for row in rows)
    return [{**row, "plot": plot, "cells": _cells(row, plot)} for row, plot in zip(told, _plots(table), strict=True)]


def _cells(row: dict[str, Any], plot: Sequence[float] | None) -> list[Any]:
    """Return a row as it is read, rounded; ``plot`` stays as numbers, for a picture."""
    arrow = {"higher": "↑ ", "lower": "↓ "}.get(row["better"], "")
    mean, gain = _span(row["low"], row["high"]), _span(row["gain_low"], row["gain_high"])
    rest = [number(row[name]) for name in ("failed", "n", "seconds")]
    names = [row[name] for name in ("model", "metric", "operator", "method")]
    return [*names, number(row["mean"]), mean, plot, number(row["gain"]), gain, *rest, arrow + row["better"]]


def _span(low: float | None, high: float | None) -> str:
    return number(None) if low is None else f"{number(low)} to {number(high)}"


def opened(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the model and the metric that the leaderboard opens on: :data:`OPENED`, or those of its first row."""
    if any(all(row[name] == value for name, value in OPENED.items()) for row in rows):
        return OPENED
    return {name: rows[0][name] for name in OPENED}


def _plots(table: pd.DataFrame) -> list[tuple[float, ...] | None]:
    """Return where each row's low, high and mean stand between the least and the most of its metric, in per cent."""
    by_metric = table.groupby("metric", dropna=False)
    least, most = by_metric["low"].transform("min"), by_metric["high"].transform("max")
    values = table[["low", "high", "mean"]]
    placed = values.sub(least, axis=0).div((most - least).replace(0, 1), axis=0).mul(100).round(2)
    return [None if np.isnan(row).any() else tuple(map(float, row)) for row in placed.to_numpy(dtype=float)]


def read_tables(folder: Path) -> list[Table]:
    """Read every CSV and parquet below ``folder`` with the record beside it, if there is one.

    Raises:
        ValueError: a file that is no table, a malformed record.
    """
    found = (path for path in sorted(folder.rglob("*.*")) if path.suffix in TABLES)
    return [_table(path, path.parent.relative_to(folder).as_posix()) for path in found]


def _table(path: Path, run: str) -> Table:
    content, record = read_table(path), path.with_suffix(".json")
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


def number(value: float | int | None, digits: int = 3) -> str:
    """Write a number for a table: a dash for none, integers with thousands apart, a true minus."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    small = value != 0 and abs(value) < 10**-digits
    written = f"{value:.2e}" if small or abs(value) >= 1e6 else f"{value:.{digits}f}"
    return written.replace("-", "−")


def _plain(value: Any) -> Any:
    """Return a number or text of Python; nothing for what is missing."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return ", ".join(map(str, value))
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def read_table(file: Path) -> pd.DataFrame:
    """Read a CSV or parquet file; one that cannot be read is refused with its name."""
    try:
        return pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{file.name} cannot be read as a table: {str(error).splitlines()[0]}") from error
