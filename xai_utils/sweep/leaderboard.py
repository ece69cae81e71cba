"""Read the bundled leaderboard: ranks, verdicts under ways to remove, agreement of metrics, failures, advice.

What a method is worth stands in the :mod:`standings` beside the table; here is what compares whole methods and metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_utils import files, runtime, stats
from xai_utils.evaluation import scoring
from xai_utils.evaluation.scoring import METRICS
from xai_utils.methods import nulls
from xai_utils.samples import sets
from xai_utils.stats import Ranking
from xai_utils.sweep import parts, plan, standings
from xai_utils.sweep.standings import TRUTH, chosen, direction, matched

FILE = runtime.DATA / "sweeps" / "leaderboard.parquet"
PLANS = ("leaderboard", "state_space")  #: in ``sweeps/``, of which the bundled table was made
KEY = ["model", "method", "sample", "metric", "operator"]
#: maps that know nothing of the model's answer, and the raw gradient, of pixels or of embeddings
NULLS = (*nulls.NULLS, "gradient_norm", "closed_gradient_norm")
LEFT_OUT = ("insertion",)  #: not bundled: it is deletion plus delta_af
CHEAP = ("pixel_gradient", "gradient_x_input", "closed_gradient_x_input")  #: scored again to see that nothing changed
RESAMPLES = 1000
LEVEL = 0.05


def read(file: Path = FILE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a bundled sweep, and the standings that lie beside it.

    Raises:
        ValueError: a file that is missing, cut off or no sweep; standings of another table.
    """
    table = parts.read(file)
    if table is None:
        raise ValueError(f"{file.name} is missing or damaged; `make sweep PLAN=sweeps/leaderboard.yml` makes it again.")
    beside, about = file.with_suffix(".csv"), file.with_suffix(".json")
    if not beside.is_file() or json.loads(about.read_text())["summed"]["sha256"] != files.sha256(file):
        raise ValueError(f"{beside.name} does not sum up {file.name}; `python -m xai_utils leaderboard` does it again.")
    runtime.record.data["sweep"] = f"{file.name}, {len(table)} rows"
    return table, standings.read(beside)


def bundle(sources: Sequence[Path], file: Path = FILE) -> None:
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


