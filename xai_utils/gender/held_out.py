"""Does a direction tell the sides apart for words it was not made from, and what is left once it is removed?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from xai_utils import stats
from xai_utils.gender.vectors import Vectors, evenly
from xai_utils.maths import densray
from xai_utils.stats import AgainstChance, Interval


def separation(male: np.ndarray, female: np.ndarray, group: np.ndarray, seed: int, draws: int = 999) -> AgainstChance:
    """Return how well coordinates ``(vector,)`` of either side are apart.

    Args:
        male: coordinates of the masculine vectors.
        female: of the feminine ones, as many.
        group: ``(vector,)``, the unit of chance: vectors of one group (a pair of words) change sides together.
        seed: of the null and of the interval.
        draws: of the null.

    Returns:
        The area under the ROC curve, the chance that a masculine vector has the larger coordinate than a feminine one
        of any word and sentence, its interval over the groups, and the areas when groups change sides at random.

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
    interval = Interval(area, min(found.low, 1.0), min(found.high, 1.0), len(names))
    return AgainstChance.of(interval, (sums - n * (n + 1) / 2) / n**2, middle=0.5)


def carries_over(vectors: Vectors, layer: int, seed: int, draws: int = 999) -> AgainstChance:
    """Make the difference of the means from groups of even number, and ask it about the others; see separation."""
    given, asked, group = _halves(vectors, layer)
    direction = densray.mean_difference(*given)
    male, female = (densray.project(side, direction).numpy() for side in asked)
    return separation(male, female, group, seed, draws)


def reenacted(right: Vectors, wrong: Vectors, rays: Tensor, wrong_rays: Tensor, seed: int) -> pd.DataFrame:
    """Compare directions of right vectors with those of a wrong extraction, layer by layer.

    Args:
        right: vectors as they should be.
        wrong: see :func:`vectors.extracted`.
        rays: DensRay of the right ones, ``(layer + 1, width)``.
        wrong_rays: of the wrong ones.
        seed: of the intervals.

    Returns:
        The angle between both in degrees; the area on right vectors of held-out pairs, see :func:`separation`, for
        the mean difference of right even pairs and of wrong even pairs; and how far apart both sides lie along either
        DensRay, in standard deviations within a side.
    """
    rows = []
    for layer in range(len(rays)):
        male, female = right.sides(layer)
        odd = right.group % 2 == 1
        areas = []
        for given in (right, wrong):
            direction = densray.mean_difference(*given.half(False).sides(layer))
            one, other = (densray.project(side[odd], direction).numpy() for side in (male, female))
            areas.append(separation(one, other, right.group[odd], seed, 1).found.mean)
        cosine = float((rays[layer] @ wrong_rays[layer]).abs().clamp(max=1))
        gaps = [_standardised(male @ ray.double(), female @ ray.double()) for ray in (rays[layer], wrong_rays[layer])]
        rows.append((layer, float(np.degrees(np.arccos(cosine))), *areas, *gaps))
    heads = ["layer", "angle", "held-out area", "area, as published", "gap", "gap, as published"]
    return pd.DataFrame(rows, columns=heads).set_index("layer")


def _standardised(male: Tensor, female: Tensor) -> float:
    return float(abs(male.mean() - female.mean()) / ((male.var() + female.var()) / 2).sqrt())


def left_over(vectors: Vectors, layer: int, seed: int, draws: int = 999, most: int = 500) -> AgainstChance:
    """Remove that direction, train a classifier on what is left of the even groups, and ask it about the others.

    The classifier is a support vector machine with a Gaussian kernel: no linear one could find anything, because the
    means of its two classes are equal once the difference of the means is removed. An area above the null says that
    the sides can still be read although the direction is gone. It is trained on ``most`` vectors a side.

    Source: Gonen & Goldberg (2019), arXiv:1903.03862, section 4 (there on word vectors).
    """
    given, asked, group = _halves(vectors, layer)
    direction = densray.mean_difference(*given)
    some = evenly(len(given[0]), most)
    rest = torch.cat([densray.remove(side, direction)[some] for side in given]).numpy()
    probe = make_pipeline(StandardScaler(), SVC()).fit(rest, np.repeat([1, -1], len(some)))
    male, female = (probe.decision_function(densray.remove(side, direction).numpy()) for side in asked)
    return separation(male, female, group, seed, draws)


def _halves(vectors: Vectors, layer: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], np.ndarray]:
    """Return both sides of the even groups, both of the odd ones, and the groups of the latter."""
    odd = vectors.group % 2 == 1
    if odd.all() or not odd.any():
        raise ValueError("all vectors belong to one half of the pairs, so nothing can be held out.")
    male, female = vectors.sides(layer)
    return (male[~odd], female[~odd]), (male[odd], female[odd]), vectors.group[odd]
