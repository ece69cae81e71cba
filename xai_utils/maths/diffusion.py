r"""Network diffusion: filter the spectrum of every layer's attention before the layers are rolled out.

The routine that gave this idea its pictures was never published. These are reconstructions of the family it names: one
function per filter and one driver, :func:`diffuse`. Maps are ``(layer, ..., query, key)``; no model is met here.

Two kinds must not be mixed up. ``spectral`` and ``rank`` filter *singular* values, and keep readers (rows) and read
(columns) apart. ``pagerank`` and ``heat`` are functions of the matrix itself, that is of its walks: as filters of
singular values they would not be defined, because they send 0 to something else than 0, and the singular vectors of 0
are arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from xai_utils import check
from xai_utils.maths import rollout


@dataclass(frozen=True)
class Filter:
    """One line of :data:`FILTERS`: the function, what its parameter is called, and the value it has by default."""

    apply: Callable[[Tensor, float], Tensor]
    parameter: str
    default: float


def diffuse(maps: Tensor, filter: str = "spectral", strength: float | None = None) -> Tensor:
    """Filter every map, clip at 0 and divide the rows by their sums.

    Args:
        maps: head-fused attention ``(layer, ..., query, key)``; rows sum to 1.
        filter: a name in :data:`FILTERS`; ``"identity"`` returns ``maps`` as they are.
        strength: the filter's parameter (alpha, restart, time or rank); ``None`` takes its default.

    Returns:
        ``(layer, ..., query, key)``, rows sum to 1; a single token can only attend to itself.

    Raises:
        ValueError: maps that are not square or no probabilities, NaN, an unknown filter, a parameter outside its range.

    Differs from: the published pictures, whose formula is not known; from any of its probable forms by the guard
        (divide by the largest singular value, clip, rescale rows), without which a pole lies in the spectrum.
    """
    check.square_stack("maps", maps)
    check.row_stochastic("maps", maps)
    check.one_of("filter", filter, tuple(FILTERS))
    chosen = FILTERS[filter]
    strength = chosen.default if strength is None else strength
    found = chosen.apply(maps, strength)
    return found if filter == "identity" else rollout.renormalise(found.clamp(min=0))


def grid(maps: Tensor, filters: Mapping[str, float], skips: Sequence[float], query: int = 0) -> Tensor:
    """Roll out every filter at every share of the skip connection; each filter is applied once.

    Args:
        maps: of one sample, ``(layer, query, key)``; rows sum to 1.
        filters: a name in :data:`FILTERS` to its strength.
        skips: shares of the skip connection, each in [0, 1].
        query: the position that is read.

    Returns:
        ``(filter, skip, token)``: what the position reads of each token, in shares of 1.

    Raises:
        ValueError: as :func:`diffuse`; a skip outside [0, 1].
    """
    for skip in skips:
        check.share("skip", skip)
    kept = torch.tensor(skips, dtype=maps.dtype, device=maps.device)[:, None]
    start = torch.zeros(len(skips), maps.shape[-1], dtype=maps.dtype, device=maps.device)
    start[:, query] = 1
    found = []
    for name, strength in filters.items():
        row = start
        for one in diffuse(maps, name, strength).flip(0):
            row = kept * row + (1 - kept) * (row @ one)
        found.append(row)
    return torch.stack(found)


def identity(maps: Tensor, _: float = 0.0) -> Tensor:
    """Change nothing: rollout of the result is plain rollout."""
    return maps


def spectral(maps: Tensor, alpha: float = 0.8) -> Tensor:
    r"""Send singular values ``s`` to :func:`spectral_map` after division by the largest; vectors stay.

    For :math:`M = A/s_1` this is :math:`(1-\alpha)\,M\,(I - \alpha M^\top M)^{-1}`, a sum of walks back and forth,
    :math:`(1-\alpha)\sum_k \alpha^k M (M^\top M)^k`: no singular vectors are needed, and nothing turns negative.

    Args:
        maps: ``(..., query, key)``.
        alpha: in [0, 1); 0 changes nothing but the scale, close to 1 leaves the first singular vectors only.

    Returns:
        ``(..., query, key)`` with largest singular value 1; neither clipped nor rescaled.

    Source: the fixed point of W <- alpha M W^T M + (1 - alpha) M, after Wang et al. (2018), doi
        10.1038/s41467-018-05469-x, where M is symmetric. A reconstruction.
    """
    check.share("alpha", alpha, below=1)
    top = largest_value(maps)[..., None, None]
    if not top.all():
        raise ValueError("a map is zero everywhere: it has no spectrum to filter.")
    return _walks(maps / top, alpha)


def largest_value(maps: Tensor) -> Tensor:
    """Return the largest singular value of every map, ``(...)``: the root of the largest eigenvalue of ``M^T M``.

    A third of the time of a decomposition; the root halves no digits of the largest one.
    """
    return torch.linalg.eigvalsh(maps.mT @ maps)[..., -1].clamp(min=0).sqrt()


def spectral_map(values: Tensor, alpha: float) -> Tensor:
    r"""Return :math:`(1-\alpha)s/(1-\alpha s^2)` for singular values ``s``; its pole is at :math:`\alpha^{-1/2}`."""
    check.share("alpha", alpha, below=1)
    return (1 - alpha) * values / (1 - alpha * values.square())


def unguarded(maps: Tensor, alpha: float = 0.8) -> Tensor:
    """Apply :func:`spectral_map` to the singular values as they come, to see what the pole does; not for use.

    A row-stochastic map has its largest singular value between 1 and the root of the number of tokens, so the pole at
    ``alpha ** -0.5`` lies inside that range for every positive alpha above 1 / tokens.
    """
    left, values, right = torch.linalg.svd(maps)
    return left * spectral_map(values, alpha)[..., None, :] @ right


def rank(maps: Tensor, count: float = 4) -> Tensor:
    """Keep the ``count`` largest singular values, the best approximation of that rank (Eckart & Young 1936).

    Raises:
        ValueError: not a whole number from 1 to the number of tokens; equal singular values on both sides of the cut,
            where the best approximation is not unique; a token that loses its whole row.
    """
    tokens = maps.shape[-1]
    if count != int(count) or not 1 <= count <= tokens:
        raise ValueError(f"rank is {count}, expected a whole number from 1 to the {tokens} tokens of the map.")
    k = int(count)
    values, vectors = _largest_vectors(maps, min(k + 1, tokens))
    rounding = 8 * torch.finfo(maps.dtype).eps * values[..., 0]
    if k < tokens and ((values[..., k - 1] - values[..., k] < rounding) & (values[..., k] > tokens * rounding)).any():
        raise ValueError(f"singular values {k} and {k + 1} of a map are equal, so rank {k} is ambiguous; try another.")
    right = vectors[..., :k]
    kept = (maps.double() @ right @ right.mT).to(maps)
    if (kept.clamp(min=0).sum(-1) <= rounding[..., None]).any():
        raise ValueError(
            f"at rank {k} a token reads nothing any more: the map has unconnected parts; try a larger rank."
        )
    return kept


def _largest_vectors(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest singular values and their right vectors ``(..., key, value)``, float64, the largest first.

    They are the eigenvectors of ``M^T M``, of which only those asked for are worked out, in double precision.
    """
    tokens, squares = maps.shape[-1], maps.double().mT @ maps.double()
    found = [
        eigh(one, subset_by_index=[tokens - count, tokens - 1])
        for one in squares.view(-1, tokens, tokens).cpu().numpy()
    ]
    values, vectors = (
        torch.from_numpy(np.stack(one)[..., ::-1].copy()).to(maps.device) for one in zip(*found, strict=True)
    )
    return values.clamp(min=0).sqrt().view(*maps.shape[:-2], count), vectors.view(*maps.shape[:-1], count)


