"""Read the bundled leaderboard: what there is, pairs of methods, places, failures, and which method to take.

What a method is worth stands in the :mod:`standings` beside the table; what metrics and ways to remove have to do with
each other is in :mod:`agreement`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_utils import files, runtime
from xai_utils.evaluation import scoring
from xai_utils.samples import sets
from xai_utils.sweep import parts, plan, standings
from xai_utils.sweep.standings import NULL, NULLS, TRUTH, chosen, matched

FOLDER = runtime.DATA / "sweeps"
FILE = FOLDER / "leaderboard.parquet"
PLANS = ("leaderboard", "state_space", "language")  #: in ``sweeps/``, of which the bundled table was made
KEY = ["model", "method", "sample", "metric", "operator"]
LEFT_OUT = ("insertion",)  #: not bundled: it is deletion plus delta_af
CHEAP = ("pixel_gradient", "gradient_x_input", "closed_gradient_x_input")  #: scored again to see that nothing changed
RESAMPLES = 1000
PERMUTATIONS = 19999  #: of pairs: some 200 tests a model, corrected, must be able to fall below 5 %
#: two truths that are never mixed: what is known to decide the answer of this very model, because it is planted,
#: drawn or swapped; and what people marked as decisive, whatever the model reads
CAUSE, MARKS = "known cause", "human marks"
#: bundled model -> what kind it is, and which truth its samples have
ABOUT = {
    "minilm-sst2": ("text transformer", MARKS),
    "bert12-sst2": ("text transformer", MARKS),
    "bert24-sst2": ("text transformer", MARKS),
    "attention-sst2": ("one attention layer", MARKS),
    "mamba-sst2": ("Mamba of texts", MARKS),
    "mamba-recall": ("Mamba of texts", CAUSE),
    "vit-scenes": ("vision transformer", CAUSE),
    "vit-shortcut": ("vision transformer", CAUSE),
    "resnet-scenes": ("convolutional network", CAUSE),
    "vim-scenes": ("Vision Mamba", CAUSE),
    "smollm2": ("language model", CAUSE),
}


def read(file: Path = FILE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a bundled sweep, and the standings that lie beside it.

    Raises:
        ValueError: a file that is missing, cut off or no sweep; standings of another table.
    """
    table = rows(file)
    beside, about = file.with_suffix(".csv"), file.with_suffix(".json")
    if not beside.is_file() or json.loads(about.read_text(encoding="utf-8"))["summed"]["sha256"] != files.sha256(file):
        raise ValueError(f"{beside.name} does not sum up {file.name}; `python -m xai_utils leaderboard` does it again.")
    return table, standings.read(beside)


def rows(file: Path) -> pd.DataFrame:
    """Return the rows of a bundled sweep, such as ``FOLDER / "sanity.parquet"``; ``ValueError`` for a damaged file."""
    table = parts.read(file)
    if table is None:
        raise ValueError(f"{file.name} is missing or damaged; `make sweep PLAN=sweeps/{file.stem}.yml` makes it again.")
    runtime.record.data[f"sweep {file.stem}"] = f"{file.name}, {len(table)} rows"
    return table


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


def with_truth(table: pd.DataFrame, truth: str) -> list[str]:
    """Return the models of a table whose truth is :data:`CAUSE` or :data:`MARKS`."""
    present = set(table.model)
    return [name for name, (_, own) in ABOUT.items() if own == truth and name in present]


def pairs(table: pd.DataFrame, models: Sequence[str], metric: str = TRUTH) -> pd.DataFrame:
    """Compare every two methods of every model on the same samples.

    Returns:
        One row a pair: ``model``, ``one``, ``other``, and how much better ``one`` is: ``gap`` with ``low`` and ``high``
        (95 %), and ``p`` of a sign-change permutation test, corrected by Holm over the pairs of the model.
    """
    found = []
    for model in models:
        wide = standings.direction(metric) * matched(table, model, metric)
        drawn = pd.DataFrame(_resampled(wide, np.random.default_rng(standings.SEED)), columns=wide.columns)
        gaps = pd.DataFrame({f"{one} {other}": wide[one] - wide[other] for one, other in combinations(wide, 2)})
        again = np.stack([drawn[one] - drawn[other] for one, other in combinations(wide, 2)])
        low, high = np.quantile(again, [0.025, 0.975], axis=1)
        told = pd.DataFrame({"gap": gaps.mean(), "low": low, "high": high, "p": standings.p_values(gaps, PERMUTATIONS)})
        names = pd.DataFrame(combinations(wide, 2), columns=["one", "other"]).assign(model=model)
        found.append(pd.concat([names, told.reset_index(drop=True)], axis=1))
    return pd.concat(found, ignore_index=True)[["model", "one", "other", "gap", "low", "high", "p"]]