def overview(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return how many ``methods``, ``nulls`` and ``samples`` a model has, and how many samples ``with truth``."""
    rows = {}
    for name in models:
        mine = table[table.model == name]
        methods, known = set(mine.method), mine[mine.metric == TRUTH]
        count = len(methods & set(NULLS))
        rows[name] = (len(methods) - count, count, mine["sample"].nunique(), known["sample"].nunique())
    return pd.DataFrame.from_dict(rows, "index", columns=["methods", "nulls", "samples", "with truth"])


def ranked(table: pd.DataFrame, model: str, metric: str, operator: str = "") -> Ranking:
    """Rank the methods of a model by one metric that judges (see :func:`stats.ranking`)."""
    if not direction(metric):
        raise ValueError(f"{metric} describes a map and does not judge it.")
    wide = matched(table, model, metric, operator)
    return stats.ranking({name: wide[name] for name in wide}, direction(metric) > 0)


def outcome(table: pd.DataFrame, board: pd.DataFrame, model: str, metric: str = TRUTH) -> tuple[list[str], list[str]]:
    """Return the methods that the critical difference does not tell from the best, and those worse than a guess.

    Args:
        table: of a sweep.
        board: its standings.
        model: whose methods.
        metric: that judges.
    """
    tied = [name for name in ranked(table, model, metric).tied_with_best() if name not in NULLS]
    found = chosen(board, model, metric)
    return tied, found[(found.p < LEVEL) & (found.gain < 0)].method.tolist()


def ranks(board: pd.DataFrame, model: str, metric: str) -> dict[str, dict[str, float]]:
    """Return the mean rank of every method under every way to remove, the best first."""
    mine = board[(board.model == model) & (board.metric == metric)]
    return {str(way): one.set_index("method")["rank"].to_dict() for way, one in mine.groupby("operator")}


def operators(table: pd.DataFrame, model: str) -> list[str]:
    """Return the ways to remove that a model was scored with."""
    return sorted({str(one) for one in table[table.model == model].operator.unique()} - {""})


def judges(table: pd.DataFrame, model: str) -> list[tuple[str, str]]:
    """Return ``(metric, operator)`` of everything that judges a map of this model."""
    pairs = table[table.model == model][["metric", "operator"]].drop_duplicates().astype(str)
    known = [(one.metric, one.operator) for one in pairs.itertuples()]
    judging = [one for one in known if direction(one[0]) and one[0] != standings.FAILS]
    return sorted(judging, key=lambda one: (list(METRICS).index(one[0]), one[1]))


def agreement(
    table: pd.DataFrame, models: Sequence[str], wanted: Sequence[str], nulls: bool = False, least: int = 5
) -> pd.DataFrame:
    """Return Spearman's correlations over methods between the verdicts of metrics, a row for each ``(model, metric)``.

    Args:
        table: of a sweep.
        models: of one kind; the first with enough methods says which ways to remove there are, and those that know
            other ways are left out.
        wanted: metrics, in the order of the rows and columns; each is turned so that higher is better.
        nulls: count the null maps as methods; without them the correlation says whether metrics agree on the rest.
        least: methods that a model must have beside the nulls.
    """
    counts = overview(table, models).methods
    enough = [name for name in models if counts[name] >= least]
    pairs = [pair for name in wanted for pair in judges(table, enough[0]) if pair[0] == name]
    labels, found = [" ".join(pair).strip() for pair in pairs], {}
    for model in enough:
        if operators(table, model) == operators(table, enough[0]):
            means = [direction(metric) * matched(table, model, metric, way).mean() for metric, way in pairs]
            verdicts = pd.concat(means, axis=1, keys=labels)
            found[model] = verdicts[nulls | ~verdicts.index.isin(NULLS)].corr("spearman")
    return pd.concat(found, names=["model", "metric"])


def flips(table: pd.DataFrame, model: str, metric: str) -> tuple[int, int]:
    """Return how many pairs of methods change places between ways to remove, and how many pairs there are."""
    means = [matched(table, model, metric, way).mean().to_numpy() for way in operators(table, model)]
    signs = np.sign([np.subtract.outer(mean, mean)[np.triu_indices(len(mean), 1)] for mean in means])
    return int((signs != signs[0]).any(0).sum()), signs.shape[1]


def decided_flips(table: pd.DataFrame, model: str, metric: str, seed: int) -> tuple[int, int]:
    """Return how many pairs are ordered one way by one operator and the other way by another, both beyond doubt.

    Beyond doubt: the 95 % interval of the paired difference leaves out zero. The second number counts the pairs that at
    least two operators decide.
    """
    wides = [matched(table, model, metric, way).to_numpy() for way in operators(table, model)]
    picks = np.random.default_rng(seed).integers(0, len(wides[0]), (500, len(wides[0])))
    verdicts = []
    for wide in wides:
        draws = wide[picks].mean(1)
        low, high = np.quantile(draws[:, :, None] - draws[:, None, :], [0.025, 0.975], axis=0)
        verdicts.append(np.where(low > 0, 1, np.where(high < 0, -1, 0))[np.triu_indices(wide.shape[1], 1)])
    each = np.array(verdicts)
    clash = (each == 1).any(0) & (each == -1).any(0)
    return int(clash.sum()), int(((each != 0).sum(0) >= 2).sum())


def turned(table: pd.DataFrame, models: Sequence[str], seed: int) -> pd.DataFrame:
    """Return how often the verdict of removal on two methods depends on the way to remove, a row for each model.

    Columns: ``pairs`` of methods; ``ΔAF flips``, the share that changes places by it; ``clash`` of ``decided``, see
    :func:`decided_flips`; ``sufficiency flips``, the share that changes places by sufficiency.
    """
    rows = {}
    for name in models:
        flipped, pairs = flips(table, name, "delta_af")
        clash, decided = decided_flips(table, name, "delta_af", seed)
        rows[name] = (pairs, flipped / pairs, clash, decided, flips(table, name, "sufficiency")[0] / pairs)
    columns = ["pairs", "ΔAF flips", "clash", "decided", "sufficiency flips"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns)


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``model``, ``method``, ``share`` of samples without an answer, ``n``; those with any, worst first."""
    tried = table[(table.metric == standings.FAILS) | (table.error != "")]
    tried = tried.assign(value=tried.value.fillna(1)).groupby(["model", "method"], observed=True).value
    found = tried.agg(["mean", "size"]).rename(columns={"mean": "share", "size": "n"}).reset_index()
    return found[found.share > 0].sort_values("share", ascending=False, ignore_index=True)


def again(table: pd.DataFrame, model: str, count: int, seed: int) -> tuple[int, int]:
    """Score the first samples of a model's plan again by a cheap method, to see that the code still gives the table.

    Args:
        table: of a sweep.
        model: a model in it.
        count: samples.
        seed: of the sweep.

    Returns:
        How many rows the table has of these, and how many of them are within 0.001.
    """
    cells = (cell for name in PLANS for cell in plan.read(files.ROOT / "sweeps" / f"{name}.yml").cells)
    spec = next(cell["samples"] for cell in cells if model in cell["models"])
    some = sets.take({key: value for key, value in spec.items() if key != "name"}, 0, count)
    mine = table[table.model == model].astype({name: str for name in KEY})
    method = next(name for name in CHEAP if name in set(mine.method))
    rows = pd.DataFrame(scoring.score_shard(model, method, some, sorted(set(mine.metric)), seed))
    both = mine[mine.method == method].merge(rows, on=KEY[2:])
    return len(both), int(((both.value_x - both.value_y).abs() < 1e-3).sum())


def advice(
    table: pd.DataFrame, board: pd.DataFrame, model: str, seed: int, judged: str = TRUTH, tested: str = "delta_af"
) -> dict[str, Any]:
    """Return which method to take for a model.

    Args:
        table: of a sweep.
        board: its standings.
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
        samples better than the random map; ``removal``, under how many ways to remove, of how many, it is better than
        the random map beyond doubt (95 %); and ``n``.

    Raises:
        ValueError: nothing of the model in the table, or only nulls.
    """
    found = chosen(board, model, judged).set_index("method")
    real = [name for name in found.index if name not in NULLS]
    if not real:
        raise ValueError(f"the table has only null maps of {model}.")
    best, sign = real[0], direction(judged)
    wide = matched(table, model, judged)[real]
    worse = {name: sign * (wide[best] - wide[name]) for name in real}
    tied = tied_with(worse, best)
    choice = min(tied, key=lambda name: float(found.at[name, "seconds"]))
    removal = board[(board.model == model) & (board.metric == tested) & (board.method == choice)].gain_low > 0
    return {
        "model": model,
        "best": best,
        **found.loc[best, ["mean", "low", "high"]].to_dict(),
        "stays": stays_best(wide, sign > 0, seed),
        "tied": tied,
        "choice": choice,
        "choice_mean": found.at[choice, "mean"],
        "lost": stats.mean_interval(worse[choice], seed).high if choice != best else 0.0,
        **found.loc[choice, ["seconds", "wins"]].to_dict(),
        "removal": f"{removal.sum()}/{len(removal)}",
        "n": len(wide),
    }


def tied_with(worse: Mapping[str, pd.Series], best: str) -> tuple[str, ...]:
    """Return the methods that are not significantly worse on the samples than the best, which comes first."""
    adjusted = stats.holm({name: standings.p_of(gaps) for name, gaps in worse.items() if name != best})
    return (best, *(name for name, p in adjusted.items() if p >= LEVEL or worse[name].mean() < 0))


def stays_best(wide: pd.DataFrame, higher_is_better: bool, seed: int) -> float:
    """Return the share of resamples of ``(sample, method)`` in which the same method has the best mean rank."""
    ranks = wide.rank(axis=1, ascending=not higher_is_better).to_numpy()
    picks = np.random.default_rng(seed).integers(0, len(ranks), (RESAMPLES, len(ranks)))
    return float((ranks[picks].mean(1).argmin(1) == ranks.mean(0).argmin()).mean())


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write advice as a table, one line a model; of the tied methods only how many there are."""
    shares = dict.fromkeys(("stays", "wins"), "{:.0%}".format)
    told = pd.DataFrame(rows).assign(tied=[len(row["tied"]) for row in rows])
    return told.to_string(index=False, float_format="{:.2f}".format, formatters={**shares, "seconds": "{:.3f}".format})
