"""Which of several maps of the same samples is better, and how sure is that? Paired differences, intervals, tests.

Works on the tables of :func:`judged.judge`: a row for each sample, columns ``(map, measure)``; and on what comes of
them, numbers by any key, one for each sample, NaN where a sample has none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from xai_utils import stats

Key = TypeVar("Key", bound=Hashable)
Numbers = Mapping[Key, ArrayLike]


def differences(
    table: pd.DataFrame, pairs: Iterable[tuple[str, str]], measures: Mapping[str, int]
) -> dict[tuple[str, str, str], np.ndarray]:
    """Return how much better one map is than another on every sample, by ``(one, other, measure)``.

    Args:
        table: from :func:`judged.judge`.
        pairs: of maps.
        measures: to 1 where more is better, to -1 where less is.

    Raises:
        ValueError: a map or a measure that the table does not hold.
    """
    if table.empty:
        return {}
    found = {}
    for one, other in pairs:
        for measure, sign in measures.items():
            for name in (one, other):
                if (name, measure) not in table:
                    raise ValueError(f"the table holds no {measure} of {name}; it holds {list(table.columns)}.")
            found[one, other, measure] = sign * (table[one, measure] - table[other, measure]).to_numpy()
    return found


def intervals(
    numbers: Numbers[Key], seed: int, level: float = 0.95, resamples: int = 2000,
    clusters: Sequence[Hashable] | None = None,
) -> dict[Key, stats.Interval]:  # fmt: skip
    """Return each mean over samples with its bootstrap interval; a key without any sample is left out.

    Args and errors as in :func:`stats.mean_interval`; samples that are NaN are left out, with their clusters.
    """
    found = {}
    for key, values in numbers.items():
        there = ~np.isnan(np.asarray(values, dtype=float))
        own = None if clusters is None else [one for one, kept in zip(clusters, there, strict=True) if kept]
        if there.any():
            found[key] = stats.mean_interval(_there(values).tolist(), seed, level, resamples, own)
    return found


def family(
    *sets: tuple[Numbers[Key], Sequence[Hashable] | None], seed: int, permutations: int = 9999
) -> dict[Key, stats.Gain]:
    """Sum up one family of tests that need not be on the same samples, such as those of several models.

    Args:
        sets: differences by key, one for each sample of the set, and the cluster of each of these samples, or ``None``;
            no key in two sets.
        seed: of bootstraps and permutations.
        permutations: drawn at most, see :func:`stats.permutation_ps`.

    Returns:
        Key to mean, interval and p-value, corrected over all sets by Holm's method. Differences that are zero
        throughout are no test: they get 1 and do not count.
    """
    found: dict[Key, stats.Interval] = {}
    p: dict[Key, float] = {}
    keys = [key for numbers, _ in sets for key in numbers]
    if len(set(keys)) < len(keys):
        raise ValueError("two sets have tests of the same name; one family knows each test once.")
    for numbers, clusters in sets:
        rows = {key: np.asarray(values, dtype=float).tolist() for key, values in numbers.items()}
        found |= {key: stats.mean_interval(row, seed, clusters=clusters) for key, row in rows.items()}
        asked = {key: row for key, row in rows.items() if any(row)}
        named = {str(n): row for n, row in enumerate(asked.values())}
        p |= dict(zip(asked, stats.permutation_ps(named, seed, permutations, clusters).values(), strict=True))
    adjusted = stats.holm({str(n): one for n, one in enumerate(p.values())})
    corrected = dict(zip(p, adjusted.values(), strict=True))
    return {key: stats.Gain(one, corrected.get(key, 1.0)) for key, one in found.items()}


def p_values(differences: Numbers[Key], seed: int, permutations: int = 9999) -> dict[Key, float]:
    """Test a family of mean differences against zero: sign-change permutation tests, corrected by Holm's method.

    Args:
        differences: by key, one for each sample, NaN where there is none.
        seed: of the permutations.
        permutations: drawn at most, see :func:`stats.permutation_ps`.

    Returns:
        Key to adjusted p-value. Differences that are zero throughout are no test: they get 1 and do not count.
    """
    tested = {str(n): _there(values) for n, values in enumerate(differences.values())}
    tested = {name: one for name, one in tested.items() if one.any()}
    found: dict[str, float] = {}
    for count in {len(one) for one in tested.values()}:
        some = {name: one.tolist() for name, one in tested.items() if len(one) == count}
        found |= stats.permutation_ps(some, seed, permutations)
    adjusted = stats.holm({name: found[name] for name in tested})
    return {key: adjusted.get(str(n), 1.0) for n, key in enumerate(differences)}


def agreement(
    table: pd.DataFrame, truth: str, measures: Mapping[str, int], seed: int, draws: int = 2000
) -> pd.DataFrame:
    """Say which measures rank maps as a known truth ranks them: Spearman's correlation over the maps' means.

    Args:
        table: a row for each sample, columns ``(map, measure)``, such as from :func:`scoring.by_every_metric`.
        truth: measure that is right by what is known, more is better.
        measures: to 1 where more is better, to -1 where less is.
        seed: of the bootstraps.
        draws: of each bootstrap.

    Returns:
        A row for each measure: ``"rho"``, 1 where it ranks as the truth does; ``"low"`` and ``"high"``, bounds of 95 %
        where samples are drawn anew (the same maps on other samples); ``"low, maps too"`` and ``"high, maps too"``,
        where the maps are drawn anew as well (other maps, of which there are few).

    Raises:
        ValueError: a measure that is not there for every map and sample, or less than four maps.
    """
    maps = list(dict.fromkeys(label for label, _ in table))
    if len(maps) < 4:
        raise ValueError(f"{len(maps)} maps are given; expected 4 at least, whose order can agree.")
    known, noise = {}, np.random.default_rng(seed)
    for measure, sign in {truth: 1, **measures}.items():
        missing = [one for one in maps if (one, measure) not in table or table[one, measure].isna().any()]
        if missing:
            raise ValueError(f"the measure {measure!r} of {missing[0]!r} is not there for every sample.")
        known[measure] = sign * np.stack([table[one, measure].to_numpy() for one in maps])
    drawn = noise.multinomial(len(table), np.full(len(table), 1 / len(table)), draws) / len(table)
    chosen = _chosen(noise, len(maps), draws)
    right, rows = known[truth], {}
    for measure in measures:
        means = [one @ drawn.T for one in (right, known[measure])]
        both = [np.take_along_axis(one.T, chosen, 1) for one in means]
        samples, maps_too = _rhos(*(one.T for one in means)), _rhos(*both)
        rho = _rhos(right.mean(1)[None], known[measure].mean(1)[None])[0]
        bounds = [np.nanquantile(one, bound) for one in (samples, maps_too) for bound in (0.025, 0.975)]
        rows[measure] = [rho, *bounds]
    return pd.DataFrame(rows, index=["rho", "low", "high", "low, maps too", "high, maps too"]).T


def _chosen(noise: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """Draw maps anew, ``(draw, map)``; a draw has three different ones at least."""
    found = noise.integers(count, size=(draws, count))
    while (few := np.array([len(set(row)) < 3 for row in found.tolist()])).any():
        found[few] = noise.integers(count, size=(int(few.sum()), count))
    return found


def _rhos(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of every row, NaN where a row ranks nothing."""
    ranks = [rankdata(rows, axis=1) - (rows.shape[1] + 1) / 2 for rows in (one, other)]
    spread = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return np.divide((ranks[0] * ranks[1]).sum(1), spread, out=np.full(len(one), np.nan), where=spread > 0)


def signs(intervals: Mapping[Key, stats.Interval], p: Mapping[Key, float], level: float = 0.05) -> dict[Key, str]:
    """Say of each tested difference whether it is better (``"+"``), worse (``"-"``) or undecided (``"."``)."""
    return {key: "." if one >= level else "+" if intervals[key].mean > 0 else "-" for key, one in p.items()}


def _there(values: ArrayLike) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    return data[~np.isnan(data)]
