"""Numbers of the study that brought AttCAT and DensRay together, and what chance gives in the measure it used."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Distances of AttCAT and DensRay as published, with the tokens of a sentence: cosine, Euclidean / √n, Manhattan / n.
DISTANCES: Mapping[str, tuple[int, float, float, float]] = {
    "occupations": (7, 0.474, 0.351, 0.288),
    "CrowS-Pairs": (15, 0.577, 0.305, 0.229),
    "adjectives 1, male": (6, 0.329, 0.306, 0.256),
    "adjectives 1, female": (6, 0.418, 0.362, 0.296),
    "adjectives 2, male": (6, 0.364, 0.337, 0.275),
    "adjectives 2, female": (6, 0.363, 0.331, 0.278),
    "nouns, male": (6, 0.393, 0.356, 0.295),
    "nouns, female": (6, 0.372, 0.348, 0.284),
}
#: DensRay scores of he and of she in "he|she is a accountant." by layer, as published.
HE = np.array([5.32, -4.73, 3.76, 3.78, 3.88, 3.13, -2.76, 2.50, -2.55, -1.88, 1.91, 0.33])
SHE = np.array([-6.05, 5.01, -4.43, -3.53, -2.52, -1.68, 0.96, -0.69, -0.29, -0.05, 0.33, -0.41])


def signs() -> np.ndarray:
    """Return for every layer 1, or -1 where the published direction must be turned so that he lies above she."""
    return np.where(HE > SHE, 1, -1)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the published distances of ``|one|`` and ``|other|``, each scaled to length 1, over the last axis.

    Returns:
        ``(..., 3)``: one minus cosine, Euclidean by root of the number of tokens, Manhattan by their number.
    """
    x, y = (np.abs(v) / np.linalg.norm(v, axis=-1, keepdims=True) for v in (one, other))
    n = x.shape[-1]
    apart = np.abs(x - y)
    euclidean = np.sqrt((apart**2).sum(-1) / n)
    return np.stack([1 - (x * y).sum(-1), euclidean, apart.sum(-1) / n], -1)


def chance_distances(tokens: int, seed: int, draws: int = 20_000) -> np.ndarray:
    """Return the mean published distances of two unrelated vectors of Gaussian noise, ``(3,)``."""
    noise = np.random.default_rng(seed)
    return distances(*noise.standard_normal((2, draws, tokens))).mean(0)


def against_chance(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the published distances and those of noise, ``(list, 3)`` each, in the order of :data:`DISTANCES`."""
    given = np.array([row[1:] for row in DISTANCES.values()])
    return given, np.array([chance_distances(row[0], seed) for row in DISTANCES.values()])
