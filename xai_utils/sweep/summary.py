"""Sum up the table of a sweep: mean and interval by method, and what is left when a null's score is taken off.

``python -m xai_utils summary TABLE.parquet --out figures/real/NAME`` writes ``NAME.csv``, ``NAME.md`` for
readers and, beside them, the JSON of what made it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xai_utils import files, stats
from xai_utils.sweep import parts

GROUP = ["model", "set", "metric", "operator"]
SEED = 0  # of the resampling


def summary(table: pd.DataFrame, null: str = "random", level: float = 0.95) -> pd.DataFrame:
    """Return one row for each model, set, metric, operator and method.

    Args:
        table: of a sweep, see :class:`sweep.Outcome`; rows that carry an error count as ``failed``.
        null: the method that the others are compared with, sample by sample.
        level: of the percentile bootstrap intervals over samples.

    Returns:
        ``mean``, ``low``, ``high``, ``n``; ``gain``, ``gain_low``, ``gain_high``, ``gain_n``: the same of the paired
        difference from the null, empty where the null or a second sample is missing; ``seconds`` a sample (mean).

    Raises:
        ValueError: nothing in the table has a value.
    """
    scored = table[table.error == ""]
    if not len(scored):
        raise ValueError("the table holds no scores.")
    rows = []
    for named, group in scored.groupby(GROUP, sort=False):
        nothing = group[group.method == null].set_index("sample").value
        for method, one in group.groupby("method", sort=False):
            values = one.set_index("sample").value
            gains = (values - nothing).dropna() if method != null else values.iloc[:0]
            rows.append(
                {
                    **dict(zip(GROUP, named, strict=True)),
                    "method": method,
                    **_interval(values, level, ("mean", "low", "high", "n")),
                    **_interval(gains, level, ("gain", "gain_low", "gain_high", "gain_n")),
                    "seconds": one.seconds.mean(),
                }
            )
    return pd.DataFrame(rows)


def _interval(values: pd.Series, level: float, names: tuple[str, str, str, str]) -> dict[str, float]:
    if len(values) < 2:
        only = values.iloc[0] if len(values) and names[0] == "mean" else float("nan")
        return dict(zip(names, (only, float("nan"), float("nan"), len(values)), strict=True))
    if values.nunique() == 1:
        return dict(zip(names, (values.iloc[0],) * 3 + (len(values),), strict=True))
    found = stats.mean_interval(values.to_numpy(), SEED, level)
    return dict(zip(names, (found.mean, found.low, found.high, found.n), strict=True))


def markdown(summed: pd.DataFrame, columns: Sequence[tuple[str, str]]) -> str:
    """Write one model on one set as a table: a row for each method, a column for each ``(metric, operator)``.

    Raises:
        ValueError: several models or sets.
    """
    if len(summed[["model", "set"]].drop_duplicates()) != 1:
        raise ValueError("one table is of one model on one set; choose rows first.")
    head = [" ".join(filter(None, column)) for column in columns]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in summed.method.unique():
        cells = []
        for metric, operator in columns:
            found = summed[(summed.method == method) & (summed.metric == metric) & (summed.operator == operator)]
            cells.append("–" if found.empty else "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found.iloc[0]))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pages(summed: pd.DataFrame) -> str:
    """Write a table of every model on every set: the metrics without an operator, then one table for each operator."""
    told = ["Means with 95 % bootstrap intervals over samples; `random` and the other nulls know nothing of the model."]
    for (model, label), some in summed.groupby(["model", "set"], sort=False):
        most = some.n.max()
        told.append(f"## {model} on {label}, n ≤ {most:.0f}")
        for operator in sorted(some.operator.unique()):
            metrics = some[some.operator == operator].metric.unique()
            told.append(f"Removal by {operator}:" if operator else "Without removal:")
            told.append(markdown(some, [(metric, operator) for metric in metrics]))
        counts = some.pivot_table(index="method", columns="metric", values="n", aggfunc="max", sort=False)
        fewer = counts[counts < most].stack().dropna()
        if len(fewer):
            named = ", ".join(f"{method} {metric} {n:.0f}" for (method, metric), n in fewer.items())
            told.append(f"Fewer samples: {named}.")
    return "\n\n".join(told) + "\n"


def write(table: Path, out: Path) -> None:
    """Write ``out.csv``, ``out.md`` for readers and ``out.json``, which says what made them.

    Raises:
        ValueError: no table of a sweep, or damaged.
    """
    rows, about = parts.read(table), parts.provenance(table)
    if rows is None:
        raise ValueError(f"{table.name} is no table of a sweep, or damaged.")
    summed = summary(rows)
    files.write(out.with_suffix(".csv"), summed.to_csv(index=False, float_format="%.6g"))
    files.write(out.with_suffix(".md"), f"# {out.name}\n\n{pages(summed)}")
    files.write(out.with_suffix(".json"), json.dumps(about, indent=1, sort_keys=True) + "\n")
