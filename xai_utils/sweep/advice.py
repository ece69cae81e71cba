"""Turn the leaderboard into advice: which method for which model, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xai_utils import stats
from xai_utils.evaluation.scoring import METRICS
from xai_utils.sweep import leaderboard
from xai_utils.sweep.leaderboard import NULLS, TRUTH

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
