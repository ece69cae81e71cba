"""What scores say of whole lists of probes: groups of words, pairs of jobs, the asked word's part, agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils.gender import findings, published
from xai_utils.gender.findings import Tested
from xai_utils.gender.probes import TARGETS, Observed, logits, observe
from xai_utils.maths import attcat
from xai_utils.metrics import agreement
from xai_utils.stats import AgainstChance


def group_differences(
    seen: Mapping[str, Observed], lists: Iterable[tuple[str, str, str]], rays: Tensor, seed: int
) -> dict[str, Tested]:
    """Return how far the means of two groups of words are apart, in log odds, AttCAT and AttDR.

    Args:
        seen: probes by kind.
        lists: kind, one group and the other, as in :attr:`gender.Probe.group`.
        rays: directions ``(layer, width)``.
        seed: of resampling and shuffling.

    Returns:
        By groups and score the difference with the p of shuffled membership, not yet corrected.
    """
    found: dict[str, Tested] = {}
    for kind, *groups in lists:
        one = seen[kind]
        members = [np.array([probe.group == group for probe in one.probes]) for group in groups]
        scores = {"log odds": one.log_odds, "AttCAT": one.sums("AttCAT"), "AttDR": one.sums("AttDR", rays)}
        for name, values in scores.items():
            key = f"{name}: more for {groups[0]} than for {groups[1]}"
            found[key] = agreement.group_difference(values[members[0]], values[members[1]], seed)
    return found


def hidden_specials(seen: Mapping[str, Observed], seed: int) -> tuple[pd.DataFrame, dict[str, Tested]]:
    """Compare a model that sees [CLS] and [SEP] with one from which they are hidden, as published; one more pass.

    Args:
        seen: probes by kind, observed as they are.
        seed: of resampling and of the exchanges.

    Returns:
        By kind what is predicted at [MASK] in both cases; and how far P(first) + P(second) falls, with its test.
    """
    rows, found = [], {}
    for kind, one in seen.items():
        model, pair, either = one.seen.model, [one.seen.model.class_index(word) for word in one.pair], []
        assert one.seen.logits is not None
        for how, answers in (("kept", one.seen.logits), ("masked", logits(model, one.probes, "masked"))):
            both = answers.softmax(-1)[:, pair].double().cpu()
            named = torch.isin(answers.argmax(-1).cpu(), torch.tensor(pair)).double().mean()
            either.append(both.sum(1))
            rows.append((kind, f"specials {how}", *both.mean(0).tolist(), float(either[-1].mean()), float(named)))
        change = findings.paired((either[1] - either[0]).numpy(), seed)
        found[f"{kind}: hiding [CLS] and [SEP] raises P(he) + P(she)"] = change
    heads = ["kind", "model", "P(he)", "P(she)", "sum", "likeliest is one of them"]
    return pd.DataFrame(rows, columns=heads).set_index(heads[:2]), found


def job_gap(observed: Observed, name: str, rays: Tensor, seed: int) -> tuple[Tested, np.ndarray]:
    """Return a score of the job listed as a man's minus that of the other, from sentences with two jobs.

    Args:
        observed: probes that name every pair of jobs in both orders, the man's first and then the other way round.
        name: in :data:`probes.SCORES`.
        rays: directions ``(layer, width)``.
        seed: of the bootstrap and of the exchanges.

    Returns:
        The mean gap over pairs, both orders averaged, with its test; and the gaps of those sentences that the study
        kept, whose man's job scores positive and the other negative: a selection by the outcome.
    """
    first, second = observed.sums(name, rays, other=True), observed.sums(name, rays)
    turn = np.tile([1.0, -1.0], len(first) // 2)
    gaps = (first - second) * turn
    return findings.paired(gaps.reshape(-1, 2).mean(1), seed), gaps[(first * turn > 0) & (second * turn < 0)]


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


def asked_words(seen: Mapping[str, Observed], seed: int) -> tuple[pd.DataFrame, dict[str, Tested]]:
    """Return :func:`impact` of every kind of probe and both targets as a table, and share minus even with its test."""
    rows, found = [], {}
    for kind, one in seen.items():
        for target in TARGETS:
            own = one if target == "difference" else observe(one.seen.model, one.probes, target)
            share, even, strongest = impact(own)
            rows.append((kind, target, share.mean(), even.mean(), strongest.mean()))
            found[f"AttCAT ({target}): more than an even share on the {kind}"] = findings.paired(share - even, seed)
    heads = ["kind", "target", "share", "even share", "strongest"]
    return pd.DataFrame(rows, columns=heads).set_index(heads[:2]), found


def published_distances(observed: Observed, rays: Tensor) -> np.ndarray:
    """Return the study's distances of AttCAT and DensRay, absolute sums over the layers, for probes of ours, ``(3,)``.

    Mean over the sentences, their explained tokens and [MASK] as published; see :func:`published.distances`.
    """
    tokens = (observed.explained | observed.mask).cpu().numpy()
    both = [observed.scores(name, rays).sum(0).cpu().numpy() for name in ("AttCAT", "DensRay")]
    rows = [published.distances(one[kept], other[kept]) for one, other, kept in zip(*both, tokens, strict=True)]
    return np.mean(rows, 0)
