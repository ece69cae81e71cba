"""What becomes of attention from layer to layer, on many samples: rollouts, flows, and layers that are left out.

Head-mean maps of a sample are ``(layer, query, key)``, without padding, prefix tokens included. Everything that judges
tokens leaves specials and prefixes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.capture import capture_attention
from xai_utils.evaluation.judged import evidence
from xai_utils.maths import diffusion, flow, rollout, selective
from xai_utils.methods.observation import observe
from xai_utils.metrics.agreement import kendall, spearman, top_overlap
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.samples.kinds import Sample


def head_means(model: Model, samples: Sequence[Sample], batch_size: int = 16) -> list[Tensor]:
    """Return the head-mean attention of every sample, ``(layer, query, key)`` in the model's precision, on the CPU."""
    found: list[Tensor] = []
    for start in range(0, len(samples), batch_size):
        seen = observe(model, samples[start : start + batch_size], gradient=False)
        found += [rollout.fuse(seen.view(i).attention).cpu() for i in range(len(seen.batch))]
    return found


def collapse(maps: Sequence[Tensor], residual: float = 0.5) -> Tensor:
    """Return how far the rows of each rollout still differ after every layer, ``(sample, layer)`` in [0, 1].

    0: all positions have the same map (see :func:`rollout.rank_collapse`). ``maps`` is as from :func:`head_means`.
    """
    return torch.stack([rollout.rank_collapse(rollout.rollout(one, residual)) for one in maps])


def mixing(model: Model, samples: Sequence[Sample]) -> Tensor:
    """Return how much of every token comes from others in each layer, mean over tokens: ``(sample, layer)`` in [0, 1].

    Norm-based, see :func:`rollout.mixing_ratio`; for the models whose values :func:`capture_attention` can keep.
    """
    found = []
    for one in samples:
        inputs = encode(model, [one]).inputs
        with torch.no_grad(), capture_attention(model.module, model.blocks, hidden=True, values=True) as trace:
            model.logits(inputs)
        states = torch.stack(trace.hidden[:-1])
        found.append(rollout.mixing_ratio(trace.stack(), torch.stack(trace.values), states).mean((1, 2)).cpu())
    return torch.stack(found)


