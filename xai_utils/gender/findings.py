"""Many tests in one table: effect, interval and p-value, corrected as one family."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from xai_utils import stats
from xai_utils.metrics import agreement
from xai_utils.stats import AgainstChance, Interval

#: A number with its interval and the p-value of its test, not yet corrected.
Tested = tuple[Interval, float]


def table(rows: Mapping[str, Tested | AgainstChance], above: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return one row a statement, named by it: effect, interval, what it should exceed, and p by Holm's correction.

    Args:
        rows: what was found, by the statement that is tested; all of them are one family.
        above: what the effect should exceed by chance, where that is not 0.
    """
    pairs = {name: (one.found, one.p) if isinstance(one, AgainstChance) else one for name, one in rows.items()}
    adjusted, known = stats.holm({name: p for name, (_, p) in pairs.items()}), above or {}
    found = [
        (name, one.mean, one.low, one.high, known.get(name, 0.0), one.n, adjusted[name])
        for name, (one, _) in pairs.items()
    ]
    heads = ["statement", "effect", "low", "high", "above", "n", "p (Holm)"]
    return pd.DataFrame(found, columns=heads).set_index("statement")


def paired(values: Sequence[float] | np.ndarray, seed: int, clusters: Sequence[Hashable] | None = None) -> Tested:
    """Return the mean of paired differences and the p of exchanging both members of whole clusters."""
    return stats.mean_interval(list(values), seed, clusters=clusters), stats.permutation_p(
        list(values), seed, clusters=clusters
    )


def ordered(one: np.ndarray, other: np.ndarray, seed: int, shuffles: int = 999) -> AgainstChance:
    """Return Spearman's correlation of two variables over items against random orders of the first."""
    orders = np.random.default_rng(seed).permuted(np.broadcast_to(one, (shuffles, len(one))), axis=1)
    return AgainstChance.of(agreement.rank_interval(one, other, seed), agreement.spearman(other, orders))
