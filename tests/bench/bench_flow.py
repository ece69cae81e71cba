"""Time attention flow: against a loop over all pairs with networkx, and one row of larger models alone.

The graph for networkx is built once from the pipes that exist; the published code fills a dense adjacency with nested
loops first, which would be slower still.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
import torch
from torch import Tensor

from tests.bench.measure import Against, Row, clock, in_turn, named
from xai_utils.maths.flow import flow
from xai_utils.maths.rollout import mix


def maps(layers: int, tokens: int, sharpness: float = 1.0, sink: float = 0.0, self_weight: float = 0.0) -> Tensor:
    """Draw ``(layer, query, key)`` with half a skip connection; the first token is the sink."""
    noise = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(layers, tokens, tokens, generator=noise, dtype=torch.float64)
    logits[..., 0] += sink
    return mix((logits + self_weight * torch.eye(tokens)).softmax(-1))


def networkx_flow(steps: Tensor) -> Tensor:
    """Solve every pair from the last layer with the default algorithm of networkx (preflow-push)."""
    network, tokens = nx.DiGraph(), steps.shape[-1]
    for level, query, key in steps.nonzero().tolist():
        network.add_edge((level + 1, query), (level, key), capacity=float(steps[level, query, key]))
    top, pairs = len(steps), [(query, key) for query in range(tokens) for key in range(tokens)]
    values = [nx.maximum_flow_value(network, (top, query), (0, key)) for query, key in pairs]
    return torch.tensor(values, dtype=torch.float64).view(tokens, tokens)


def against_networkx(kind: str, steps: Tensor) -> Row:
    """Time all pairs of one stack both ways, and see that they agree."""
    begun = clock()
    theirs = networkx_flow(steps)
    seconds = clock() - begun
    torch.testing.assert_close(flow(steps), theirs, atol=1e-9, rtol=0)
    ours = in_turn({"ours": lambda: flow(steps)}, 3)["ours"]
    case = f"flow of all pairs, {steps.shape[-1]} tokens, {len(steps)} layers, {kind}"
    return Row(case, ours, None, Against(named("networkx"), seconds, 1.0))


def one_row(kind: str, steps: Tensor) -> Row:
    """Time the row of the first token at the last layer."""
    ours = in_turn({"ours": lambda: flow(steps, queries=[0])}, 1)["ours"]
    return Row(f"flow of one row, {steps.shape[-1]} tokens, {len(steps)} layers, {kind}", ours)


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure everything, a row only for small models when ``quick``."""
    tokens, layers = (10, 3) if quick else (20, 6)
    yield against_networkx("mild", maps(layers, tokens))
    yield against_networkx("peaked", maps(layers, tokens, 5.0))
    for tokens in (32,) if quick else (64, 197):
        yield one_row("mild", maps(12, tokens))
        yield one_row("peaked", maps(12, tokens, 5.0))
        yield one_row("strong sink", maps(12, tokens, 1.0, 12.0))
        yield one_row("mostly itself", maps(12, tokens, 1.0, 0.0, 10.0))
