"""Do metrics of removal rank methods as the truth does, and do ways to remove agree? Correlations with their intervals.

A model is never dropped because it knows other ways to remove than another: the verdict of a metric is its mean over
the ways that a model knows. Null maps are left out, so that nothing is won by telling a method from noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from xai_utils import stats
from xai_utils.sweep import standings
from xai_utils.sweep.standings import NULLS, TRUTH, direction, matched

#: metrics that ask the model, and two others of the truth: an upper bound of what agreement can be expected
WANTED = (
    "delta_af", "comprehensiveness", "sufficiency", "aopc", "log_odds", "infidelity", "mass", "hit",
)  # fmt: skip
DRAWS = 1000
PERMUTATIONS = 4999
LEAST = 5  #: methods that a model must have, or a rank correlation over them says nothing


def operators(table: pd.DataFrame, model: str) -> list[str]:
    """Return the ways to remove that a model was scored with."""
    return sorted({str(one) for one in table[table.model == model].operator.unique()} - {""})


@dataclass(frozen=True)
class Verdicts:
    """What metrics say of the methods of one model, turned so that higher is better.

    Attributes:
        values: metric to ``(sample, method)``; a sample that a metric has no value for is NaN.
        methods: without the nulls.
        clusters: of each sample, see :func:`standings.shared`.
    """

    values: dict[str, np.ndarray]
    methods: tuple[str, ...]
    clusters: tuple[str, ...]

    def means(self) -> dict[str, np.ndarray]:
        """Return the verdict of each metric on every method, ``(method,)``."""
        return {name: np.nanmean(one, axis=0) for name, one in self.values.items()}


def verdicts(table: pd.DataFrame, model: str, wanted: Sequence[str] = WANTED) -> Verdicts:
    """Return what the truth and each metric wanted say of a model's methods, over all its ways to remove."""
    mine = table[table.model == model]
    found = {}
    for metric in (TRUTH, *wanted):
        ways = sorted({str(one) for one in mine[mine.metric == metric].operator.unique()})
        each = [direction(metric) * matched(mine, model, metric, way) for way in ways]
        found[metric] = sum(each[1:], each[0]) / len(each)
    names = [name for name in found[TRUTH] if name not in NULLS]
    samples = sorted(set().union(*(one.index for one in found.values())))
    values = {metric: one[names].reindex(samples).to_numpy() for metric, one in found.items()}
    return Verdicts(values, tuple(names), tuple(standings.shared(pd.DataFrame(index=samples))))


