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


_CHOOSE = {"mean": lambda values: sum(values) / len(values), "max": max, "min": min}


def fuse(attention, fusion="mean", discard=0.0, keep=None):
    """Fuse ``(layer, sample, head, query, key)`` entry by entry; drop the smallest of each map by sorting."""
    choose = _CHOOSE[fusion]
    return _each_map(attention, lambda heads: _drop([choose(v) for v in zip(*heads, strict=True)], discard, keep))


def gradient_weighted(attention, gradient, discard=0.0, keep=None, fusion="mean"):
    """Fuse attention times gradient over heads, entry by entry, and keep what is positive."""

    def weigh(heads):
        fused = [_CHOOSE[fusion](values) for values in zip(*heads, strict=True)]
        return _drop([max(0.0, one) for one in fused], discard, keep)

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


def compose(weighted, start=0):
    """Add up the weights of all ways through ``(layer, query, key)`` maps in which every layer may also be skipped."""
    tokens = weighted.shape[-1]
    layers = weighted[start:].tolist()
    out = torch.zeros(tokens, tokens, dtype=torch.float64)
    for path in product(range(tokens), repeat=len(layers) + 1):
        for skipped in product((True, False), repeat=len(layers)):
            weight = 1.0
            for layer, key, query, skip in zip(layers, path, path[1:], skipped, strict=False):
                weight *= float(key == query) if skip else layer[query][key]
            out[path[-1], path[0]] += weight
    return out


def positive_linear(relevance, x, weight):
    """Share each output's relevance among its positive contributions, one by one."""
    handed = [0.0] * len(x)
    for out, row in enumerate(weight.tolist()):
        contributions = [max(0.0, one * entry) for one, entry in zip(x.tolist(), row, strict=True)]
        if total := sum(contributions):
            for place, contribution in enumerate(contributions):
                handed[place] += contribution / total * float(relevance[out])
    return torch.tensor(handed, dtype=torch.float64)


def product_relevance(relevance, left, right):
    """Share the relevance of every entry of ``left @ right`` among its terms, half to each factor of a term."""
    first, second = torch.zeros_like(left), torch.zeros_like(right)
    for row, column in product(range(left.shape[0]), range(right.shape[1])):
        total = sum(float(left[row, k] * right[k, column]) for k in range(left.shape[1]))
        for k in range(left.shape[1]):
            part = float(left[row, k] * right[k, column]) / total * float(relevance[row, column]) / 2
            first[row, k] += part
            second[k, column] += part
    return first, second


def rescaled_addition(relevance, left, right):
    """Share the relevance of one sample's sum, then scale both parts to the shares of their absolute sums."""
    parts = [[], []]
    for r, a, b in zip(relevance.flatten().tolist(), left.flatten().tolist(), right.flatten().tolist(), strict=True):
        parts[0].append(a / (a + b) * r)
        parts[1].append(b / (a + b) * r)
    sums, total = [sum(part) for part in parts], float(relevance.sum())
    wanted = [abs(one) / (abs(sums[0]) + abs(sums[1])) * total for one in sums]
    scaled = [[v * want / got for v in part] for part, want, got in zip(parts, wanted, sums, strict=True)]
    return tuple(torch.tensor(part, dtype=torch.float64).view_as(relevance) for part in scaled)


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


def back_and_forth(maps, alpha, steps=2000):
    """Iterate W <- alpha M W^T M + (1 - alpha) M from M, for M with largest singular value 1."""
    maps = maps / torch.linalg.svdvals(maps)[..., :1, None]
    out = maps
    for _ in range(steps):
        out = alpha * maps @ out.mT @ maps + (1 - alpha) * maps
    return out


def walks(maps, weights):
    """Add up the powers of a map, each with the weight of walks of that length."""
    power, out = torch.eye(maps.shape[-1], dtype=maps.dtype).expand_as(maps), 0.0
    for weight in weights:
        out, power = out + weight * power, power @ maps
    return out


def network_enhancement(attention, alpha, neighbours):
    """Enhance one map link by link, the transition field by four nested loops, the map of eigenvalues one by one."""
    tokens = range(len(attention))
    link = [[(attention[i][j] + attention[j][i]) / 2 if i != j else 0.0 for j in tokens] for i in tokens]
    strongest = [sorted(tokens, key=lambda j, i=i: -link[i][j])[:neighbours] for i in tokens]
    kept = [[link[i][j] if j in strongest[i] else 0.0 for j in tokens] for i in tokens]
    near = [[(kept[i][j] + kept[j][i]) / 2 for j in tokens] for i in tokens]
    near = [[near[i][j] + (1 + sum(near[i]) if i == j else 0) for j in tokens] for i in tokens]
    step = [[near[i][j] / sum(near[i]) for j in tokens] for i in tokens]
    column = [sum(step[i][v] for i in tokens) for v in tokens]
    field = [[sum(step[i][v] * step[j][v] / column[v] for v in tokens) for j in tokens] for i in tokens]
    values, vectors = torch.linalg.eigh(torch.tensor(field, dtype=torch.float64))
    spread = torch.zeros_like(vectors)
    for value, vector in zip(values, vectors.T, strict=True):
        spread += (1 - alpha) * value / (1 - alpha * value**2) * torch.outer(vector, vector)
    out = [
        [sum(link[i]) * spread[i][j] / (1 - spread[j][j]) if i != j else torch.tensor(0.0) for j in tokens]
        for i in tokens
    ]
    return torch.tensor([[(out[i][j] + out[j][i]) / 2 for j in tokens] for i in tokens], dtype=torch.float64)


def densray_matrix(x, y, normalised):
    """DensRay's matrix pair by pair."""

    def outer(v):
        size = float(v @ v)
        return torch.outer(v, v) / (size if normalised and size > 0 else 1)

    def total(one, other):
        return sum(outer(a - b) for a in one for b in other)

    p, q = len(x), len(y)
    return 2 * total(x, y) / (2 * p * q) - (total(x, x) + total(y, y)) / (p**2 + q**2)


def attcat(attention, hidden, gradient, position):
    """AttCAT of one sample by the row of [MASK], index by index: ``(layer, token)``."""
    layers, heads, tokens, _ = attention.shape
    found = torch.zeros(layers, tokens, dtype=attention.dtype)
    for layer in range(layers):
        for token in range(tokens):
            weight = sum(attention[layer, head, position, token] for head in range(heads)) / heads
            found[layer, token] = weight * sum(
                h * g for h, g in zip(hidden[layer, token], gradient[layer, token], strict=True)
            )
    return found
