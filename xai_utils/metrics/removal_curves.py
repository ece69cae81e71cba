"""Mark an attribution by what happens when tokens are taken away. Pure functions on scores and on the model's answers.

A *removal curve* holds the model's answers after the first 0, 25, … 100 % of a ranking are gone (see
:func:`removal_curve`): ``morf`` takes the most relevant tokens first, ``lerf`` the least relevant first. With
the same emptied input at the end, insertion is ``lerf`` read backwards, so its area is the area under ``lerf``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.metrics.rankings import ranking

TENTHS = tuple(step / 10 for step in range(11))
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def keep_masks(order: Tensor, tokens: int, fractions: Sequence[float] = TENTHS, insert: bool = False) -> Tensor:
    """Remove tokens from the whole input step by step, or insert them into the emptied one.

    Args:
        order: ``(..., rank)`` indices of the tokens, most important first; a token left out of it is always kept.
        tokens: of the input.
        fractions: of the order that are gone (or back) after each step, rising from 0 to 1; of the product with the
            number of ranks the nearest whole number counts.
        insert: begin with all of them gone and put them back.

    Returns:
        ``(..., step, token)`` bool, true where the token is kept; the first is the untouched (or emptied) input.

    Raises:
        ValueError: an order that is empty, names a token twice, or one that there is not; fractions that do not rise
            from 0 to 1.
    """
    _rising(fractions)
    ranks = order.shape[-1]
    if not ranks or order.min() < 0 or order.max() >= tokens:
        raise ValueError(f"the order should name some of the tokens 0 to {tokens - 1}, got {order.tolist()}.")
    times = torch.zeros((*order.shape[:-1], tokens), dtype=torch.long)
    if times.scatter_add(-1, order, torch.ones_like(order)).max() > 1:
        raise ValueError(f"the order names a token twice: {order.tolist()}.")
    place = torch.full_like(times, ranks).scatter(-1, order, torch.arange(ranks).expand_as(order))
    changed = torch.tensor([round(fraction * ranks) for fraction in fractions])[:, None]
    reached = place[..., None, :] < changed
    return reached | (place == ranks)[..., None, :] if insert else ~reached


def removal_curve(
    score: Callable[[Tensor], Tensor],
    order: Tensor,
    tokens: int,
    fractions: Sequence[float] = TENTHS,
    insert: bool = False,
) -> Tensor:
    """Ask the model again after every step of :func:`keep_masks`: deletion, or insertion.

    Args:
        score: takes ``(mask, token)`` bool, returns ``(mask,)``; each different mask is asked for once.
        order: ``(..., rank)``, most important first; several maps of one input go in one call.
        tokens: of the input.
        fractions: as in :func:`keep_masks`.
        insert: insertion in place of deletion.

    Returns:
        ``(..., step)`` scores.

    Source: deletion and insertion of RISE, Petsiuk et al. (2018), arXiv:1806.07421, section 4.1.
    """
    masks = keep_masks(order, tokens, fractions, insert)
    different, place = masks.flatten(0, -2).unique(dim=0, return_inverse=True)
    values = score(different)
    check.finite("scores", values)
    return values[place].view(masks.shape[:-1])


def area(curve: Tensor, fractions: Sequence[float] = TENTHS) -> Tensor:
    """Return the area under ``(..., step)`` over the fractions by the trapezoid rule, ``(...)``.

    For a deletion lower is better, for an insertion higher.
    """
    _rising(fractions)
    if curve.shape[-1] != len(fractions):
        raise ValueError(f"a curve of {curve.shape[-1]} points does not belong to {len(fractions)} fractions.")
    return torch.trapezoid(curve, torch.tensor(fractions, dtype=curve.dtype))


def _rising(fractions: Sequence[float]) -> None:
    rising = all(lower < upper for lower, upper in pairwise(fractions))  # false beside NaN
    if len(fractions) < 2 or not rising or (fractions[0], fractions[-1]) != (0, 1):
        raise ValueError(f"fractions should rise from 0 to 1, got {list(fractions)}.")


def keep_both(scores: Tensor, places: Tensor, tokens: int, fractions: Sequence[float], seed: int) -> Tensor:
    """Return what is kept at every step, most relevant first and least relevant first: ``(2, step, token)`` bool.

    Args:
        scores: of the tokens that may go, ``(rank,)``.
        places: which tokens of the input these are, ``(rank,)``; the others always stay.
        tokens: of the input.
        fractions: as in :func:`keep_masks`.
        seed: of ties, see :func:`ranking`.
    """
    order = places[ranking(scores, seed)]
    return keep_masks(torch.stack([order, order.flip(0)]), tokens, fractions)


def deletion(morf: Tensor, fractions: Sequence[float] = QUARTERS) -> Tensor:
    """Return the area under the curve of removal, most relevant first, by the trapezoid rule; lower is better.

    Args:
        morf: probabilities ``(..., step)``.
        fractions: where the steps stand, from 0 to 1.

    Source: Petsiuk et al. (2018), arXiv:1806.07421, section 4.1. Differs from: Quantus 0.6, which sums with steps of
        length 1 whatever the fractions are.
    """
    return area(morf, fractions)


def insertion(lerf: Tensor, fractions: Sequence[float] = QUARTERS) -> Tensor:
    """Return the area under the curve of insertion, most relevant first, from the curve of removal; higher is better.

    Args:
        lerf: probabilities ``(..., step)`` as the least relevant are removed first.
        fractions: of the removal; with ``f`` removed the most relevant ``1 - f`` are there.
    """
    return area(lerf, fractions)


def delta_af(morf: Tensor, lerf: Tensor, fractions: Sequence[float] = QUARTERS) -> Tensor:
    """Return the area between both curves, least minus most relevant first; higher is better, a random map gets 0.

    Source: ΔAF of Ali et al. (2022), arXiv:2202.07304, section 5.2 (areas under activation flow of both orders), also
        known as symmetric relevance gain, Blücher et al. (2024), arXiv:2401.06654.
    """
    return insertion(lerf, fractions) - deletion(morf, fractions)


def comprehensiveness(full: Tensor, without: Tensor) -> Tensor:
    """Return the drop of the probability without the rationale; higher is better.

    Args:
        full: probability of the explained class of the whole input, ``(...)``.
        without: the same without the rationale, ``(...)``; or ``(..., bin)`` for rationales of several lengths, whose
            drops are averaged.

    Source: DeYoung et al. (2020), arXiv:1911.03429, Eq. 1; over bins their AOPC, a plain mean.
    """
    return _drop(full, without)


def sufficiency(full: Tensor, only: Tensor) -> Tensor:
    """Return the drop of the probability with the rationale alone, shapes as above; lower is better.

    Source: DeYoung et al. (2020), arXiv:1911.03429, Eq. 2.
    """
    return _drop(full, only)


def aopc(full: Tensor, steps: Tensor) -> Tensor:
    """Return the mean drop ``(...)`` over the steps ``(..., step)``, most relevant first; higher is better.

    Source: Samek et al. (2017), arXiv:1509.06321, Eq. 12, without the step at which nothing is gone. Differs from:
        AttCAT's code, which takes the size of each drop, so that a rise of the probability counts as one.
    """
    return _drop(full, steps)


def log_odds(full: Tensor, steps: Tensor) -> Tensor:
    """Return the mean of ``log(p_step / p_full)``, natural logarithm, ``(...)``; lower is better.

    Raises:
        ValueError: a probability of 0 or below, which has no logarithm.

    Source: Shrikumar et al. (2017), arXiv:1704.02685, in the form that AttCAT uses (a ratio of probabilities).
    """
    if min(full.min(), steps.min()) <= 0:
        raise ValueError("log-odds need probabilities above 0; take logits in float64 before the softmax.")
    return (steps.log() - full[..., None].log()).mean(-1)


def infidelity(scores: Tensor, gone: Tensor, drops: Tensor) -> float:
    """Return the share of the drops that the scores of what is gone do not explain, in [0, 1]; lower is better.

    Args:
        scores: ``(token,)``.
        gone: ``(mask, token)`` bool, removed at random.
        drops: ``(mask,)`` fall of the score of the class in each.

    The scores are scaled by one factor, the best for this input, because methods have units of their own; a factor
    below zero is not given, so a map that points the wrong way gets 1.

    Source: Yeh et al. (2019), arXiv:1901.09392, Definition 2.1, perturbation by removal. Differs from: captum, which
        scales without a bound and does not divide by the size of the drops.
    """
    check.finite("drops", drops)
    told = gone.double() @ scores.double()
    size = float(drops.double().square().mean())
    if not size:
        raise ValueError("no removal changes the score: there is nothing to explain.")
    slope = max(float(told @ drops.double()) / max(float(told @ told), torch.finfo(torch.float64).tiny), 0.0)
    return float((slope * told - drops).square().mean()) / size


def max_sensitivity(scores: Tensor, perturbed: Tensor) -> float:
    """Return the largest change of a map under small changes of its input, over its length; lower is better.

    Args:
        scores: ``(token,)``.
        perturbed: ``(draw, token)``, maps of the same input with noise on it.

    Source: Yeh et al. (2019), arXiv:1901.09392, Definition 3.1, divided by the length as Quantus and captum do.
    """
    check.finite("perturbed", perturbed)
    length = scores.double().norm()
    if not length:
        raise ValueError("every score is zero: a change has nothing to be compared with.")
    return float((perturbed.double() - scores.double()).norm(dim=-1).max() / length)


def sparseness(scores: Tensor) -> float:
    """Return the Gini index of the sizes of the scores: 0 where all are equal, ``1 - 1/token`` where one has it all.

    Source: Hurley & Rickard (2009), arXiv:0811.4706; on attributions Chalasani et al. (2020), arXiv:1810.06583.
    """
    check.finite("scores", scores)
    sizes = scores.double().abs().sort().values
    total = float(sizes.sum())
    if not total:
        raise ValueError("every score is zero: there is nothing to be sparse.")
    count = len(sizes)
    ranks = torch.arange(1, count + 1, dtype=torch.float64)
    return float((2 * ranks - count - 1) @ sizes) / (count * total)


def random_removals(
    places: Tensor, tokens: int, count: int, seed: int, share: tuple[float, float] = (0.1, 0.5)
) -> Tensor:
    """Draw ``(mask, token)`` bool, true where kept; each mask drops a share of ``places`` drawn between two bounds."""
    noise = np.random.default_rng(seed)
    keep = torch.ones(count, tokens, dtype=torch.bool)
    for row in keep:
        number = max(1, round(noise.uniform(*share) * len(places)))
        row[places[torch.from_numpy(noise.choice(len(places), number, replace=False))]] = False
    return keep


def _drop(full: Tensor, others: Tensor) -> Tensor:
    if others.ndim not in (full.ndim, full.ndim + 1) or others.shape[: full.ndim] != full.shape:
        raise ValueError(f"full is {tuple(full.shape)}, the others {tuple(others.shape)}; expected the same or a bin.")
    check.finite("probabilities", others)
    return full - others if others.ndim == full.ndim else (full[..., None] - others).mean(-1)


@dataclass(frozen=True)
class BesideRandom:
    """Removal curves of maps of one input, and of random orders of the same tokens.

    Attributes:
        curves: answers after each step, ``(map, step)``, most relevant first.
        random: the same in random orders, ``(draw, step)``.
        p: of each map, how often a random order empties the answer as fast, its area being as small, ``(map,)``; at
            least 1 / (draws + 1).
    """

    curves: Tensor
    random: Tensor
    p: Tensor


def beside_random(
    score: Callable[[Tensor], Tensor],
    scores: Tensor,
    places: Tensor,
    tokens: int,
    fractions: Sequence[float] = TENTHS,
    draws: int = 99,
    seed: int = 0,
) -> BesideRandom:
    """Remove tokens of one input as each map ranks them, and as often in random orders.

    Args:
        score: as in :func:`removal_curve`.
        scores: of the tokens that may go, ``(map, rank)``; equal ones in random order.
        places: which tokens of the input these are, ``(rank,)``.
        tokens: of the input.
        fractions: of the tokens that are gone after each step.
        draws: random orders.
        seed: of random orders and ties.

    Raises:
        ValueError: no draw; NaN; from :func:`keep_masks`.
    """
    check.at_least_one("draws", draws)
    noise = torch.rand(draws, len(places), generator=torch.Generator().manual_seed(seed)).argsort(-1)
    orders = places[torch.cat([ranking(scores, seed), noise])]
    found = removal_curve(score, orders, tokens, fractions)
    areas = area(found, fractions)
    own, random = areas[: len(scores)], areas[len(scores) :]
    p = (1 + (random <= own[:, None]).sum(1)) / (draws + 1)
    return BesideRandom(found[: len(scores)], found[len(scores) :], p)
