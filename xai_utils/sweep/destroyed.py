"""Sum up the bundled sanity checks: what is left of maps once the model is destroyed, over samples and shuffles."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xai_utils import files, stats
from xai_utils.evaluation import sanity
from xai_utils.methods import METHODS
from xai_utils.samples import sets
from xai_utils.sweep import plan, standings
from xai_utils.sweep.leaderboard import KEY

PLAN = "sanity"  #: in ``sweeps/``
DRAWS = 9999
HALF = 0.5  #: a map that correlates more than this with the one before has not changed enough to be of the model


def left(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return what is left of the maps of each method after each test.

    Args:
        table: of a sweep scored by :mod:`sanity`.
        seed: of resampling.

    Returns:
        A row for each ``model``, ``test`` and ``method``: ``left``, the mean rank correlation with the map before;
        ``low`` and ``high``, its 95 % interval when shuffles are drawn again as well as samples (those that share a
        background together); ``p``, two-sided, of the same draws, that the mean is not :data:`HALF`; ``least`` and
        ``most``, of the means of single shuffles; ``shuffles`` and ``n`` samples.

    Raises:
        ValueError: a table of another kind, or with errors.
    """
    if not set(table.metric) <= set(sanity.METRICS) or (table.error != "").any():
        raise ValueError(f"the table holds {sorted(set(table.metric))} or errors; expected tests of sanity alone.")
    rows = []
    for (model, test, method), own in table.groupby(["model", "metric", "method"], observed=True, sort=False):
        wide = own.pivot(index="sample", columns="operator", values="value").astype(float)
        rows.append({"model": model, "test": test, "method": method, **_summed(wide, seed)})
    found = pd.DataFrame(rows)
    order = {name: place for place, name in enumerate(sanity.METRICS)}
    return found.sort_values(
        ["model", "test"], key=lambda one: one.map(order).fillna(0), kind="stable", ignore_index=True
    )


def judged(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Test as one family whether maps change: is less than :data:`HALF` left of them, whatever their sign?

    A map that is only turned round has kept its places, so the absolute correlations are summed up.

    Args:
        table: as in :func:`left`.
        seed: as there.

    Returns:
        Rows as of :func:`left` with ``p`` corrected (Holm), for every map that could change: of a method that looks at
        the class after every test, of another one after all weights are shuffled, of a null never.
    """
    found = left(table.assign(value=table.value.astype(float).abs()), seed)
    asks = found.method.map(lambda name: METHODS[name].asks)
    found = found[(asks | (found.test == "everything")) & ~found.method.isin(standings.NULLS)].reset_index(drop=True)
    found["p"] = list(stats.holm({str(place): p for place, p in enumerate(found.p)}).values())
    return found


def _summed(wide: pd.DataFrame, seed: int) -> dict[str, float]:
    """Sum up correlations ``(sample, shuffle)``."""
    places = pd.factorize(pd.Index(standings.shared(wide)))[0]
    sums = np.stack([np.bincount(places, column) for column in wide.to_numpy().T], axis=1)
    sizes, noise = np.bincount(places), np.random.default_rng(seed)
    picks = noise.integers(0, len(sizes), (DRAWS, len(sizes)))
    each = sums[picks].sum(1) / sizes[picks].sum(1)[:, None]
    shuffles = noise.integers(0, wide.shape[1], (DRAWS, wide.shape[1]))
    drawn = np.take_along_axis(each, shuffles, 1).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    beyond = min((drawn <= HALF).sum(), (drawn >= HALF).sum())
    means = wide.mean()
    told = {"left": means.mean(), "low": low, "high": high, "p": min(1.0, 2 * (beyond + 1) / (DRAWS + 1))}
    told |= {"least": means.min(), "most": means.max()}
    return {**told, "shuffles": wide.shape[1], "n": len(wide)}


def again(table: pd.DataFrame, model: str, method: str, count: int, seed: int) -> tuple[int, int]:
    """Score the first samples once more after everything is shuffled.

    Args:
        table: of a sweep scored by :mod:`sanity`.
        model: in it.
        method: in it.
        count: samples.
        seed: of the sweep.

    Returns:
        How many rows the table has of these, and how many of them are within 0.01.
    """
    cells = plan.read(files.ROOT / "sweeps" / f"{PLAN}.yml").cells
    spec = next(cell.samples for cell in cells if model in cell.models)
    some = sets.take({key: value for key, value in spec.items() if key != "name"}, 0, count)
    rows = pd.DataFrame(sanity.score_shard(model, method, some, ["everything"], seed))
    mine = table[(table.model == model) & (table.method == method)].astype({name: str for name in KEY})
    both = mine.merge(rows, on=KEY[2:])
    return len(both), int(((both.value_x - both.value_y).abs() < 0.01).sum())