def pagerank(maps: Tensor, restart: float = 0.15) -> Tensor:
    r"""Walk until a restart: :math:`\rho\,(I - (1-\rho) A)^{-1}`, rows sum to 1.

    Args:
        maps: ``(..., query, key)``; rows sum to 1.
        restart: probability ``rho`` of stopping at every step, in (0, 1]; at 1 nobody moves.

    Source: personalised PageRank as in Gasteiger et al. (2019), arXiv:1911.05485, Eq. 2 with its coefficients (a).
    Differs from: them, who symmetrise first, which loses who reads and who is read.
    """
    check.share("restart", restart)
    if restart == 0:
        raise ValueError("restart is 0, expected more: a walk that never stops forgets where it began.")
    eye = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    return torch.linalg.solve(eye - (1 - restart) * maps, (restart * eye).expand_as(maps))


def heat(maps: Tensor, time: float = 3.0) -> Tensor:
    """Diffuse for a while: ``exp(-time (I - A))``, rows sum to 1.

    Args:
        maps: ``(..., query, key)``; rows sum to 1.
        time: mean number of steps of the walk, 0 and above.

    Source: heat kernel as in Gasteiger et al. (2019), arXiv:1911.05485. Differs as in :func:`pagerank`.
    """
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"time is {time}, expected a number of steps of 0 and above.")
    eye = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    return torch.linalg.matrix_exp(time * (maps - eye))


