"""Sum up the table of a sweep: the one rule by which notebook, report, summary and README say what a method is worth.

Methods are compared on the same samples: those on which every one was tried and the random map has a value. Where a
method has no answer (an empty map, an error), the random map's value stands in, because no answer is a guess. A method
that never answers has a row like any other. One pair of tests decides everything: sign-change permutation tests of mean
paired differences, from the random map and from the best method, each corrected by Holm over the methods. Samples that
share a background (:func:`sets.cluster`) are drawn and turned together. A row of the standings says, for one metric and
way to remove:

===========  ===========================================================================================================
better       ``"higher"`` or ``"lower"``; empty for a metric that describes a map and does not judge it
method       best mean first
mean         over samples; ``low`` and ``high`` are the ends of its 95 % interval (percentile bootstrap)
gain         mean paired difference from the random map, in the direction of better, from ``gain_low`` to ``gain_high``
wins         share of samples on which the method is better than the random map; a tie counts as half
p            two-sided, of the test that the gain is not zero
behind       mean paired difference from the best method, from ``behind_low`` to ``behind_high``
p_behind     two-sided, of the test that it is not zero
tied         whether that test does not tell the method from the best at 5 %; the best is tied with itself
failed       share of samples without an answer
n            samples
seconds      of processor time for one sample, median
===========  ===========================================================================================================
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_utils import files, stats
from xai_utils.evaluation.scoring import METRICS
from xai_utils.methods import METHODS
from xai_utils.samples import sets
from xai_utils.sweep import parts

NULL = "random"  #: the map that stands in for no answer, and that gains are counted from
TRUTH = "average_precision"  #: the metric that stands for the truth where one is needed
FAILS = "fails"  #: no standings of it: it is the column ``failed``
SEED, LEVEL, PERMUTATIONS = 0, 0.95, 4999  #: of the resampling, and of the tests
#: maps made without asking the model anything: of chance, of the place, or of the input alone. What a method has to
#: beat. A gradient's length asks the model for its answer, so it is a method, however simple.
NULLS = tuple(name for name, one in METHODS.items() if one.family == "null" and not one.asks)
PLACES = ("model", "set")
COLUMNS = (
    "better", "method", "mean", "low", "high", "gain", "gain_low", "gain_high", "wins", "p", "behind", "behind_low",
    "behind_high", "p_behind", "tied", "failed", "n", "seconds",
)  # fmt: skip


def direction(metric: str) -> int:
    """Return 1 where higher is better, -1 where lower is, 0 for a metric that does not judge or is not known."""
    better = METRICS[metric].higher_is_better if metric in METRICS else None
    return 0 if better is None else 1 if better else -1


def matched(table: pd.DataFrame, model: str, metric: str, operator: str = "") -> pd.DataFrame:
    """Return values ``(sample, method)`` of one model by one metric and operator, none missing.

    Raises:
        ValueError: nothing of that kind in the table, or no random map.
    """
    mine = table[table.model == model]
    chosen = mine[(mine.metric == metric) & (mine.operator == operator) & (mine.error == "")]
    if chosen.empty:
        raise ValueError(f"the table has no {metric} {operator} of {model}.")
    return _filled(_values(chosen, _tried(mine)))


def _tried(table: pd.DataFrame) -> pd.DataFrame:
    """Return whether ``(sample, method)`` has any row: scores, or an error."""
    return table.groupby(["sample", "method"], observed=True).size().unstack().notna()


def _values(chosen: pd.DataFrame, tried: pd.DataFrame) -> pd.DataFrame:
    """Return values ``(sample, method)``, NaN for no answer, on the samples that all are compared on."""
    if NULL not in tried:
        raise ValueError(f"the table has no {NULL!r} map to compare with; add it to the plan, what is done is kept.")
    values = chosen.pivot_table(index="sample", columns="method", values="value", observed=True).astype(float)
    values = values.reindex(columns=tried.columns)[tried.reindex(values.index).all(axis=1)]
    return values[values[NULL].notna()]


def _filled(values: pd.DataFrame) -> pd.DataFrame:
    """Put the random map's value where a method has none."""
    return values.apply(lambda column: column.fillna(values[NULL]))


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each model, set (where the table has sets), metric, operator and method.

    Args:
        table: of a sweep, see :class:`runner.Outcome`.

    Raises:
        ValueError: nothing in the table has a value, or there is no random map.
    """
    places = [name for name in PLACES if name in table]
    found = []
    for place, mine in table.groupby(places, observed=True, sort=False):
        tried, seconds = _tried(mine), mine.groupby("method", observed=True).seconds.median()
        scored = mine[(mine.error == "") & (mine.metric != FAILS)]
        for pair, chosen in sorted(scored.groupby(["metric", "operator"], observed=True), key=_place):
            one = summed(_values(chosen, tried), direction(pair[0]))
            named = zip([*places, "metric", "operator"], [*place, *pair], strict=True)
            found.append(one.assign(**dict(named), seconds=one.method.map(seconds).astype(float)))
    if not found:
        raise ValueError("the table holds no scores.")
    return pd.concat(found, ignore_index=True)[[*places, "metric", "operator", *COLUMNS]]


def _place(group: tuple[tuple[str, str], Any]) -> tuple[bool, int, str, str]:
    """Sort the truth first, then as the metrics are listed."""
    metric, operator = group[0]
    return metric != TRUTH, list(METRICS).index(metric) if metric in METRICS else len(METRICS), metric, operator


def summed(values: pd.DataFrame, sign: int) -> pd.DataFrame:
    """Sum up one metric (see the module), best method first.

    Args:
        values: ``(sample, method)``, NaN for no answer.
        sign: from :func:`direction`.
    """
    wide = _filled(values)
    found = intervals(wide, "mean", "low", "high").assign(failed=values.isna().mean(), n=len(wide))
    found["better"] = {1: "higher", -1: "lower", 0: ""}[sign]
    if sign:
        gains, best = sign * wide.sub(wide[NULL], axis=0), (sign * wide.mean()).idxmax()
        behind = sign * wide.rsub(wide[best], axis=0)
        found = found.join(intervals(gains, "gain", "gain_low", "gain_high"))
        found = found.join(intervals(behind, "behind", "behind_low", "behind_high"))
        found = found.assign(wins=(np.sign(gains) + 1).mean() / 2, p=p_values(gains), p_behind=p_values(behind))
        found["tied"] = found.p_behind >= 1 - LEVEL
        found = found.sort_values("behind", kind="stable")
    return found.rename_axis("method").reset_index().reindex(columns=COLUMNS)


def shared(wide: pd.DataFrame) -> list[str]:
    """Return the cluster of every sample of ``(sample, method)``, see :func:`sets.cluster`."""
    return [sets.cluster(str(name)) for name in wide.index]


def intervals(wide: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return mean, low and high of each column, under the names given; one sample has no interval."""
    if len(wide) < 2:
        return wide.mean().to_frame(names[0]).reindex(columns=names)
    found = {name: stats.mean_interval(wide[name], SEED, LEVEL, clusters=shared(wide)) for name in wide}
    return pd.DataFrame.from_dict({one: (i.mean, i.low, i.high) for one, i in found.items()}, "index", columns=names)


