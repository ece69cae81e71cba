"""Attention, rolled out or not, and gradients at the tokens: methods that score one observed sample, no further pass.

Each takes a :class:`observation.View` and options, and returns ``(scores of every position, details)``. ``row`` says
which row of the ``(query, key)`` matrix is read: ``"reader"``, the token that the answer is read from ([CLS] of a
classifier, [MASK], the last one of a decoder; the mean of the rows where it is read from several); ``"max"`` or
``"mean"`` over queries; or a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xai_utils import check
from xai_utils.maths import attcat as attcat_maths
from xai_utils.maths import diffusion, flow, rollout, selective
from xai_utils.methods.observation import View

ROWS = ("reader", "max", "mean")
MOST_PIPES = 3_500_000  #: of a flow, starts counted: 12 layers of 512 tokens; beyond, one sample can take minutes
MOST_READERS = 32  #: tokens from which a flow begins, at most
Score = tuple[Tensor, dict[str, Any]]


def raw_attention(view: View, layer: int = -1, head: int | None = None, row: str | int = "reader") -> Score:
    """Attention of one layer: one head or their mean, read along one row (see :func:`read_row`)."""
    check.index("layer", layer, len(view.attention))
    _reads_others(view, row)
    maps = view.attention[layer]
    if head is not None:
        check.index("head", head, len(maps))
    return read_row(maps.mean(0) if head is None else maps[head], row, view.reads), {}


def attention_rollout(
    view: View,
    fusion: str = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    row: str | int = "reader",
    layer: int = -1,
    sink: bool = True,
    normalise: bool = False,
) -> Score:
    """Attention rollout from the given layer down (see :func:`rollout.fuse` and :func:`rollout.rollout`).

    Without ``sink`` nobody reads the first token, at which attention that has nothing to read is parked (see
    :func:`rollout.without_key`). The rows of a fusion by ``"max"`` or ``"min"`` do not sum to 1, so the skip counts
    less or more beside them than ``residual`` says; with ``normalise`` they are divided by their sums first.
    """
    _reads_others(view, row)
    maps = rollout.fuse(_below(view.attention, layer), fusion, discard, keep=0)
    maps = rollout.renormalise(maps) if normalise else maps
    return _roll(view, maps if sink else rollout.without_key(maps, 0), residual, row)


def diffusion_rollout(
    view: View,
    filter: str = "spectral",
    strength: float | None = None,
    residual: float = 0.5,
    row: str | int = "reader",
    layer: int = -1,
) -> Score:
    """Rollout of the head means after a filter of their spectrum (see :func:`diffusion.diffuse`)."""
    _reads_others(view, row)
    maps = diffusion.diffuse(rollout.fuse(_below(view.attention, layer)), filter, strength)
    return _roll(view, maps, residual, row)


def selective_rollout(
    view: View,
    threshold: float = 0.1,
    distance: str = "total_variation",
    residual: float = 0.5,
    row: str | int = "reader",
    layer: int = -1,
) -> Score:
    """Rollout through the layers that differ enough from the last one used (see :mod:`selective`)."""
    _reads_others(view, row)
    found = selective.selective_rollout(
        rollout.fuse(_below(view.attention, layer)), threshold, distance, residual=residual
    )
    return read_row(found.rolled[-1], row, view.reads), {"used": found.used.nonzero()[:, 0].tolist()}


def gradient_rollout(
    view: View,
    discard: float = 0.0,
    residual: float = 0.5,
    row: str | int = "reader",
    layer: int = -1,
    fusion: str = "mean",
    normalise: bool = False,
) -> Score:
    """Rollout of attention weighted by its own gradient (see :func:`rollout.gradient_weighted`).

    Args:
        view: with gradients.
        discard: share of the smallest entries set to zero.
        residual: share of the skip connection. The weighted rows sum to far less than 1, so beside them the skip counts
            for more; what it counts in the end, the median over layers and rows, is in the details as ``"skip"``.
        row: which is read.
        layer: from which down.
        fusion: of the heads, see :func:`rollout.fuse`.
        normalise: divide the weighted rows by their sums first, so that ``residual`` is what the skip counts.
    """
    assert view.gradient is not None
    _reads_others(view, row)
    pair = _below(view.attention, layer), _below(view.gradient, layer)
    maps = rollout.gradient_weighted(*pair, discard, 0, fusion)
    maps = rollout.renormalise(maps) if normalise else maps
    return _roll(view, maps, residual, row)[0], {"skip": float(rollout.skip_share(maps, residual).median())}


def attention_flow(view: View, residual: float = 0.5, layer: int = -1, row: int | None = None) -> Score:
    """Maximum flow from one position behind a layer to every input token, as shares (see :mod:`flow`).

    By default from the readers, the mean of their shares. More than :data:`MOST_PIPES` are refused.
    """
    if row is None and len(view.reads) > MOST_READERS:
        raise ValueError(
            f"the answer is read from {len(view.reads)} tokens, and flows from all of them take too long; say from "
            "which one, such as row=0."
        )
    _reads_others(view, "reader" if row is None else row)
    if row is not None:
        check.index("row", row, view.attention.shape[-1])
    rows = view.reads if row is None else [row % view.attention.shape[-1]]
    _soon_done(view.attention, layer, len(rows))
    steps = rollout.mix(rollout.fuse(view.attention).double(), residual)
    return flow.flow_shares(flow.flow(steps, layer, rows)).mean(0), {}


def _soon_done(attention: Tensor, layer: int, starts: int) -> None:
    """Refuse a flow that takes minutes; up to the second layer there is a formula."""
    layers, tokens = len(_below(attention, layer)), attention.shape[-1]
    if layers > 2 and (pipes := layers * tokens**2 * starts) > MOST_PIPES:
        raise ValueError(
            f"a flow through {layers} layers of {tokens} tokens from {starts} of them has {pipes / 1e6:.1f} million "
            f"pipes, and above {MOST_PIPES / 1e6:.1f} million one sample can take minutes. Take rollout, layer=1, or a "
            "smaller input; maths.flow.flow has no limit."
        )


def gradient_norm(view: View) -> Score:
    """Length of the gradient at each token entering the first block.

    The sum over the width of the gradient at a word embedding *before* a LayerNorm is zero in exact arithmetic, so
    the level matters: here it is behind the LayerNorm of BERT's embeddings, and the token itself in a ViT.
    """
    assert view.embedding_gradient is not None
    return view.embedding_gradient.norm(dim=-1), {}


def gradient_x_input(view: View) -> Score:
    """Inner product of each token entering the first block with its gradient; same level as :func:`gradient_norm`."""
    assert view.embedding is not None and view.embedding_gradient is not None
    return (view.embedding * view.embedding_gradient).sum(-1), {}


def attcat(view: View, weight: str = "reader row") -> Score:
    """AttCAT: attention times the gradient's share of every token's activation, added over the layers.

    Args:
        view: with gradients.
        weight: ``"reader row"``, the attention that the reader pays; or ``"received"``, the column mean of the code.

    Source: Qiang et al. (2022), AttCAT; see :mod:`attcat` for both readings.
    """
    check.one_of("weight", weight, ("reader row", "received"))
    assert view.states is not None and view.state_gradients is not None
    attention = view.attention[:, None]  # one sample
    real = torch.ones(1, attention.shape[-1], dtype=torch.bool, device=attention.device)
    if weight == "reader row":
        rows = [attcat_maths.paid(attention, torch.tensor([one], device=attention.device)) for one in view.reads]
        paid = torch.stack(rows).mean(0)
    else:
        paid = attcat_maths.received(attention, real)
    activation = attcat_maths.cat(view.states[:-1, None], view.state_gradients[:-1, None])
    return attcat_maths.attcat(paid, activation)[:, 0].sum(0), {"weight": weight}


def read_row(matrix: Tensor, row: str | int, reads: Sequence[int] = (0,)) -> Tensor:
    """Read a ``(query, key)`` matrix: the mean of the rows of the readers, ``"max"`` or ``"mean"``, or one row."""
    if isinstance(row, int):
        check.index("row", row, len(matrix))
        return matrix[row]
    check.one_of("row", row, ROWS)
    if row == "reader":
        return matrix[list(reads)].mean(0)
    return matrix.amax(0) if row == "max" else matrix.mean(0)


def _reads_others(view: View, row: str | int) -> None:
    """Refuse to read the first token of a causal model: it comes before all others and reads none of them."""
    first = (view.reading if row == "reader" else row) == 0 and (row != "reader" or len(view.reads) == 1)
    if first and view.attention.shape[-1] > 1 and not view.attention[..., 0, 1:].any():
        raise ValueError(
            "the row that is read is that of the first token, which reads only itself in every layer and head, as in a "
            "causal model such as GPT-2. Take the last token, which reads all (row=-1), or row='mean'."
        )


def _below(maps: Tensor, layer: int) -> Tensor:
    """Return the layers up to and with ``layer``."""
    check.index("layer", layer, len(maps))
    return maps[: layer % len(maps) + 1]


def _roll(view: View, maps: Tensor, residual: float, row: str | int) -> Score:
    """Roll out; a single row is carried as a vector, which costs a token's share of the full product."""
    if isinstance(row, int) or (row == "reader" and len(view.reads) == 1):
        return rollout.rollout_row(maps, view.reading if row == "reader" else int(row), residual, rescale=True), {}
    return read_row(rollout.rollout(maps, residual, rescale=True)[-1], row, view.reads), {}
