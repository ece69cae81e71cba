r"""DensRay: the direction along which two sets of vectors differ most, in closed form. Pure functions.

With weights :math:`c_{ij}` of pairs and :math:`u(v) = vv^T/\|v\|^2` (or :math:`vv^T`), the matrix
:math:`A = \sum_{ij} c_{ij}\, u(z_i - z_j)` equals :math:`2\,[Z^T \mathrm{diag}(M 1) Z - Z^T M Z]` for
:math:`M_{ij} = c_{ij}/\|z_i - z_j\|^2`: one product in place of a loop over all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xai_utils import check

BLOCK = 2048  # rows of the pair matrix held at once


@dataclass(frozen=True)
class Direction:
    """The solution for two sets, or for labelled vectors.

    Attributes:
        matrix: ``A``, ``(width, width)``.
        eigenvalues: ``(width,)``, largest first.
        rotation: ``(width, width)``, eigenvectors as columns in the same order; orthogonal.
    """

    matrix: Tensor
    eigenvalues: Tensor
    rotation: Tensor

    @property
    def vector(self) -> Tensor:
        """The first eigenvector ``(width,)``, of length 1; its positive side is that of the first set."""
        return self.rotation[:, 0]

    @property
    def explained(self) -> float:
        """Share of the sum of the positive eigenvalues that the first one has, in [0, 1].

        The normalised matrix has a trace near 0, so that of ``|eigenvalues|`` no share could exceed one half.
        """
        return float(self.eigenvalues[0] / self.eigenvalues.clamp_min(0).sum())


def densray(first: Tensor, second: Tensor, normalised: bool = True) -> Direction:
    r"""Return the direction that separates two sets: the top eigenvector of :math:`A_{\ne}/2pq - A_{=}/(p^2+q^2)`.

    Args:
        first: ``(p, width)``; the vector points from the second set to this one.
        second: ``(q, width)``.
        normalised: let every pair count the same (published), or by its squared distance.

    Raises:
        ValueError: an empty set, different widths, NaN, or vectors that are all identical.

    Source: Dufter & Schütze (2019), arXiv:1904.08654, Eq. 3. Differs from: their code, whose eigenvector has an
        arbitrary sign, and which divides the matrix by its largest entry (this changes no eigenvector).
    """
    for name, side in (("first", first), ("second", second)):
        if side.ndim != 2 or 0 in side.shape:
            raise ValueError(f"the {name} set has shape {tuple(side.shape)}, expected (vectors, width), not empty.")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the sets have widths {first.shape[1]} and {second.shape[1]}; they must come from one layer.")
    p, q = len(first), len(second)
    labels = torch.cat([first.new_ones(p), -first.new_ones(q)])
    across, within = 1 / (2 * p * q), 1 / (p * p + q * q)
    # c = across where labels differ, -within where they agree
    return _solve(torch.cat([first, second]), labels, (across - within) / 2, (across + within) / 2, normalised)


def densray_continuous(vectors: Tensor, labels: Tensor, normalised: bool = True) -> Direction:
    r"""Return the direction along which a real label grows: top eigenvector of :math:`-\sum g_i g_j u(x_i - x_j)`.

    Args:
        vectors: ``(n, width)``.
        labels: ``(n,)`` real numbers, standardised here to mean 0 and variance 1.
        normalised: as in :func:`densray`.

    Raises:
        ValueError: labels that are all equal, or another number of labels than vectors.
    """
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(f"{tuple(labels.shape)} labels do not fit vectors {tuple(vectors.shape)}.")
    spread = labels.std(correction=0)
    if not spread > 0:
        raise ValueError("all labels are equal, so no direction tells them apart.")
    return _solve(vectors, (labels - labels.mean()) / spread, 0.0, 1.0, normalised)


def mean_difference(first: Tensor, second: Tensor) -> Tensor:
    """Return the normalised difference of the means ``(width,)``; unnormalised DensRay of equal numbers *is* it."""
    difference = first.mean(0) - second.mean(0)
    if not difference.norm() > 0:
        raise ValueError("the two sets have the same mean, so no direction tells them apart.")
    return difference / difference.norm()


def project(states: Tensor, vector: Tensor) -> Tensor:
    """Return the coordinate of ``(..., width)`` along a unit vector."""
    return states @ vector


def remove(states: Tensor, vector: Tensor) -> Tensor:
    """Return states without their coordinate along a unit vector: rotate, zero it, rotate back, in one step."""
    return states - project(states, vector)[..., None] * vector


def _solve(vectors: Tensor, labels: Tensor, same: float, product: float, normalised: bool) -> Direction:
    """Decompose the scatter with pair weights ``same - product * label_i * label_j``."""
    check.finite("vectors", vectors)
    matrix = _scatter(vectors, labels, same, product, normalised)
    if not matrix.abs().max() > 0:
        raise ValueError(f"the {len(vectors)} vectors are identical, so no direction tells them apart.")
    values, columns = torch.linalg.eigh(matrix)
    columns = columns.flip(1)
    if (labels * (vectors @ columns[:, 0])).sum() < labels.mean() * (vectors @ columns[:, 0]).sum():
        columns = torch.cat([-columns[:, :1], columns[:, 1:]], 1)
    return Direction(matrix, values.flip(0), columns)


def _scatter(vectors: Tensor, labels: Tensor, same: float, product: float, normalised: bool) -> Tensor:
    """Return the matrix of all pairs, of weight ``same - product * label_i * label_j``."""
    centred = vectors - vectors.mean(0)  # differences stay; rounding shrinks
    if not normalised:
        sums = same * len(labels) - product * labels * labels.sum()
        total, tilted = centred.sum(0), centred.T @ labels
        crossed = same * torch.outer(total, total) - product * torch.outer(tilted, tilted)
        return 2 * ((centred.T * sums) @ centred - crossed)
    squares = centred.square().sum(1)
    matrix = vectors.new_zeros(vectors.shape[1], vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        weights = _weights(centred, squares, rows) * (same - product * labels[rows, None] * labels)
        matrix += (centred[rows].T * weights.sum(1)) @ centred[rows] - centred[rows].T @ (weights @ centred)
    return matrix + matrix.T


def _weights(vectors: Tensor, squares: Tensor, rows: slice) -> Tensor:
    """Return one over the squared distances of some rows to all; zero for pairs that coincide up to rounding."""
    both = squares[rows, None] + squares
    distances = torch.addmm(both, vectors[rows], vectors.T, alpha=-2)
    apart = distances > both * (1e-9 if vectors.dtype == torch.float64 else 1e-5)
    return torch.where(apart, 1 / torch.where(apart, distances, 1), 0)