def p_values(gaps: pd.DataFrame, permutations: int = PERMUTATIONS) -> pd.Series:
    """Test the columns of paired differences as one family; 1 where all are zero, which is no test, or one sample.

    The smallest p is 2 / (1 + ``permutations``) times the number of columns: take enough for a large family.
    """
    tested = {name: gaps[name].tolist() for name in gaps if gaps[name].any() and len(gaps) > 1}
    adjusted = stats.holm(stats.permutation_ps(tested, SEED, permutations, shared(gaps)))
    return pd.Series({name: adjusted.get(name, 1.0) for name in gaps})


def chosen(found: pd.DataFrame, model: str, metric: str, operator: str = "") -> pd.DataFrame:
    """Return the standings of one model by one metric and operator; ``ValueError`` where there are none."""
    some = found[(found.model == model) & (found.metric == metric) & (found.operator == operator)]
    if some.empty:
        raise ValueError(f"there are no standings of {model} by {metric} {operator}".rstrip() + ".")
    return some.reset_index(drop=True)


def read(file: Path) -> pd.DataFrame:
    """Return standings that :func:`write` has written."""
    words = ("operator", "better")
    return pd.read_csv(file, dtype=dict.fromkeys(words, str)).fillna(dict.fromkeys(words, ""))


def write(table: Path, out: Path, readers: bool = False) -> pd.DataFrame:
    """Sum up the file of a sweep as ``out.csv``, say what made it in ``out.json``, and return the rows.

    Args:
        table: of a sweep.
        out: folder and name, without an ending.
        readers: also write tables for readers, ``out.md``.

    Raises:
        ValueError: no table of a sweep, or damaged.
    """
    rows, about = parts.read(table), parts.provenance(table)
    if rows is None or about is None:
        raise ValueError(f"{table.name} is no table of a sweep, or damaged.")
    found = standings(rows)
    about["summed"] = {"file": table.name, "sha256": files.sha256(table), "seed": SEED, "level": LEVEL}
    contents = {"csv": found.to_csv(index=False, float_format="%.5g"), "json": json.dumps(about, indent=1) + "\n"}
    if readers:
        contents["md"] = f"# {out.name}\n\n{pages(found)}"
    files.write_together(out.parent, {f"{out.name}.{ending}": text.encode() for ending, text in contents.items()})
    return found


def pages(found: pd.DataFrame) -> str:
    """Write a table of every model on every set: the metrics without an operator, then one table for each operator."""
    lines = [
        f"Means with {100 * LEVEL:g} % bootstrap intervals over samples; `random` and other nulls know nothing of the "
        "model. Where a method has no answer, the random map's value stands in."
    ]
    for place, some in found.groupby([name for name in PLACES if name in found], sort=False):
        lines.append(f"## {' on '.join(place)}")
        for operator, one in some.groupby("operator"):
            lines += [f"Removal by {operator}:" if operator else "Without removal:", markdown(one)]
    return "\n\n".join(lines) + "\n"


def markdown(found: pd.DataFrame) -> str:
    """Write one model on one set under one operator as a table: a row for each method, a column for each metric."""
    named = found.assign(metric=[f"{metric} (n = {n})" for metric, n in zip(found.metric, found.n, strict=True)])
    cells = named.assign(told=named.apply(told, axis=1)).pivot(index="method", columns="metric", values="told")
    cells = cells.loc[named.method.unique(), named.metric.unique()].reset_index()
    rows = [cells.columns, ["---"] * len(cells.columns), *cells.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def told(row: pd.Series) -> str:
    """Write a mean with its interval, and the share without an answer where there is one."""
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**row) + (f", no answer {row.failed:.0%}" if row.failed else "")