def with_truth(
    table: pd.DataFrame, models: Sequence[str], seed: int, wanted: Sequence[str] = WANTED
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlate the verdicts of metrics with the truth, over the methods of each model (Spearman).

    Args:
        table: of a sweep.
        models: of one kind of truth.
        seed: of resampling and permutations.
        wanted: metrics.

    Returns:
        One row a metric: ``rho``, the mean over models; ``low`` and ``high``, the 95 % interval when models, methods
        and samples are all drawn again; ``p``, two-sided, against methods that change places within each model (not yet
        corrected: the family is the caller's); ``models``. And one row for each model and metric, with its ``rho``,
        its number of ``methods``, and a ``reason`` where it is left out.
    """
    told = {name: verdicts(table, name, wanted) for name in models}
    kept = [name for name in models if len(told[name].methods) >= LEAST]
    if not kept:
        raise ValueError(f"none of {', '.join(models)} has {LEAST} methods beside the nulls.")
    rows = [_of_model(name, told[name], wanted) for name in models]
    noise = np.random.default_rng(seed)
    low, high = _bounds(np.stack([_drawn(told[name], wanted, noise) for name in kept]), noise)
    each = pd.concat(rows, ignore_index=True)
    means = each[each.reason == ""].groupby("metric", sort=False).rho.mean()
    ps = _permuted([told[name] for name in kept], wanted, noise, means.to_numpy())
    whole = pd.DataFrame({"rho": means, "low": low, "high": high, "p": ps, "models": len(kept)})
    return whole.rename_axis("metric").reset_index(), each


def _of_model(model: str, told: Verdicts, wanted: Sequence[str]) -> pd.DataFrame:
    means = told.means()
    count = len(told.methods)
    reason = "" if count >= LEAST else f"{count} methods, fewer than {LEAST}"
    rhos = [_spearman(means[name], means[TRUTH]) if not reason else np.nan for name in wanted]
    return pd.DataFrame({"model": model, "metric": wanted, "rho": rhos, "methods": count, "reason": reason})


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation; 0 where all of one side are equal."""
    return float((_standard(one[None]) * _standard(other[None])).sum())


def _drawn(told: Verdicts, wanted: Sequence[str], noise: np.random.Generator) -> np.ndarray:
    """Return correlations of one model ``(draw, metric)`` once its samples and its methods are drawn again."""
    times = _times(told.clusters, noise)
    methods = noise.integers(0, len(told.methods), (DRAWS, len(told.methods)))
    ranks = {}
    for name in (TRUTH, *wanted):
        known = ~np.isnan(told.values[name])
        means = times @ np.where(known, told.values[name], 0.0) / (times @ known)
        ranks[name] = _standard(np.take_along_axis(means, methods, 1))
    return np.stack([(ranks[name] * ranks[TRUTH]).sum(1) for name in wanted], axis=1)


def _times(clusters: Sequence[str], noise: np.random.Generator) -> np.ndarray:
    """Draw clusters again: how often each sample is there, ``(draw, sample)``."""
    places = pd.factorize(pd.Index(clusters))[0]
    count = places.max() + 1
    return noise.multinomial(count, np.full(count, 1 / count), DRAWS)[:, places].astype(float)


def _bounds(drawn: np.ndarray, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of the mean over models, drawn again, of correlations ``(model, draw, metric)``."""
    count = len(drawn)
    models, draws = noise.integers(0, count, (DRAWS, count)), noise.integers(0, DRAWS, (DRAWS, count))
    low, high = np.nanquantile(drawn[models, draws].mean(1), [0.025, 0.975], axis=0)
    return low, high


def _permuted(
    told: Sequence[Verdicts], wanted: Sequence[str], noise: np.random.Generator, found: np.ndarray
) -> np.ndarray:
    """Return the share of exchanges of the methods' names that correlate as much, two-sided, ``(metric,)``."""
    chance = np.zeros((PERMUTATIONS, len(wanted)))
    for own in told:
        means = own.means()
        ranks = _standard(np.stack([means[name] for name in wanted]))
        turned = noise.permuted(np.tile(_standard(means[TRUTH][None]), (PERMUTATIONS, 1)), axis=1)
        chance += turned @ ranks.T / len(told)
    more = (np.abs(chance) >= np.abs(found) - 1e-12).sum(0)
    return np.asarray((1 + more) / (1 + PERMUTATIONS))


def _standard(values: np.ndarray) -> np.ndarray:
    """Return the ranks of each row, centred and of length 1; zeros where all are equal, because nothing is ranked."""
    centred = rankdata(values, axis=1) - (values.shape[1] + 1) / 2
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def turned(table: pd.DataFrame, models: Sequence[str], seed: int, metric: str = "delta_af") -> pd.DataFrame:
    """Return a row for each pair of methods of a model: whether the way to remove decides which is better.

    Columns: ``model``, ``one``, ``other``; ``flips``, whether they change places between ways; ``deciding``, how many
    ways tell them apart beyond doubt, that is where the 95 % interval of the paired difference leaves out zero (not
    corrected for the number of pairs, so that clashes are counted rather too often); and ``clash``, whether two of
    these contradict each other.
    """
    found = [_pairs(table, name, metric, seed) for name in models]
    return pd.concat(found, ignore_index=True)


def _pairs(table: pd.DataFrame, model: str, metric: str, seed: int) -> pd.DataFrame:
    wides = [direction(metric) * matched(table, model, metric, way) for way in operators(table, model)]
    names = list(wides[0])
    upper = np.triu_indices(len(names), 1)
    signs = np.stack([np.sign(np.subtract.outer(*[wide.mean().to_numpy()] * 2))[upper] for wide in wides])
    sure = np.stack([_decided(wide, seed)[upper] for wide in wides])
    clash = (sure == 1).any(0) & (sure == -1).any(0)
    pairs = pd.DataFrame(combinations(names, 2), columns=["one", "other"])
    return pairs.assign(model=model, flips=(signs != signs[0]).any(0), deciding=(sure != 0).sum(0), clash=clash)


def _decided(wide: pd.DataFrame, seed: int) -> np.ndarray:
    """Return 1 where the method of the row is better than that of the column beyond doubt, -1 where worse, else 0."""
    values = wide.to_numpy()
    places = pd.factorize(pd.Index(standings.shared(wide)))[0]
    count = places.max() + 1
    sums = np.stack([np.bincount(places, column, count) for column in values.T], axis=1)
    sizes = np.bincount(places, minlength=count)
    picks = np.random.default_rng(seed).integers(0, count, (500, count))
    means = sums[picks].sum(1) / sizes[picks].sum(1)[:, None]
    low, high = np.quantile(means[:, :, None] - means[:, None, :], [0.025, 0.975], axis=0)
    return np.where(low > 0, 1, np.where(high < 0, -1, 0))


def counted(pairs: pd.DataFrame) -> pd.DataFrame:
    """Sum up :func:`turned`, a row for each model: ``pairs``, ``flips``, ``decided`` by two ways or more, ``clash``."""
    own = pairs.assign(decided=pairs.deciding >= 2).groupby("model", sort=False)
    return own.agg(pairs=("flips", "size"), flips=("flips", "sum"), decided=("decided", "sum"), clash=("clash", "sum"))


def clashes(pairs: pd.DataFrame, seed: int) -> stats.Interval:
    """Return the share of decided pairs on which two ways contradict each other; whole models are drawn again."""
    decided = pairs[pairs.deciding >= 2]
    return stats.mean_interval(decided.clash.astype(float).tolist(), seed, clusters=decided.model.tolist())


def orders(table: pd.DataFrame) -> pd.DataFrame:
    """Return the place of every method on every network of a table, ``(method, network)``; 1 is best, nulls left out.

    A network that was trained again (``"trained:...-N"``) is called after its seed, ``"seed N"``; the bundled one
    comes first.
    """
    found = {}
    for name in dict.fromkeys(table.model):
        means = matched(table, name, TRUTH).mean().drop(list(NULLS), errors="ignore")
        label = f"seed {name.rsplit('-', 1)[-1]}" if name.startswith("trained:") else "bundled"
        found[label] = means.rank(ascending=False)
    return pd.DataFrame(found)[sorted(found)].rename_axis("method")


def between(tables: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Correlate the order of methods on networks that differ in their seed alone (Spearman, nulls left out).

    Args:
        tables: what the networks share -> rows of a sweep of these networks on the same samples.
        seed: of resampling.

    Returns:
        One row for each: ``networks``; ``methods``; ``rho``, the mean over pairs of networks; ``low`` and ``high``, its
        95 % interval when networks, methods and samples are drawn again; ``least``, of the pair that agrees least; and
        ``best``, how many different methods are the best of some network.
    """
    rows = []
    for label, table in tables.items():
        wides = [matched(table, name, TRUTH) for name in dict.fromkeys(table.model)]
        names = [name for name in wides[0] if name not in NULLS]
        values = [wide[names].to_numpy() for wide in wides]
        pairs = [_spearman(one.mean(0), other.mean(0)) for one, other in combinations(values, 2)]
        noise = np.random.default_rng(seed)
        low, high = np.nanquantile([_other_networks(values, noise) for _ in range(DRAWS)], [0.025, 0.975])
        best = {names[int(one.mean(0).argmax())] for one in values}
        told = {"networks": len(values), "methods": len(names), "rho": np.mean(pairs), "low": low, "high": high}
        rows.append({"recipe": label, **told, "least": min(pairs), "best": ", ".join(sorted(best))})
    return pd.DataFrame(rows)


def _other_networks(values: Sequence[np.ndarray], noise: np.random.Generator) -> float:
    """Return the mean correlation over pairs of different networks, once all that can be is drawn again."""
    picks = noise.integers(0, len(values), len(values))
    methods = noise.integers(0, values[0].shape[1], values[0].shape[1])
    means = {n: values[n][noise.integers(0, len(values[n]), len(values[n]))].mean(0)[methods] for n in set(picks)}
    pairs = [(one, other) for one, other in combinations(picks, 2) if one != other]
    return float(np.mean([_spearman(means[one], means[other]) for one, other in pairs])) if pairs else np.nan
