"""Does a direction tell the sides apart for words it was not made from, and what is left once it is removed?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from xai_utils import stats
from xai_utils.gender.vectors import Vectors
from xai_utils.maths import densray
from xai_utils.stats import Interval


@dataclass(frozen=True)
class Separation:
    """How well a coordinate tells the masculine vectors of held-out groups from the feminine ones.

    Attributes:
        area: under the ROC curve, the chance that a masculine vector has the larger coordinate than a feminine one of
            any word and sentence; 0.5 is chance. Its interval resamples the groups.
        low, high: where 95 % of the areas lie when held-out groups change sides at random.
    """

    area: Interval
    low: float
    high: float


def separation(male: np.ndarray, female: np.ndarray, group: np.ndarray, seed: int, draws: int = 999) -> Separation:
    """Return how well coordinates ``(vector,)`` of either side are apart.

    Args:
        male: coordinates of the masculine vectors.
        female: of the feminine ones, as many.
        group: ``(vector,)``, the unit of chance: vectors of one group (a pair of words) change sides together.
        seed: of the null and of the interval.
        draws: of the null.

    Raises:
        ValueError: sides of different size, or fewer than two groups.

    Differs from: a bootstrap of the area itself, in resampling every group's share in it (the area's first-order
        expansion, as in Obuchowski 1997), which needs the ranks only once.
    """
    if not male.shape == female.shape == group.shape or len(np.unique(group)) < 2:
        raise ValueError(f"expected sides of one size and two groups or more, got {male.shape} and {female.shape}.")
    n = len(male)
    ranks = rankdata(np.concatenate([male, female]))
    above = (ranks[:n] - rankdata(male)) / n, 1 - (ranks[n:] - rankdata(female)) / n
    area = float(above[0].mean())
    names, number = np.unique(group, return_inverse=True)
    share = [np.bincount(number, values) / np.bincount(number) for values in (*above, ranks[:n], ranks[n:])]
    found = stats.mean_interval((share[0] + share[1] - area).tolist(), seed)
    swapped = np.random.default_rng(seed).random((draws, len(names))) < 0.5
    sums = np.where(swapped, share[3], share[2]) @ np.bincount(number)
    low, high = np.quantile((sums - n * (n + 1) / 2) / n**2, [0.025, 0.975])
    return Separation(Interval(area, min(found.low, 1.0), min(found.high, 1.0), len(names)), float(low), float(high))


def carries_over(vectors: Vectors, layer: int, group: np.ndarray, seed: int, draws: int = 999) -> Separation:
    """Make the difference of the means from groups of even number, and ask it about the others.

    Args:
        vectors: both sides, partners in the same order.
        layer: which.
        group: ``(vector,)``, number of the pair of words each belongs to.
        seed, draws: see :func:`separation`.
    """
    given, asked = _halves(vectors, layer, group)
    direction = densray.mean_difference(*given)
    male, female = (densray.project(side, direction).numpy() for side in asked)
    return separation(male, female, group[group % 2 == 1], seed, draws)


def left_over(
    vectors: Vectors, layer: int, group: np.ndarray, seed: int, draws: int = 999, most: int = 500
) -> Separation:
    """Remove that direction, train a classifier on what is left of the even groups, and ask it about the others.

    The classifier is a support vector machine with a Gaussian kernel: no linear one could find anything, because the
    means of its two classes are equal once the difference of the means is removed. An area above the null says that
    the sides can still be read although the direction is gone. Arguments as in :func:`carries_over`, and:

    Args:
        most: vectors a side to train on, evenly spread.

    Source: Gonen & Goldberg (2019), arXiv:1903.03862, section 4 (there on word vectors).
    """
    given, asked = _halves(vectors, layer, group)
    direction = densray.mean_difference(*given)
    some = torch.linspace(0, len(given[0]) - 1, min(most, len(given[0]))).long()
    rest = torch.cat([densray.remove(side, direction)[some] for side in given]).numpy()
    probe = make_pipeline(StandardScaler(), SVC()).fit(rest, np.repeat([1, -1], len(some)))
    male, female = (probe.decision_function(densray.remove(side, direction).numpy()) for side in asked)
    return separation(male, female, group[group % 2 == 1], seed, draws)


def _halves(vectors: Vectors, layer: int, group: np.ndarray) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    odd = torch.from_numpy(group % 2 == 1)
    if odd.all() or not odd.any():
        raise ValueError("all vectors belong to one half of the pairs, so nothing can be held out.")
    sides = vectors.male[layer].double(), vectors.female[layer].double()
    return (sides[0][~odd], sides[1][~odd]), (sides[0][odd], sides[1][odd])
