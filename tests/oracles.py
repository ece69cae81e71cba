"""The same quantities computed slowly and literally, and a published version with its two mistakes."""

from itertools import product
from math import comb, exp

import torch


def rollout(maps, residual=0.5, rescale=False):
    """Add up the weights of all paths from a query down to an input, one path at a time."""
    tokens = maps.shape[-1]
    steps = [_step(matrix.tolist(), residual, rescale) for matrix in maps]
    out = [[[0.0] * tokens for _ in range(tokens)] for _ in steps]
    for layer in range(len(steps)):
        for path in product(range(tokens), repeat=layer + 2):  # the first is the input, the last the query
            weight = 1.0
            for step, key, query in zip(steps, path, path[1:], strict=False):
                weight *= step[query][key]
            out[layer][path[-1]][path[0]] += weight
    return torch.tensor(out, dtype=torch.float64)


def _step(matrix, residual, rescale):
    rows = []
    for query, row in enumerate(matrix):
        mixed = [(1 - residual) * weight + residual * (key == query) for key, weight in enumerate(row)]
        if rescale:
            total = sum(mixed)
            mixed = [weight / total if total else float(key == query) for key, weight in enumerate(mixed)]
        rows.append(mixed)
    return rows


def fuse(attention, fusion="mean", discard=0.0, keep=None):
    """Fuse ``(layer, sample, head, query, key)`` entry by entry; drop the smallest of each map by sorting."""
    choose = {"mean": lambda values: sum(values) / len(values), "max": max, "min": min}[fusion]
    return _each_map(attention, lambda heads: _drop([choose(v) for v in zip(*heads, strict=True)], discard, keep))


def gradient_weighted(attention, gradient, discard=0.0, keep=None):
    """Average attention times gradient over heads, entry by entry, and keep what is positive."""

    def weigh(heads):
        means = [sum(values) / len(values) for values in zip(*heads, strict=True)]
        return _drop([max(0.0, mean) for mean in means], discard, keep)

    return _each_map(attention * gradient, weigh)


def _each_map(maps, weigh):
    """Call ``weigh`` with the flat heads of every layer and sample."""
    tokens = maps.shape[-1]
    out = [[weigh([head.flatten().tolist() for head in heads]) for heads in layer] for layer in maps]
    return torch.tensor(out, dtype=torch.float64).view(*maps.shape[:2], tokens, tokens)


def _drop(values, share, keep):
    smallest_first = sorted(range(len(values)), key=values.__getitem__)
    for place in smallest_first[: int(share * len(values))]:
        if place != keep:
            values[place] = 0.0
    return values


def vit_explain(attention, gradient=None, fusion="mean", discard=0.0, by_row=False, own_layer=False):
    """Return the published rollout map of one picture, ``(patch,)`` divided by its maximum.

    As published, columns are divided by the sums of rows, and each layer meets the gradient of the layer at the same
    distance from the other end. ``by_row`` and ``own_layer`` put the one and the other right.
    """
    identity = torch.eye(attention.shape[-1], dtype=attention.dtype)
    rolled = identity
    if gradient is not None and not own_layer:
        gradient = gradient.flip(0)
    for layer, maps in enumerate(attention):
        if gradient is None:
            fused = {"mean": maps.mean(0), "max": maps.amax(0), "min": maps.amin(0)}[fusion]
        else:
            fused = (maps * gradient[layer]).mean(0).clamp(min=0)
        flat = fused.flatten()
        lowest = flat.topk(int(len(flat) * discard), largest=False).indices
        flat[lowest if gradient is not None else lowest[lowest != 0]] = 0
        step = (flat.view_as(fused) + identity) / 2
        rolled = (step / step.sum(-1, keepdim=by_row)) @ rolled
    return rolled[0, 1:] / rolled[0, 1:].max()


def mixing_ratio(attention, values, hidden):
    """Compare context with self, token by token and head by head, for ``(layer, head, query, key)``."""
    layers, heads, tokens = attention.shape[:3]
    out = torch.zeros(layers, tokens, dtype=torch.float64)
    for layer, query in product(range(layers), range(tokens)):
        context, kept = torch.zeros_like(hidden[0, 0]), hidden[layer, query].clone()
        for head, key in product(range(heads), range(tokens)):
            part = attention[layer, head, query, key] * values[layer, head, key]
            if key == query:
                kept += part
            else:
                context += part
        around, own = (sum(float(x) ** 2 for x in vector) ** 0.5 for vector in (context, kept))
        out[layer, query] = around / (around + own)
    return out


def lime_population(masks, values, width):
    """Regress on all masks at once, each weighted by how likely it is drawn times LIME's kernel."""
    words = masks.shape[1]
    weights = []
    for mask in masks.tolist():
        dropped = words - sum(mask)
        far = 1 - ((words - dropped) / words) ** 0.5
        weights.append(exp(-(far**2) / (2 * width**2)) / words / comb(words, dropped))
    roots = torch.tensor(weights, dtype=torch.float64).sqrt()
    design = torch.cat([torch.ones(len(masks), 1, dtype=torch.float64), masks.double()], 1)
    return torch.linalg.lstsq(roots[:, None] * design, roots * values, driver="gelsd").solution[1:]


def attention_output(embeddings, query, key, value, readout):
    """Score of one head, token by token: what the class token, the first, makes of them."""
    asks = [sum(float(w) * float(x) for w, x in zip(row, embeddings[0], strict=True)) for row in query]
    rates, says = [], []
    for token in embeddings:
        keys = [sum(float(w) * float(x) for w, x in zip(row, token, strict=True)) for row in key]
        values = [sum(float(w) * float(x) for w, x in zip(row, token, strict=True)) for row in value]
        rates.append(exp(sum(a * b for a, b in zip(asks, keys, strict=True)) / len(asks) ** 0.5))
        says.append(sum(float(w) * v for w, v in zip(readout, values, strict=True)))
    return sum(rate * said for rate, said in zip(rates, says, strict=True)) / sum(rates)
