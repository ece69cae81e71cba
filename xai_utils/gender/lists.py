"""What scores say of whole lists of probes: groups of words, pairs of jobs, the asked word's part, agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from xai_utils import stats
from xai_utils.gender.probes import Observed
from xai_utils.maths import attcat
from xai_utils.metrics import agreement
from xai_utils.stats import AgainstChance, Gain, Interval


def group_differences(
    seen: Mapping[str, Observed], lists: Iterable[tuple[str, str, str]], rays: Tensor, seed: int
) -> dict[str, Gain]:
    """Return how far the means of two groups of words are apart, in log odds, AttCAT and AttDR.

    Args:
        seen: probes by kind.
        lists: kind, one group and the other, as in :attr:`gender.Probe.group`.
        rays: directions ``(layer, width)``.
        seed: of resampling and shuffling.

    Returns:
        By groups and score the difference with the p of shuffled membership, adjusted over all (Holm).
    """
    found: dict[str, tuple[Interval, float]] = {}
    for kind, *groups in lists:
        one = seen[kind]
        members = [np.array([probe.group == group for probe in one.probes]) for group in groups]
        scores = {"log odds": one.log_odds, "AttCAT": one.sums("AttCAT"), "AttDR": one.sums("AttDR", rays)}
        for name, values in scores.items():
            key = f"{groups[0]} − {groups[1]}, {name}"
            found[key] = agreement.group_difference(values[members[0]], values[members[1]], seed)
    adjusted = stats.holm({key: p for key, (_, p) in found.items()})
    return {key: Gain(interval, adjusted[key]) for key, (interval, _) in found.items()}


def job_gap(observed: Observed, name: str, rays: Tensor, seed: int) -> tuple[Interval, np.ndarray]:
    """Return a score of the job listed as a man's minus that of the other, from sentences with two jobs.

    Args:
        observed: probes that name every pair of jobs in both orders, the man's first and then the other way round.
        name: in :data:`probes.SCORES`.
        rays: directions ``(layer, width)``.
        seed: of the bootstrap.

    Returns:
        The mean gap over pairs, both orders averaged; and the gaps of those sentences that the study kept, whose man's
        job scores positive and the other negative: a selection by the outcome.
    """
    first, second = observed.sums(name, rays, other=True), observed.sums(name, rays)
    turn = np.tile([1.0, -1.0], len(first) // 2)
    gaps = (first - second) * turn
    return stats.mean_interval(gaps.reshape(-1, 2).mean(1), seed), gaps[(first * turn > 0) & (second * turn < 0)]


def impact(observed: Observed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how much of |AttCAT|, summed over the layers, falls on each probe's word.

    Returns:
        Its share; what its share would be if all tokens had the same; and whether its strongest piece beats every other
        token but [MASK]; each ``(sample,)``.
    """
    where, mask = observed.where(), observed.mask
    total = observed.scores("AttCAT").sum(0) * (observed.explained | mask)
    share, strongest = attcat.impact(total, where, mask)
    even = where.sum(1) / observed.explained.sum(1)
    return share.cpu().numpy(), even.cpu().numpy(), strongest.cpu().numpy()


def agreement_by_layer(
    observed: Observed, rays: Tensor, seed: int, shuffles: int = 999, together: bool = False
) -> dict[str, AgainstChance]:
    """Compare AttCAT and DensRay of the explained tokens, layer by layer and in their sum; see agreement.matched."""
    tokens = observed.explained.cpu().numpy()
    both = [observed.scores(name, rays).cpu().numpy() for name in ("AttCAT", "DensRay")]
    layers = {f"layer {i}": [scores[i] for scores in both] for i in range(len(both[0]))}
    found = {}
    for name, sides in (layers | {"sum": [scores.sum(0) for scores in both]}).items():
        one, other = ([row[kept] for row, kept in zip(side, tokens, strict=True)] for side in sides)
        found[name] = agreement.matched(one, other, seed, shuffles, together)
    return found
