"""Numbers with their uncertainty: bootstrap intervals of a mean over samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` samples with a confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def mean_interval(values: Sequence[float], seed: int, level: float = 0.95, resamples: int = 2000) -> Interval:
    """Return the mean with its percentile bootstrap interval.

    Args:
        values: one number per sample, for example paired differences.
        seed: of the resampling.
        level: confidence, in (0, 1).
        resamples: bootstrap samples.

    Raises:
        ValueError: fewer than two samples, or NaN among them.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or len(data) < 2 or not np.isfinite(data).all():
        raise ValueError(
            f"expected at least two finite numbers, got shape {data.shape} with {np.isnan(data).sum()} NaN."
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1.")
    noise = np.random.default_rng(seed)
    found = bootstrap(
        (data,), np.mean, confidence_level=level, n_resamples=resamples, method="percentile", rng=noise
    ).confidence_interval
    return Interval(float(data.mean()), float(found.low), float(found.high), len(data))