def flows(
    maps: Tensor, residual: float = 0.5, layers: Sequence[int] | None = None, query: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the attention flow from one position after each layer, and the most that it can be.

    Args:
        maps: of one sample, ``(layer, query, key)``.
        residual: share of the skip connection.
        layers: after which; all by default.
        query: the position, by default the class token.

    Returns:
        Flow ``(layer, input)`` and :func:`flow.flow_bound` ``(input,)``, float64.
    """
    mixed = rollout.mix(maps.double(), residual)
    asked = range(len(mixed)) if layers is None else layers
    return torch.stack([flow.flow(mixed, layer, [query])[0] for layer in asked]), flow.flow_bound(mixed)


def gradient_pairing(
    model: Model, samples: Sequence[Sample], residual: float = 0.5
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Roll out attention weighted by its gradient, once by the own layer's and once by that of the mirrored layer.

    A script that collects gradients as they arrive, last layer first, pairs layer ``l`` with layer ``L - 1 - l``.

    Returns:
        Rightly and wrongly paired maps, each ``(sample, token)`` without prefix tokens, of samples of one length; and
        Spearman's correlation of the two, ``(sample,)``.
    """
    found: list[list[Tensor]] = [[], []]
    for one in samples:
        view = observe(model, [one]).view(0)
        assert view.gradient is not None
        for kept, gradient in zip(found, (view.gradient, view.gradient.flip(0)), strict=True):
            weighted = rollout.gradient_weighted(view.attention, gradient)
            kept.append(rollout.rollout_row(weighted, 0, residual, rescale=True)[view.prefix :].cpu())
    right, wrong = torch.stack(found[0]), torch.stack(found[1])
    return right, wrong, spearman(right, wrong)


def beyond_pole(maps: Sequence[Tensor], alpha: float) -> tuple[Tensor, Tensor]:
    """Tell where attention stands to the pole of :func:`diffusion.spectral_map`, which lies at ``alpha ** -0.5``.

    Args:
        maps: as from :func:`head_means`.
        alpha: of the spectral map.

    Returns:
        Largest singular value, and whether the unguarded filter leaves a row with a negative sum (bool), each
        ``(sample, layer)``.
    """
    largest = torch.stack([torch.linalg.matrix_norm(one, 2) for one in maps])
    return largest, torch.stack([diffusion.unguarded(one, alpha).sum(-1).amin(-1) < 0 for one in maps])


def share_used(maps: Sequence[Tensor], threshold: float, distance: str, residual: float = 0.5) -> np.ndarray:
    """Return which share of the layers selective rollout goes through, ``(sample,)``."""
    return np.array(
        [selective.layers_used(one, threshold, distance, residual=residual).double().mean() for one in maps]
    )


def composed(
    maps: Sequence[Tensor], used: Sequence[Tensor], seeds: Sequence[int], residual: float = 0.5
) -> dict[str, list[Tensor]]:
    """Roll out through the layers used, and through two controls of as many layers: is it the rule, or their number?

    Args:
        maps: as from :func:`head_means`.
        used: ``(layer,)`` bool of each sample.
        seeds: of the random layers, one for each sample.
        residual: share of the skip connection.

    Returns:
        ``"selective"``, ``"first layers"`` and ``"random layers"``: the class token's row after the last layer,
        ``(token,)``, for each sample.
    """
    chosen = {
        "selective": list(used),
        "first layers": [selective.first_layers(one) for one in used],
        "random layers": [selective.random_layers(*each) for each in zip(used, seeds, strict=True)],
    }
    return {
        kind: [selective.rollout_through(one, own, residual)[-1, 0] for one, own in zip(maps, some, strict=True)]
        for kind, some in chosen.items()
    }


def agreement(
    model: Model, samples: Sequence[Sample], rows: Sequence[Tensor], references: Sequence[Tensor]
) -> np.ndarray:
    """Return Spearman's correlation of many rows of each sample with one reference, ``(sample, ...)``.

    Args:
        model: whose tokens are ranked.
        samples: sentences; or pictures, if rows and references are without prefix tokens.
        rows: of each sample ``(..., token)``, such as the class token's row after every layer.
        references: of each sample ``(token,)``.
    """
    places = [own.places for own in evidence(model, samples)]
    each = zip(rows, references, places, strict=True)
    return np.array([spearman(row[..., own], reference[own]) for row, reference, own in each])


def readings(
    model: Model, samples: Sequence[Sample], stacks: Mapping[str, Sequence[Tensor]], references: Sequence[Tensor]
) -> pd.DataFrame:
    """Return how the agreement of rollouts with a reference depends on how they are read.

    Args:
        model: whose tokens are ranked.
        samples: sentences.
        stacks: map to the rollout of each sample, ``(layer, query, input)``.
        references: of each sample ``(token,)``.

    Returns:
        Spearman's correlation, a row for each sample, columns ``(layer, row, tokens, map)``: the last layer or the one
        before; the maximum over rows, or the row of [CLS]; all tokens, or words only.
    """
    places = [own.places for own in evidence(model, samples)]
    found = {}
    for layer in (-2, -1):
        for row in ("max", "cls"):
            for tokens in ("all", "words"):
                for name, stack in stacks.items():
                    read = [one[layer].amax(0) if row == "max" else one[layer][0] for one in stack]
                    taken = places if tokens == "words" else [torch.arange(len(one)) for one in references]
                    each = zip(read, references, taken, strict=True)
                    found[layer, row, tokens, name] = [float(spearman(a[own], b[own])) for a, b, own in each]
    return pd.DataFrame(found).rename_axis(columns=["layer", "row", "tokens", "map"])


def concordance(
    model: Model,
    samples: Sequence[Sample],
    maps: Mapping[str, Sequence[Tensor]],
    references: Sequence[Tensor],
    count: int = 3,
) -> pd.DataFrame:
    """Return what other measures of rank say of each map's agreement with a reference, means over samples.

    Args:
        model: whose tokens are ranked.
        samples: sentences.
        maps: name to the scores of each sample, ``(token,)``.
        references: of each sample ``(token,)``.
        count: of the highest words, at most all of them.

    Returns:
        A row for each map: Kendall's τ-b, the share of the highest words in common, and what chance would give.
    """
    check.at_least_one("count", count)
    places = [own.places for own in evidence(model, samples)]
    most = [min(count, len(own)) for own in places]
    found = {}
    for name, rows in maps.items():
        pairs = [(a[own], b[own]) for a, b, own in zip(rows, references, places, strict=True)]
        found[name] = {
            "τ-b": np.mean([kendall(*pair) for pair in pairs]),
            f"top {count}": np.mean([top_overlap(*pair, n) for pair, n in zip(pairs, most, strict=True)]),
            "chance": np.mean([n / len(own) for n, own in zip(most, places, strict=True)]),
        }
    return pd.DataFrame(found).T
