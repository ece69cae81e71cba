r"""Attention flow: how much can travel from a position down to an input token if attention weights are pipes.

Pure functions. The layered graph has one node ``(level, token)`` for each input (level 0) and for each output
of a layer; the pipe from ``(l + 1, query)`` down to ``(l, key)`` carries at most ``steps[l, query, key]``.
Where rollout follows one random walk, flow asks for the most that all pipes can carry together.

How deep values are found; amounts are in units of what one position hands out:

* The pipes into input ``j``, each cut to what its upper end receives, carry no more than their sum, and the
  source no more than its row. The smaller of the two bounds the flow; a flow that meets it is the maximum.
* :func:`_meets_bound` looks for one in three parts that cost a few matrix products. *Gather* carries the
  demand of input ``j`` upwards, *spread* the source's attention downwards, both as evenly as the pipes allow.
  *Link* joins the two over the layers between by a random walk conditioned on both ends: the flow
  :math:`f_{ki} = a_k W_{ki} b_i`, which fits wherever :math:`a_k b_i \le 1`. Whatever is missing at a joint
  lowers the flow by no more than that; if all of it is below ``TOLERANCE``, the bound is the answer.
* Every other pair goes to a maximum-flow solver (push-relabel of igraph, capacities as floats).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate

import igraph
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xai_utils import check

Array = NDArray[np.float64]

TOLERANCE = 1e-11  # largest amount by which a hand-made flow may miss the bound that it proves
NEGLIGIBLE = 1e-16  # narrower pipes are left out: 12 layers of 197 tokens lose less than 1e-10 by it
LINKS = ((4, 5.0), (2, 5.0), (3, 10.0))  # layers to join over, widest pipe in shares of 1 / tokens; found by trial
FEW_PIPES = 2**14  # below this the solver is quicker than the attempt to do without


def flow(
    steps: Tensor, layer: int = -1, queries: Sequence[int] | None = None, inputs: Sequence[int] | None = None
) -> Tensor:
    r"""Compute the maximum flow from positions after one layer to input tokens, each pair on its own.

    Layer 0 is ``steps[0]`` and layer 1 is :math:`\sum_k \min(S_1[i, k], S_0[k, j])`; both are exact. Deeper
    ones are exact to 1e-10, by the ways told at the top of this module.

    Args:
        steps: capacities ``(layer, query, key)``, first layer first; rows sum to 1, as from ``rollout.mix``.
        layer: the flow starts at the output of this layer.
        queries: positions to start from; all by default.
        inputs: input tokens to arrive at; all by default.

    Returns:
        ``(query, input)`` in the order asked for. ``out[i, j]`` lies in [0, 1], where 1 is all that position
        ``i`` hands out. Rows do not sum to 1: every pair has the whole graph to itself.

    Source: Abnar & Zuidema (2020), arXiv:2005.00928, section 3, "attention flow".
    Differs from: the published attention_flow code, which fills a dense adjacency of ((L + 1) n)² nodes, has
        networkx solve each pair on the whole graph, also above the source, and divides rows by their sums.
    """
    layer, sources, sinks = _positions(steps, layer, queries, inputs)
    graph = steps[: layer + 1].detach().to("cpu", torch.float64).numpy()
    first, top = graph[0][:, sinks], graph[layer][sources]
    if layer == 0:
        values = first[sources]
    elif layer == 1:
        values = np.stack([np.minimum(row[:, None], first).sum(0) for row in top])
    else:
        values = _deep(graph, sources, sinks)
    return torch.from_numpy(values).to(steps)


def flow_bound(steps: Tensor) -> Tensor:
    r"""Return the most that can reach each input from any position of any layer, ``(input,)`` in [0, 1].

    It is :math:`\min(1, \sum_i S_0[i, j])`: a position hands out 1 in all, and whatever arrives at input
    ``j`` has come through the first layer's pipes into ``j``, however deep it started. Where flows meet this
    bound, as deep ones often do, they tell column sums of the first layer and nothing of their source.
    """
    _capacities(steps)
    return steps[0].sum(0).clamp(max=1)


def flow_shares(flow: Tensor) -> Tensor:
    """Divide every row of ``(..., query, input)`` by its sum, as the published code does."""
    check.non_negative("flow", flow)
    sums = flow.sum(-1, keepdim=True)
    if not sums.all():
        raise ValueError("flow has a row of zeros, which has no shares; ask flow for all inputs, not for a few.")
    return flow / sums


def _capacities(steps: Tensor) -> None:
    """Refuse what is not a stack of probability maps of one sample."""
    check.square_stack("steps", steps)
    if steps.ndim != 3:
        raise ValueError(f"steps has shape {tuple(steps.shape)}, expected (layer, query, key) of one sample.")
    check.row_stochastic("steps", steps)


def _positions(
    steps: Tensor, layer: int, queries: Sequence[int] | None, inputs: Sequence[int] | None
) -> tuple[int, list[int], list[int]]:
    """Check the arguments of :func:`flow`; count every position from the front."""
    _capacities(steps)
    check.index("layer", layer, len(steps))
    tokens = steps.shape[-1]
    asked = {"queries": queries, "inputs": inputs}
    chosen = {name: list(range(tokens) if these is None else these) for name, these in asked.items()}
    for name, positions in chosen.items():
        if not positions:
            raise ValueError(f"{name} is empty, expected at least one position, or None for all {tokens}.")
        for position in positions:
            check.index(name, position, tokens)
    sources, sinks = ([position % tokens for position in positions] for positions in chosen.values())
    return layer % len(steps), sources, sinks


def _deep(graph: Array, sources: list[int], sinks: list[int]) -> Array:
    """Return the flow ``(query, input)`` through three layers or more."""
    # No more can leave a token than comes in from above.
    first, top = np.minimum(graph[0][:, sinks], graph[1].sum(0)[:, None]), graph[-1][sources]
    values = np.minimum(top.sum(-1)[:, None], first.sum(0))
    proved = np.zeros(values.shape, dtype=bool)
    for linked, widest in LINKS if graph.size >= FEW_PIPES else ():
        if not proved.all():
            proved |= _meets_bound(first, graph[1:-1], top, values, linked, widest)
    if len(unproved := np.argwhere(~proved)):
        solve = _solver(graph)
        for row, column in unproved:
            check.still_wanted()
            values[row, column] = min(values[row, column], solve(sources[row], sinks[column]))
    return values


def _solver(graph: Array) -> Callable[[int, int], float]:
    """Build the layered graph once, for a function that solves one pair after the other."""
    layers, tokens = graph.shape[:2]
    level, query, key = np.nonzero(graph > NEGLIGIBLE)
    capacity = graph[level, query, key].tolist()
    pipes = np.stack([(level + 1) * tokens + query, level * tokens + key], axis=1)
    network = igraph.Graph(n=(layers + 1) * tokens, edges=pipes, directed=True)
    return lambda source, sink: network.maxflow_value(layers * tokens + source, sink, capacity)


def _meets_bound(
    first: Array, middle: Array, top: Array, bound: Array, linked: int, widest: float
) -> NDArray[np.bool_]:
    """Say for which ``(query, input)`` a flow as large as ``bound`` was found; others may have one too."""
    linked = min(linked, len(middle))
    below = len(middle) - linked - min(3, (len(middle) - linked) // 2)
    # The walk prefers wide pipes as strongly as attention does and would overfill them: cut them down.
    link = np.minimum(middle[below : below + linked], widest / len(first))
    most = bound.max(0)
    demand, short = _carry(middle[:below], first * _divide(most, first.sum(0)))
    supply, _ = _carry(middle[below + linked :].transpose(0, 2, 1)[::-1], (top / top.sum(-1)[:, None]).T)
    missing = [
        short + _link(link, np.outer(sent, goal), demand * _divide(goal, most))
        for sent, goal in zip(supply.T, bound, strict=True)
    ]
    return np.stack(missing) <= TOLERANCE


def _carry(layers: Array, mass: Array) -> tuple[Array, Array]:
    """Carry ``mass`` ``(token, column)`` through ``layers`` ``(layer, next, token)``; also return the loss.

    Tokens share their mass among the pipes by :func:`_fill`; the loss ``(column,)`` is what found no room.
    """
    total = mass.sum(0)
    for capacity in layers:
        mass = _fill(capacity, mass)
    return mass, np.abs(total - mass.sum(0))


def _fill(capacity: Array, mass: Array) -> Array:
    """Hand on each token's mass through its pipes ``capacity[:, token]``, all filled to one level."""
    width = np.sort(capacity, axis=0)
    narrower = np.cumsum(width, axis=0) - width
    others = len(width) - np.arange(len(width))
    carried = narrower + others[:, None] * width  # by all pipes together, at the level of this pipe's width
    handed = np.zeros_like(mass)
    for token, amount in enumerate(mass):
        check.still_wanted()
        pipe = np.searchsorted(carried[:, token], amount).clip(max=len(width) - 1)
        level = (amount - narrower[pipe, token]) / others[pipe]
        handed += np.minimum(capacity[:, token, None], level)
    return handed


def _link(layers: Array, supply: Array, demand: Array, rounds: int = 20) -> Array:
    """Join supply above to demand below, ``(token, column)`` each; return what is missing ``(column,)``.

    Sinkhorn's scaling finds the weights of the walk's two ends. Infinite where they might overfill a pipe.
    """
    walk, start = reduce(np.matmul, layers[::-1]), supply
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(rounds):
            end = _divide(demand, arriving := walk.T @ start)
            above, start = start, _divide(supply, leaving := walk @ end)
        over = np.maximum(above * leaving - supply, 0).sum(0)
        short = np.maximum(demand - end * arriving, 0).sum(0)
        starts = accumulate(layers[:0:-1], lambda mass, layer: layer.T @ mass, initial=above)
        ends = accumulate(layers[:-1], lambda mass, layer: layer @ mass, initial=end)
        fits = [a.max(0) * b.max(0) <= 1 for a, b in zip([*starts][::-1], ends, strict=True)]
        return np.where(np.all(fits, axis=0), over + short, np.inf)


def _divide(amount: Array, by: Array) -> Array:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(amount, by, out=np.zeros_like(amount), where=by > 0)
