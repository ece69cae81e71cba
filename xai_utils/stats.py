"""Numbers with their uncertainty: bootstrap intervals, permutation tests of paired differences, families of tests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from scipy.stats import (
    bootstrap,
    false_discovery_control,
    friedmanchisquare,
    permutation_test,
    rankdata,
    studentized_range,
    wilcoxon,
)
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` samples with a confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends, for :func:`claims.finding`."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


@dataclass(frozen=True)
class AgainstChance:
    """A mean with its interval, and what chance gives.

    Attributes:
        found: the mean.
        low, high: where 95 % of the means lie by chance.
        p: two-sided, how often chance is as far from its middle or farther.
    """

    found: Interval
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, found: Interval, chance: np.ndarray, middle: float = 0.0) -> AgainstChance:
        """Compare with means ``(draw,)`` drawn by chance, which lie around ``middle``."""
        low, high = np.quantile(chance, [0.025, 0.975])
        p = (1 + (np.abs(chance - middle) >= abs(found.mean - middle)).sum()) / (1 + len(chance))
        return cls(found, float(low), float(high), float(p))

    def __str__(self) -> str:
        return f"{self.found}, by chance {self.low:.2f} to {self.high:.2f}"


def mean_interval(
    values: Sequence[float],
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the mean with its percentile bootstrap interval.

    Args:
        values: one number per sample, for example paired differences.
        seed: of the resampling.
        level: confidence, in (0, 1).
        resamples: bootstrap samples.
        clusters: of each sample, what it shares with others, such as the photograph that it was drawn on; whole
            clusters are drawn then, because samples of one are not independent.

    Raises:
        ValueError: fewer than two samples or two clusters, NaN among the samples, or not one cluster for each.

    Source: Cameron, Gelbach & Miller (2008), the pairs cluster bootstrap.
    """
    data = _sample(values)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1.")
    if clusters is None:
        return bootstrap_interval((data,), np.mean, seed, level=level, resamples=resamples)
    parts = cluster_sums(data, clusters)
    found = bootstrap_interval(parts, _ratio, seed, paired=True, level=level, resamples=resamples)
    return Interval(found.mean, found.low, found.high, len(data))


def cluster_sums(data: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of each cluster's samples ``(sample,)`` and how many they are, both ``(cluster,)``."""
    place = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(clusters) != len(data) or len(place) < 2:
        raise ValueError(
            f"{len(data)} samples with {len(clusters)} clusters named, {len(place)} of them different; expected the "
            "cluster of each sample, and at least two different ones."
        )
    index = [place[name] for name in clusters]
    return np.bincount(index, data), np.bincount(index).astype(float)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis) / counts.sum(axis)


def bootstrap_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], seed: int, *, paired: bool = False,
    level: float = 0.95, resamples: int = 2000,
) -> Interval:  # fmt: skip
    """Return a statistic of one or several samples with its percentile bootstrap interval.

    Args:
        samples: each ``(member,)``, float64.
        statistic: ``(*samples, axis) -> number``, reduced along ``axis``.
        seed: of the resampling.
        paired: draw members of all samples together.
        level: confidence, in (0, 1).
        resamples: bootstrap samples.
    """
    found = bootstrap(
        samples, statistic, paired=paired, vectorized=True, confidence_level=level, n_resamples=resamples,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    members = len(samples[0]) if paired else sum(map(len, samples))
    return Interval(float(statistic(*samples, axis=-1)), float(found.low), float(found.high), members)


def rate_interval(hits: Sequence[bool], level: float = 0.95) -> Interval:
    """Return the share of hits with Wilson's interval, which stays honest at 0 and 1 where a bootstrap has no width.

    Args:
        hits: one truth value per sample.
        level: confidence, in (0, 1).

    Raises:
        ValueError: no sample.

    Source: Wilson (1927), as in statsmodels' ``proportion_confint``.
    """
    data = np.asarray(hits, dtype=bool)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"expected at least one hit or miss, got shape {data.shape}.")
    low, high = proportion_confint(int(data.sum()), len(data), 1 - level, "wilson")
    return Interval(float(data.mean()), float(low), float(high), len(data))


def permutation_p(
    differences: Sequence[float], seed: int, permutations: int = 9999, clusters: Sequence[Hashable] | None = None
) -> float:
    """Return the two-sided p-value of a mean paired difference, under exchange of the two members of each pair.

    Args and errors as in :func:`permutation_ps`, for one test.
    """
    return permutation_ps({"": differences}, seed, permutations, clusters)[""]


