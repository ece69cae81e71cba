"""Read the table of a sweep as a leaderboard: matched samples, intervals, ranks, agreement of metrics, cost, failures.

A method that has no answer for a sample is scored there as the random map is: no answer is a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_utils import runtime, stats
from xai_utils.evaluation.scoring import METRICS
from xai_utils.metrics import agreement
from xai_utils.stats import Ranking
from xai_utils.sweep import leaderboard, parts

FILE = runtime.DATA / "sweeps" / "leaderboard.parquet"
KEY = ["model", "method", "sample", "metric", "operator"]
NULLS = ("random", "uniform", "centre", "length", "position", "pixel_gradient", "gradient_norm")
TRUTH = "average_precision"  #: the metric that stands for the truth where one is needed
LEFT_OUT = ("insertion",)  #: not bundled: it is deletion plus delta_af


def read(file: Path = FILE) -> pd.DataFrame:
    """Return the rows of a bundled sweep; ``ValueError`` for a file that is missing, cut off or no sweep."""
    table = parts.read(file)
    if table is None:
        raise ValueError(f"{file.name} is missing or damaged; `make sweep PLAN=sweeps/leaderboard.yml` makes it again.")
    runtime.record.data["sweep"] = f"{file.name}, {len(table)} rows"
    return table


def bundle(sources: Sequence[Path], file: Path = FILE) -> pd.DataFrame:
    """Put the tables of sweeps together as one small file, which says what made each of them.

    Values are rounded to four decimals and seconds to three digits; rows with an error are kept as such.

    Raises:
        ValueError: a source that is no sweep, or two rows for one sample, metric and operator.
    """
    tables, about = [], {}
    for source in sources:
        table = parts.read(source)
        if table is None:
            raise ValueError(f"{source.name} is missing, damaged or no sweep.")
        tables.append(table)
        about[source.stem] = parts.provenance(source)
    whole = pd.concat(tables, ignore_index=True)
    whole = whole[~whole.metric.isin(LEFT_OUT)]
    if (twice := whole.duplicated(KEY)).any():
        raise ValueError(f"{int(twice.sum())} rows are there twice, such as {whole[twice].iloc[0][KEY].to_dict()}.")
    small = whole[[*KEY, "value", "seconds", "error"]].sort_values(KEY).reset_index(drop=True)
    small["value"] = small.value.round(4).astype("float32")
    small["seconds"] = small.seconds.map(lambda one: float(f"{one:.2g}")).astype("float32")
    for name in (*KEY, "error"):
        small[name] = small[name].astype("category")
    parts.write(small, file, {"sweeps": about})
    return small


def matched(table: pd.DataFrame, model: str, metric: str, operator: str = "") -> pd.DataFrame:
    """Return ``(sample, method)`` values of one model, metric and operator, on the samples that the null was scored on.

    Where a method has no value, the random map's stands in.

    Raises:
        ValueError: nothing of that kind in the table.
    """
    chosen = table[(table.model == model) & (table.metric == metric) & (table.operator == operator)]
    if chosen.empty:
        raise ValueError(f"the table has no {metric} {operator} of {model}.")
    wide = chosen.pivot_table(index="sample", columns="method", values="value", observed=True)
    wide = wide[wide["random"].notna()]
    scored = table[(table.model == model) & (table.metric == "fails")]
    tried = scored.pivot_table(index="sample", columns="method", values="value", observed=True)
    whole = wide.index[tried.reindex(wide.index)[list(wide.columns)].notna().all(axis=1)]
    wide = wide.loc[whole].astype(float)
    return wide.apply(lambda column: column.fillna(wide["random"]))


def standings(table: pd.DataFrame, model: str, metric: str, operator: str, seed: int) -> pd.DataFrame:
    """Return one row for each method, best first.

    Columns: ``mean``, ``low``, ``high`` (95 %, bootstrap over samples), ``gain``, ``gain_low``, ``gain_high`` (paired
    difference from the random map, in the direction of better), ``wins`` (share of samples on which it beats the random
    map), ``p`` (Wilcoxon's signed ranks against the random map, Holm over methods), ``rank`` and ``n``.
    """
    better = _direction(metric)
    wide = matched(table, model, metric, operator)
    order, sign = stats.ranking({name: wide[name] for name in wide}, better).ranks, 1 if better else -1
    rows, raw = [], {}
    for name, rank in order.items():
        mean, gains = stats.mean_interval(wide[name], seed), sign * (wide[name] - wide["random"])
        gain, wins = stats.mean_interval(gains, seed), stats.win_rate(wide[name], wide["random"], better, seed)
        raw[name] = stats.wilcoxon_p(gains) if gains.any() else 1.0
        rows.append((name, mean.mean, mean.low, mean.high, gain.mean, gain.low, gain.high, wins.mean, rank, mean.n))
    columns = ["method", "mean", "low", "high", "gain", "gain_low", "gain_high", "wins", "rank", "n"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p=found.method.map(stats.holm(raw)))


def ranked(table: pd.DataFrame, model: str, metric: str, operator: str = "") -> Ranking:
    """Rank the methods of a model by one metric (see :func:`stats.ranking`)."""
    better = _direction(metric)
    wide = matched(table, model, metric, operator)
    return stats.ranking({name: wide[name] for name in wide}, better)


def _direction(metric: str) -> bool:
    """Return whether higher is better."""
    better = METRICS[metric].higher_is_better
    if better is None:
        raise ValueError(f"{metric} describes a map and does not judge it.")
    return better


def operators(table: pd.DataFrame, model: str) -> list[str]:
    """Return the ways to remove that a model was scored with."""
    return sorted({str(one) for one in table[table.model == model].operator.unique()} - {""})


def judges(table: pd.DataFrame, model: str) -> list[tuple[str, str]]:
    """Return ``(metric, operator)`` of everything that judges a map of this model."""
    pairs = table[table.model == model][["metric", "operator"]].drop_duplicates().astype(str)
    known = [(one.metric, one.operator) for one in pairs.itertuples()]
    order = list(METRICS)
    chosen = [one for one in known if METRICS[one[0]].higher_is_better is not None and one[0] != "fails"]
    return sorted(chosen, key=lambda one: (order.index(one[0]), one[1]))


def agreement_of(table: pd.DataFrame, model: str, pairs: Sequence[tuple[str, str]], nulls: bool = True) -> np.ndarray:
    """Return Spearman's correlation over methods between the verdicts of metrics, ``(metric, metric)``.

    Args:
        table: of a sweep.
        model: whose methods.
        pairs: ``(metric, operator)``, each turned so that higher is better.
        nulls: count the null maps as methods; without them the correlation says whether metrics agree on the rest.
    """
    means = []
    for metric, operator in pairs:
        wide = matched(table, model, metric, operator)
        mean = wide.mean() * (1 if METRICS[metric].higher_is_better else -1)
        means.append(mean if nulls else mean.drop([name for name in NULLS if name in mean.index]))
    common = sorted(set.intersection(*(set(mean.index) for mean in means)))
    rows = np.array([mean[common] for mean in means])
    return np.array([[float(agreement.spearman(one, other)) for other in rows] for one in rows])


def flips(table: pd.DataFrame, model: str, metric: str) -> tuple[int, int]:
    """Return how many pairs of methods change places between ways to remove, and how many pairs there are."""
    wides = [matched(table, model, metric, operator).mean() for operator in operators(table, model)]
    names = sorted(set.intersection(*(set(mean.index) for mean in wides)))
    signs = [np.sign(np.subtract.outer(mean[names].to_numpy(), mean[names].to_numpy())) for mean in wides]
    above = np.triu_indices(len(names), 1)
    differs = np.any([signs[0][above] != other[above] for other in signs[1:]], axis=0)
    return int(differs.sum()), len(differs)


def decided_flips(table: pd.DataFrame, model: str, metric: str, seed: int) -> tuple[int, int]:
    """Return how many pairs are ordered one way by one operator and the other way by another, both beyond doubt.

    Beyond doubt: the 95 % interval of the paired difference leaves out zero. The second number counts the pairs that at
    least two operators decide.
    """
    wides = [matched(table, model, metric, operator) for operator in operators(table, model)]
    names = sorted(set.intersection(*(set(wide) for wide in wides)))
    index = wides[0].index
    noise = np.random.default_rng(seed)
    picks = noise.integers(0, len(index), (500, len(index)))
    verdicts = []
    for wide in wides:
        draws = wide[names].to_numpy()[picks].mean(1)
        low, high = np.quantile(draws[:, :, None] - draws[:, None, :], [0.025, 0.975], axis=0)
        verdicts.append(np.where(low > 0, 1, np.where(high < 0, -1, 0)))
    above = np.triu_indices(len(names), 1)
    each = np.array([one[above] for one in verdicts])
    clash = (each == 1).any(0) & (each == -1).any(0)
    return int(clash.sum()), int(((each != 0).sum(0) >= 2).sum())


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``model``, ``method`` and ``seconds``, the median of processor time for one sample."""
    return (
        table[table.metric == "fails"].groupby(["model", "method"], observed=True).seconds.median().reset_index()
    )  # fmt: skip


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``model``, ``method``, ``share`` of samples without an answer, ``n``; those with any, worst first."""
    tried = table[table.metric == "fails"].groupby(["model", "method"], observed=True).value.agg(["mean", "size"])
    found = tried.rename(columns={"mean": "share", "size": "n"}).reset_index()
    return found[found.share > 0].sort_values("share", ascending=False, ignore_index=True)


RESAMPLES = 1000
LEVEL = 0.05


def advice(table: pd.DataFrame, model: str, seed: int, judged: str = TRUTH, tested: str = "delta_af") -> dict[str, Any]:
    """Return which method to take for a model.

    Args:
        table: of a sweep.
        model: a model in it.
        seed: of resampling.
        judged: metric that says which method is best.
        tested: metric with operators, by which the choice has to be better than the random map as well.

    Returns:
        ``best`` by the mean rank, its ``mean`` with ``low`` and ``high``, and the share of resamples of the samples in
        which it stays the one with the best mean rank (``stays``); ``tied``, the methods that cannot be told from the
        best, itself among them (Wilcoxon's signed ranks of paired differences, Holm over methods, 5 %); ``choice``,
        the cheapest of these, its mean ``choice_mean``, and ``lost``, how much worse than the best it may still be
        (upper end of the 95 % interval of the paired difference); ``seconds`` of the choice; ``wins``, its share of
        samples better than the random map; ``removal``, under how many ``ways`` to remove it is better than the
        random map beyond doubt (95 %); and ``n``.

    Raises:
        ValueError: nothing of the model in the table, or only nulls.
    """
    ranking = leaderboard.ranked(table, model, judged)
    real = [name for name in ranking.ranks if name not in NULLS]
    if not real:
        raise ValueError(f"the table has only null maps of {model}.")
    best = real[0]
    wide, better = leaderboard.matched(table, model, judged), METRICS[judged].higher_is_better
    worse = {name: (wide[best] - wide[name]) * (1 if better else -1) for name in real}
    tied = tied_with(worse, best)
    spent = leaderboard.costs(table)
    seconds = spent[spent.model == model].set_index("method").seconds
    choice = min(tied, key=lambda name: float(seconds[name]))
    lost = stats.mean_interval(worse[choice], seed).high if choice != best else 0.0
    found = leaderboard.standings(table, model, judged, "", seed).set_index("method")
    ways = leaderboard.operators(table, model)
    return {
        "model": model,
        "best": best,
        "mean": float(found.at[best, "mean"]),
        "low": float(found.at[best, "low"]),
        "high": float(found.at[best, "high"]),
        "stays": stays_best(wide[real], better, seed),
        "choice": choice,
        "choice_mean": float(found.at[choice, "mean"]),
        "tied": tied,
        "lost": lost,
        "seconds": float(seconds[choice]),
        "wins": float(found.at[choice, "wins"]),
        "removal": sum(_better(table, model, choice, tested, way, seed) for way in ways),
        "ways": len(ways),
        "n": int(found.at[best, "n"]),
    }


def tied_with(worse: Mapping[str, pd.Series], best: str) -> tuple[str, ...]:
    """Return the methods whose paired difference from the best is not significant, the best first.

    Args:
        worse: method to how much worse it is than the best on each sample.
        best: name of the best.
    """
    raw = {name: stats.wilcoxon_p(gaps) if gaps.any() else 1.0 for name, gaps in worse.items() if name != best}
    adjusted = stats.holm(raw) if raw else {}
    return (best, *(name for name, p in adjusted.items() if p >= LEVEL or worse[name].mean() < 0))


def stays_best(wide: pd.DataFrame, higher_is_better: bool | None, seed: int) -> float:
    """Return the share of bootstrap resamples in which the method with the best mean rank is the same one.

    Args:
        wide: ``(sample, method)``.
        higher_is_better: direction.
        seed: of resampling.
    """
    ranks = wide.rank(axis=1, ascending=not higher_is_better).to_numpy()
    picks = np.random.default_rng(seed).integers(0, len(ranks), (RESAMPLES, len(ranks)))
    return float((ranks[picks].mean(1).argmin(1) == ranks.mean(0).argmin()).mean())


def _better(table: pd.DataFrame, model: str, method: str, metric: str, operator: str, seed: int) -> bool:
    wide = leaderboard.matched(table, model, metric, operator)
    sign = 1 if METRICS[metric].higher_is_better else -1
    gains = sign * (wide[method] - wide["random"])
    return stats.mean_interval(gains, seed).low > 0


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write advice as a table, one line a model."""
    head = f"{'model':<16}{'best by truth':<24}{'mean [95 %]':<19}{'stays':>6}{'tied':>5}  {'cheapest of them':<24}"
    told = [f"{head}{'mean':>5}{'lost':>6}{'s':>7}{'wins':>6}{'removal':>8}{'n':>5}"]
    for row in rows:
        mean = f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        told.append(
            f"{row['model']:<16}{row['best']:<24}{mean:<19}{row['stays']:>6.0%}{len(row['tied']):>5}  "
            f"{row['choice']:<24}{row['choice_mean']:>5.2f}{row['lost']:>6.2f}{row['seconds']:>7.3f}{row['wins']:>6.0%}"
            f"{row['removal']:>6}/{row['ways']}{row['n']:>5}"
        )
    return "\n".join(told)