def enhancement(maps: Tensor, alpha: float = 0.9, neighbours: int | None = None) -> Tensor:
    """Denoise each map as an undirected network: nearest neighbours, transition field, spectral map, old degrees.

    The transition field is symmetric, its rows sum to 1 and its eigenvalues lie in [0, 1], so there is no pole here.

    Args:
        maps: ``(..., query, key)``, not negative.
        alpha: as in :func:`spectral`, 0.9 in the paper.
        neighbours: strongest links kept of every token; by default a tenth of the tokens, 1 to 20.

    Returns:
        ``(..., query, key)``, symmetric, empty diagonal; a token without any link keeps a one on its diagonal.

    Source: Wang et al. (2018), doi 10.1038/s41467-018-05469-x, Eqs. 1-4, with the self-weights of their code.
    Differs from: it in what goes in: attention is directed, and is symmetrised here, which loses who reads whom.
    """
    check.share("alpha", alpha, below=1)
    tokens = maps.shape[-1]
    neighbours = min(20, math.ceil(tokens / 10)) if neighbours is None else neighbours
    check.at_least_one("neighbours", neighbours)
    links = _symmetric(_hollow(maps))
    strongest = links.topk(min(neighbours, tokens), dim=-1)
    near = _symmetric(torch.zeros_like(links).scatter(-1, strongest.indices, strongest.values))
    near.diagonal(dim1=-2, dim2=-1).add_(1 + near.sum(-1))
    spread = _walks(transition_field(rollout.renormalise(near)), alpha)
    leaving = (1 - spread.diagonal(dim1=-2, dim2=-1)).clamp(min=torch.finfo(maps.dtype).tiny)
    enhanced = _symmetric(links.sum(-1, keepdim=True) * _hollow(spread) / leaving[..., None, :])
    enhanced.diagonal(dim1=-2, dim2=-1).add_((enhanced.sum(-1) <= 0).to(maps.dtype))
    return enhanced


def transition_field(steps: Tensor) -> Tensor:
    """Return the sum over v of ``P_iv P_jv`` / (column sum of v): symmetric, rows sum to 1 where those of ``P`` do."""
    weights = steps.sum(-2, keepdim=True)
    return steps / weights.where(weights > 0, 1.0) @ steps.mT


def _walks(maps: Tensor, alpha: float) -> Tensor:
    """Solve ``X (I - alpha M^T M) = (1 - alpha) M``: the spectral map without a decomposition."""
    eye = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    return torch.linalg.solve(eye - alpha * maps.mT @ maps, (1 - alpha) * maps, left=False)


def _hollow(maps: Tensor) -> Tensor:
    """Empty the diagonal."""
    return maps - torch.diag_embed(maps.diagonal(dim1=-2, dim2=-1))


def _symmetric(maps: Tensor) -> Tensor:
    return (maps + maps.mT) / 2


FILTERS: dict[str, Filter] = {
    "identity": Filter(identity, "nothing", 0.0),
    "spectral": Filter(spectral, "alpha", 0.8),
    "enhancement": Filter(enhancement, "alpha", 0.9),
    "pagerank": Filter(pagerank, "restart", 0.15),
    "heat": Filter(heat, "time", 3.0),
    "rank": Filter(rank, "rank", 4),
}
