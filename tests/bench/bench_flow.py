"""Time attention flow: against a loop over all pairs with networkx, and one row of larger models alone.

The graph for networkx is built once from the pipes that exist;
the published code fills a dense adjacency with nested loops first, which would be slower still.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import networkx as nx
import torch
from torch import Tensor

from xai_utils.maths.flow import flow, flow_bound
from xai_utils.maths.rollout import mix

COLUMNS = ("case", "ours (s)", "networkx (s)", "ratio", "largest difference", "pairs at the bound")


def maps(layers: int, tokens: int, sharpness: float = 1.0, sink: float = 0.0, self_weight: float = 0.0) -> Tensor:
    """Draw ``(layer, query, key)`` with half a skip connection; the first token is the sink."""
    noise = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(layers, tokens, tokens, generator=noise, dtype=torch.float64)
    logits[..., 0] += sink
    return mix((logits + self_weight * torch.eye(tokens)).softmax(-1))


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Return the shortest of several runs, in seconds of processor time (others may share the machine)."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def networkx_flow(steps: Tensor) -> Tensor:
    """Solve every pair from the last layer with the default algorithm of networkx (preflow-push)."""
    network, tokens = nx.DiGraph(), steps.shape[-1]
    for level, query, key in steps.nonzero().tolist():
        network.add_edge((level + 1, query), (level, key), capacity=float(steps[level, query, key]))
    top, pairs = len(steps), [(query, key) for query in range(tokens) for key in range(tokens)]
    values = [nx.maximum_flow_value(network, (top, query), (0, key)) for query, key in pairs]
    return torch.tensor(values, dtype=torch.float64).view(tokens, tokens)


def against_networkx(kind: str, steps: Tensor) -> dict[str, object]:
    """Time all pairs of one stack both ways."""
    found, slow = flow(steps), []
    theirs = seconds(lambda: slow.append(networkx_flow(steps)))
    ours = seconds(lambda: flow(steps), 5)
    values = (ours, theirs, theirs / ours, float((found - slow[0]).abs().max()), at_bound(steps, found))
    return dict(zip(COLUMNS, (f"all pairs, n={steps.shape[-1]}, L={len(steps)}, {kind}", *values), strict=True))


def one_row(kind: str, steps: Tensor) -> dict[str, object]:
    """Time the row of the first token at the last layer."""
    found: list[Tensor] = []
    ours = seconds(lambda: found.append(flow(steps, queries=[0])))
    values = (ours, None, None, None, at_bound(steps, found[0]))
    return dict(zip(COLUMNS, (f"one row, n={steps.shape[-1]}, L={len(steps)}, {kind}", *values), strict=True))


def at_bound(steps: Tensor, found: Tensor) -> float:
    """Return the share of pairs whose flow is the bound of the first layer's column sums."""
    return float((flow_bound(steps) - found < 1e-9).double().mean())


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure everything, a row only for small models when ``quick``; one line of the table each."""
    table = [against_networkx("mild", maps(6, 20)), against_networkx("peaked", maps(6, 20, 5.0))]
    for tokens in (64,) if quick else (64, 197):
        table += [
            one_row("mild", maps(12, tokens)),
            one_row("peaked", maps(12, tokens, 5.0)),
            one_row("strong sink", maps(12, tokens, 1.0, 12.0)),
            one_row("mostly itself", maps(12, tokens, 1.0, 0.0, 10.0)),
        ]
    return [_line(row) for row in table]


def _line(row: dict[str, object]) -> dict[str, object]:
    """Put a measurement under the columns of the whole benchmark."""
    ours, theirs = float(row["ours (s)"]), row["networkx (s)"]  # type: ignore[arg-type]
    return {
        "case": row["case"], "ours": "flow", "compared with": "networkx, pair by pair" if theirs else "",
        "seconds": ours, "theirs (s)": theirs, "ratio": ours / float(theirs) if theirs else None,  # type: ignore[arg-type]
    }  # fmt: skip
