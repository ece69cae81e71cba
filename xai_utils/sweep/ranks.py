"""Rank methods that were scored on the same samples: mean ranks, Friedman's test, critical differences, win rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from xai_utils import stats


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


def win_rate(ours: Sequence[float], null: Sequence[float], higher_is_better: bool, seed: int) -> stats.Interval:
    """Return how often a method beats its matched null on the same sample, with interval; a tie counts as half.

    Args:
        ours: one number for each sample.
        null: of the null map on the same samples.
        higher_is_better: direction of the numbers.
        seed: of the bootstrap.
    """
    one, other = _table({"ours": ours, "null": null})
    sign = 1.0 if higher_is_better else -1.0
    return stats.mean_interval(((np.sign(sign * (one - other)) + 1) / 2).tolist(), seed)


def _table(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    if len({len(values) for values in scores.values()}) > 1:
        counts = {name: len(values) for name, values in scores.items()}
        raise ValueError(f"methods should be scored on the same samples, got {counts}.")
    table = np.array([list(values) for values in scores.values()], dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"expected finite numbers (method, sample), got {table.shape} with NaN or none.")
    return table