def above_nulls(found: pd.DataFrame, boards: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Say whether the best method of each model beats the null that comes nearest to it.

    Args:
        found: of :func:`pairs`.
        boards: model to its standings by the same metric.

    Returns:
        One row a model: ``model``, ``method``, ``null``, ``gap``, by how much the method is better, with ``low`` and
        ``high``, and ``p``, which is corrected for all pairs of the model, so both may be chosen after looking.
    """
    rows = []
    for model, board in boards.items():
        null = board.method.isin(NULLS)
        best = {"method": board[~null].method.iloc[0], "null": board[null].method.iloc[0]}
        own = found[(found.model == model) & found.one.isin(best.values()) & found.other.isin(best.values())].iloc[0]
        low, high, sign = (own.low, own.high, 1) if own.one == best["method"] else (-own.high, -own.low, -1)
        rows.append({"model": model, **best, "gap": sign * own.gap, "low": low, "high": high, "p": own.p})
    return pd.DataFrame(rows)


def places(table: pd.DataFrame, model: str, seed: int, metric: str = TRUTH) -> pd.DataFrame:
    """Return the place of every method of a model, and how sure it is.

    Returns:
        One row a method, the best first: ``place``, where 1 is best; ``low`` and ``high``, between which it lies in
        95 % of resamples of the samples; and ``first``, the share of resamples in which it is the best of those that
        are no nulls.
    """
    wide = standings.direction(metric) * matched(table, model, metric)
    means = _resampled(wide, np.random.default_rng(seed))
    ranks = pd.DataFrame(means, columns=wide.columns).rank(axis=1, ascending=False)
    real = [name for name in wide if name not in NULLS]
    first = ranks[real].idxmin(axis=1).value_counts(normalize=True)
    found = pd.DataFrame({"place": wide.mean().rank(ascending=False), "low": ranks.quantile(0.025)})
    found = found.assign(high=ranks.quantile(0.975), first=first).fillna({"first": 0.0})
    return found.sort_values("place").rename_axis("method").reset_index()


def _resampled(wide: pd.DataFrame, noise: np.random.Generator, draws: int = RESAMPLES) -> np.ndarray:
    """Return means ``(draw, method)`` of resampled samples; those that share a background are drawn together."""
    own = pd.factorize(pd.Index(standings.shared(wide)))[0]
    sums = np.stack([np.bincount(own, column) for column in wide.to_numpy().T], axis=1)
    sizes = np.bincount(own)
    picks = noise.integers(0, len(sizes), (draws, len(sizes)))
    return np.asarray(sums[picks].sum(1) / sizes[picks].sum(1)[:, None])


def kinds(table: pd.DataFrame, board: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return how well each method does on the models of one kind, and how sure that is.

    The unit is the *skill*: how far a method gets from the random map (0) to a perfect one (1), by average precision.

    Args:
        table: of a sweep.
        board: its standings.
        seed: of resampling.

    Returns:
        One row for each kind of model and method that all its models have, best first: ``kind``, ``truth``,
        ``models``, their number; ``method``; ``skill``, the mean over models; ``low`` and ``high``, its 95 % interval
        when models and samples are drawn again (of one model only samples, which says nothing about another one);
        ``worst``, the model on which it is least; ``tied``, on how many models it is not told from the best; and
        ``first``, the share of resamples in which it is the best.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, about in ABOUT.items():
        if name in set(table.model):
            groups.setdefault(about, []).append(name)
    found = [_of_kind(table, board, names, seed).assign(kind=key[0], truth=key[1]) for key, names in groups.items()]
    if not found:
        raise ValueError("the table holds no model whose kind is known.")
    columns = ["kind", "truth", "models", "method", "skill", "low", "high", "worst", "tied", "first"]
    return pd.concat(found, ignore_index=True)[columns]


def _of_kind(table: pd.DataFrame, board: pd.DataFrame, models: Sequence[str], seed: int) -> pd.DataFrame:
    noise = np.random.default_rng(seed)
    skills = [_skill(matched(table, name, TRUTH)) for name in models]
    names = [name for name in skills[0] if all(name in one for one in skills)]
    means = pd.DataFrame([one[names].mean() for one in skills])
    draws = np.stack([_resampled(one[names], noise) for one in skills])
    picks = noise.integers(0, len(models), (RESAMPLES, len(models)))
    drawn = draws[picks, np.arange(RESAMPLES)[:, None]].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    first = np.bincount(drawn.argmax(1), minlength=len(names)) / RESAMPLES
    boards = [chosen(board, name, TRUTH).set_index("method") for name in models]
    tied = [sum(bool(one.at[name, "tied"]) for one in boards) for name in names]
    told = {"method": names, "skill": means.mean(), "low": low, "high": high, "worst": means.min(), "tied": tied}
    found = pd.DataFrame({**told, "first": first, "models": len(models)})
    return found.sort_values("skill", ascending=False)


def _skill(wide: pd.DataFrame) -> pd.DataFrame:
    """Return average precision ``(sample, method)`` in units of what lies between the random and a perfect map."""
    real = [name for name in wide if name not in NULLS]
    return wide[real].sub(wide[NULL], axis=0) / (1 - wide[NULL].mean())


def for_kind(found: pd.DataFrame) -> pd.DataFrame:
    """Sum up :func:`kinds` as an answer, a row for each kind of model.

    Columns: ``kind``, ``truth``, ``models``, ``take`` the method of the best skill, its ``skill`` with ``low`` and
    ``high``, ``first`` as the certainty that it is the best, and ``or``, the others that are tied with the best on all
    models of the kind.
    """
    rows = []
    for _, own in found.groupby(["kind", "truth"], sort=False):
        best = own.iloc[0]
        others = own[(own.tied == own.models) & (own.method != best.method)].method
        told = best[["kind", "truth", "models", "skill", "low", "high", "first"]].to_dict()
        rows.append({**told, "take": best.method, "or": ", ".join(others)})
    columns = ["kind", "truth", "models", "take", "skill", "low", "high", "first", "or"]
    return pd.DataFrame(rows)[columns]


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
    spec = next(cell.samples for cell in cells if model in cell.models)
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
        ``best`` by its mean, which is ``mean`` with ``low`` and ``high``; ``first``, the share of resamples of the
        samples in which it stays the best; ``tied``, the methods that the standings do not tell from the best, itself
        among them; ``choice``, the cheapest of these, its ``choice_mean``, and ``lost``, how much worse than the best
        it may still be (upper end of the 95 % interval of the paired difference); ``seconds`` of the choice; ``wins``,
        its share of samples better than the random map; ``removal``, under how many ways to remove, of how many, it is
        better than the random map (Holm, 5 %); and ``n``.

    Raises:
        ValueError: nothing of the model in the table, or only nulls.
    """
    found = chosen(board, model, judged).set_index("method")
    real = [name for name in found.index if name not in NULLS]
    if not real:
        raise ValueError(f"the table has only null maps of {model}.")
    best = real[0]
    tied = [name for name in real if name == best or found.at[name, "tied"]]
    choice = min(tied, key=lambda name: float(found.at[name, "seconds"]))
    removal = board[(board.model == model) & (board.metric == tested) & (board.method == choice)]
    better = (removal.gain > 0) & (removal.p < 1 - standings.LEVEL)
    first = places(table, model, seed, judged).set_index("method")["first"]
    return {
        "model": model,
        "best": best,
        **found.loc[best, ["mean", "low", "high"]].to_dict(),
        "first": float(first[best]),
        "tied": tuple(tied),
        "choice": choice,
        "choice_mean": found.at[choice, "mean"],
        "lost": 0.0 if choice == best else float(found.at[choice, "behind_high"]),
        **found.loc[choice, ["seconds", "wins"]].to_dict(),
        "removal": f"{better.sum()}/{len(better)}",
        "n": int(found.at[best, "n"]),
    }


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write advice as a table, one line a model; of the tied methods only how many there are."""
    shares = dict.fromkeys(("first", "wins"), "{:.0%}".format)
    told = pd.DataFrame(rows).assign(tied=[len(row["tied"]) for row in rows])
    return told.to_string(index=False, float_format="{:.2f}".format, formatters={**shares, "seconds": "{:.3f}".format})