def permutation_ps(
    differences: Mapping[str, Sequence[float]],
    seed: int,
    permutations: int = 9999,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """Return :func:`permutation_p` of many tests on the same samples at once, by name; all see the same exchanges.

    Args:
        differences: by test, one number per sample: one method's minus the other's.
        seed: of the random sign changes; all of them are tried where there are no more than ``permutations``.
        permutations: sign changes drawn.
        clusters: as in :func:`mean_interval`; the pairs of one cluster are exchanged together.

    Raises:
        ValueError: fewer than two samples or clusters, NaN among them, or tests of different length.

    Source: Fisher's sign-change test, as in :func:`scipy.stats.permutation_test` with ``"samples"``.
    """
    if not differences:
        return {}
    rows = [_sample(values) for values in differences.values()]
    if len({len(row) for row in rows}) > 1:
        counts = {name: len(row) for name, row in zip(differences, rows, strict=True)}
        raise ValueError(f"tests on the same samples should have as many numbers each, got {counts}.")
    if clusters is not None:
        rows = [cluster_sums(row, clusters)[0] for row in rows]  # their mean is the samples' up to a factor
    test = permutation_test(
        (np.stack(rows),), np.mean, permutation_type="samples", vectorized=True, n_resamples=permutations, batch=100,
        axis=-1, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return dict(zip(differences, map(float, test.pvalue), strict=True))


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of paired differences; exact for few without ties.

    Raises:
        ValueError: fewer than two samples, NaN among them, or no difference other than zero.

    Source: Wilcoxon (1945), as in :func:`scipy.stats.wilcoxon`, which leaves differences of zero out.
    """
    data = _sample(differences)
    if not data.any():
        raise ValueError(f"all {len(data)} differences are zero: there is nothing to rank.")
    return float(wilcoxon(data).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p-values of a family of tests, by name.

    Source: Holm (1979). The same numbers as statsmodels' ``multipletests``, which collects Python's garbage on every
    call and so takes half a second in a process that holds models.
    """
    order = sorted(p_values, key=lambda name: p_values[name])
    raised = accumulate((min(1.0, (len(order) - i) * float(p_values[name])) for i, name in enumerate(order)), max)
    adjusted = dict(zip(order, raised, strict=True))
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Gain:
    """A mean paired difference as one test of a family.

    Attributes:
        interval: of the mean.
        p: two-sided, adjusted within the family (:func:`holm`).
    """

    interval: Interval
    p: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of the interval for :func:`claims.finding`, with 0 inside where the test decides nothing at 5 %."""
        low, high = self.interval.bounds
        return (low, high) if self.p < 0.05 else (min(low, 0.0), max(high, 0.0))

    def __str__(self) -> str:
        return f"{self.interval}   p = {self.p:.4f}"


def gains(
    differences: Mapping[str, Sequence[float]],
    seed: int,
    permutations: int = 9999,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Gain]:
    """Sum up a family of paired differences on the same samples: bootstrap intervals, permutation tests, Holm.

    Args and errors as in :func:`permutation_ps`; the seed is also that of every bootstrap.
    """
    adjusted = holm(permutation_ps(differences, seed, permutations, clusters))
    return {
        name: Gain(mean_interval(values, seed, clusters=clusters), adjusted[name])
        for name, values in differences.items()
    }


def _sample(values: Sequence[float]) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or len(data) < 2 or not np.isfinite(data).all():
        raise ValueError(
            f"expected at least two finite numbers, got shape {data.shape} with {np.isnan(data).sum()} NaN."
        )
    return data


@dataclass(frozen=True)
class Ranking:
    """Methods in order of their mean rank over samples.

    Attributes:
        ranks: method to mean rank, best first; 1 is best.
        critical: two mean ranks further apart than this differ (Nemenyi).
        p: of Friedman's test that all methods rank alike.
        samples: how many.
        level: of the test.
    """

    ranks: dict[str, float]
    critical: float
    p: float
    samples: int
    level: float

    def tied_with_best(self) -> tuple[str, ...]:
        """Return the methods that cannot be told from the best one, the best first."""
        best = min(self.ranks.values())
        return tuple(name for name, rank in self.ranks.items() if rank - best <= self.critical)

    def groups(self) -> list[tuple[str, ...]]:
        """Return the largest runs of methods that cannot be told from each other, best first."""
        names, values = list(self.ranks), list(self.ranks.values())
        reach = [sum(value - values[i] <= self.critical for value in values[i:]) + i for i in range(len(names))]
        return [
            tuple(names[i:end])
            for i, end in enumerate(reach)
            if end - i > 1 and (i == 0 or end > reach[i - 1])
        ]  # fmt: skip


def ranking(scores: Mapping[str, Sequence[float]], higher_is_better: bool, level: float = 0.05) -> Ranking:
    """Rank methods within every sample and compare their mean ranks.

    Args:
        scores: method to one number for each sample, the samples in the same order.
        higher_is_better: direction of the numbers; ties share their mean rank.
        level: of the critical difference.

    Raises:
        ValueError: fewer than three methods or two samples, different lengths, NaN, or a level outside (0, 1).

    Source: Demšar (2006), JMLR 7, sections 3.2.2 and 3.2.3: Friedman's test and Nemenyi's critical difference
        ``q sqrt(k (k + 1) / (6 n))``, ``q`` the studentized range over the root of 2.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1.")
    table = _table(scores)
    count, samples = table.shape
    if count < 3 or samples < 2:
        raise ValueError(f"{count} methods on {samples} samples; expected at least 3 on at least 2.")
    means = rankdata(-table if higher_is_better else table, axis=0).mean(1)
    quantile = studentized_range.ppf(1 - level, count, np.inf) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * samples)))
    alike = bool((table == table[0]).all())
    p = 1.0 if alike else float(friedmanchisquare(*table).pvalue)
    order = sorted(zip(scores, means.tolist(), strict=True), key=lambda one: one[1])
    return Ranking(dict(order), critical, p, samples, level)


def _table(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    if len({len(values) for values in scores.values()}) > 1:
        counts = {name: len(values) for name, values in scores.items()}
        raise ValueError(f"methods should be scored on the same samples, got {counts}.")
    table = np.array([list(values) for values in scores.values()], dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"expected finite numbers (method, sample), got {table.shape} with NaN or none.")
    return table


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p-values that bound the expected share of false discoveries, by name.

    Source: Benjamini & Hochberg (1995), as in :func:`scipy.stats.false_discovery_control`.
    """
    adjusted = false_discovery_control(list(p_values.values())) if p_values else ()
    return dict(zip(p_values, map(float, adjusted), strict=True))
