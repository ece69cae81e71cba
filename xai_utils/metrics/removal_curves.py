"""Mark an attribution by what happens when tokens are taken away. Pure functions on scores and on the model's answers.

A *removal curve* holds the model's answers after the first 0, 25, … 100 % of a ranking are gone (see
:func:`metrics.removal_curve`): ``morf`` takes the most relevant tokens first, ``lerf`` the least relevant first. With
the same emptied input at the end, insertion is ``lerf`` read backwards, so its area is the area under ``lerf``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.metrics import pictures

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def ranking(scores: Tensor, seed: int) -> Tensor:
    """Return the tokens ``(token,)`` with the highest score first; equal scores come in random order.

    Args:
        scores: ``(token,)``.
        seed: of the order of ties. Without it a constant map would remove a text from its beginning and a picture from
            its top, and be scored for that.

    Raises:
        ValueError: NaN, infinite, or no token.
    """
    check.finite("scores", scores)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected (token,) with at least one token.")
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(scores)))
    return shuffled[scores[shuffled].argsort(descending=True, stable=True)]


def keep_both(scores: Tensor, places: Tensor, tokens: int, fractions: Sequence[float], seed: int) -> Tensor:
    """Return what is kept at every step, most relevant first and least relevant first: ``(2, step, token)`` bool.

    Args:
        scores: of the tokens that may go, ``(rank,)``.
        places: which tokens of the input these are, ``(rank,)``; the others always stay.
        tokens: of the input.
        fractions: as in :func:`metrics.keep_masks`.
        seed: of ties, see :func:`ranking`.
    """
    order = places[ranking(scores, seed)]
    return pictures.keep_masks(torch.stack([order, order.flip(0)]), tokens, fractions)


def deletion(morf: Tensor, fractions: Sequence[float] = QUARTERS) -> Tensor:
    """Return the area under the curve of removal, most relevant first, by the trapezoid rule; lower is better.

    Args:
        morf: probabilities ``(..., step)``.
        fractions: where the steps stand, from 0 to 1.

    Source: Petsiuk et al. (2018), arXiv:1806.07421, section 4.1. Differs from: Quantus 0.6, which sums with steps of
        length 1 whatever the fractions are.
    """
    return pictures.area(morf, fractions)


def insertion(lerf: Tensor, fractions: Sequence[float] = QUARTERS) -> Tensor:
    """Return the area under the curve of insertion, most relevant first, from the curve of removal; higher is better.

    Args:
        lerf: probabilities ``(..., step)`` as the least relevant are removed first.
        fractions: of the removal; with ``f`` removed the most relevant ``1 - f`` are there.
    """
    return pictures.area(lerf, fractions)


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
