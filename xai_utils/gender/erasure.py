r"""Erase what a linear classifier could read: one coordinate taken out of a state. Pure functions.

Both erasures have the form :math:`x - a\,b^\top(x - c)` with :math:`b^\top a = 1`: what ``b`` reads is removed along
``a``. They differ in ``b``: the projection reads along ``a`` itself, LEACE reads where the data least confound it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xai_utils import check


@dataclass(frozen=True)
class Erasure:
    """A change of states, to be called with ``(..., width)``.

    Attributes:
        along: ``(width,)``, the direction in which states move.
        reader: ``(width,)``, what is read and removed; ``reader @ along`` is 1.
        centre: ``(width,)``, the state that stays where it is.
    """

    along: Tensor
    reader: Tensor
    centre: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Return the states with what is read set to its value at the centre."""
        along, reader, centre = (one.to(states) for one in (self.along, self.reader, self.centre))
        return states - ((states - centre) @ reader)[..., None] * along


def projection(vector: Tensor) -> Erasure:
    """Return the orthogonal projection that zeroes the coordinate along a vector ``(width,)``, not zero."""
    size = vector.norm()
    if not size > 0:
        raise ValueError("the vector to erase is zero or NaN; expected a direction.")
    return Erasure(vector / size, vector / size, torch.zeros_like(vector))


def leace(first: Tensor, second: Tensor, around: Tensor | None = None) -> Erasure:
    r"""Return the least-squares erasure of the difference of two sets.

    With the difference of the means :math:`d`, mean :math:`\mu` and covariance :math:`\Sigma` it is
    :math:`x - d\,\frac{d^\top\Sigma^+(x-\mu)}{d^\top\Sigma^+d}`: afterwards both sets have the same mean, so that no
    linear classifier tells them apart, and of all affine maps that do this it moves the states least.

    Args:
        first: ``(p, width)``, float64.
        second: ``(p, width)``; of one size, so that the pooled mean lies in their middle.
        around: ``(n, width)``, the states whose mean and covariance count, where the map is to be applied to others
            than both sets; default both sets.

    Raises:
        ValueError: sets of different shape, NaN, or of the same mean.

    Source: Belrose et al. (2023), LEACE, arXiv:2306.03819, Theorem 4.3, written out for two classes. Differs from:
        theirs with ``around``, which is least for those states and not for both sets.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"the sets have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected one of both.")
    given = torch.cat([first, second]) if around is None else around
    check.finite("vectors", given)
    along = first.mean(0) - second.mean(0)
    reader = torch.linalg.pinv(given.T.cov(), rtol=1e-6, hermitian=True) @ along
    read = reader @ along
    if not read > 0:
        raise ValueError("the two sets have the same mean within what varies, so there is nothing to erase.")
    return Erasure(along, reader / read, given.mean(0))
