"""How much [MASK] takes from the word that is asked about, and how much it keeps of itself, by layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xai_utils.capture import capture_attention
from xai_utils.gender.probes import Observed
from xai_utils.maths import flow, rollout


def attention_by_head(observed: Observed) -> Tensor:
    """Return the attention of [MASK] on each probe's word, mean over the probes, ``(layer, head)``."""
    samples = torch.arange(len(observed.probes))
    rows = observed.seen.attention[:, samples, :, observed.seen.reading]  # (sample, layer, head, key)
    return (rows * observed.where()[:, None, None]).sum(-1).mean(0).cpu()


def reach(observed: Observed) -> dict[str, list[float]]:
    """Return three readings of how much of its word reaches [MASK], by layer, mean over the probes.

    The attention of one layer alone; and what arrives through all layers up to it, by rollout (one random walk) and by
    flow (all paths together). Only words of one piece count, so that a path has one end.
    """
    word = observed.where()
    whole = (word.sum(1) == 1).nonzero().flatten()
    start, end = observed.seen.reading[whole], word.long().argmax(1)[whole]
    fused = observed.seen.attention[:, whole].mean(2)
    steps, rolled = rollout.mix(fused), rollout.rollout(fused)
    ends = list(enumerate(zip(start.tolist(), end.tolist(), strict=True)))
    flows = [
        [flow.flow(steps[:, i], layer, [one], [other]).item() for i, (one, other) in ends]
        for layer in range(len(steps))
    ]
    samples = torch.arange(len(whole))
    return {
        "attention": fused[:, samples, start, end].mean(1).tolist(),
        "rollout": rolled[:, samples, start, end].mean(1).tolist(),
        "flow": np.mean(flows, 1).tolist(),
    }


def own_shares(observed: Observed) -> dict[str, Tensor]:
    """Return three readings of what [MASK] keeps of itself, ``(layer, sample)``; one more pass.

    By the norms of what is mixed (1 − the mixing ratio); by rollout, the part that never passed through attention; and
    the diagonal of rollout's own steps, which is at least one half whatever the model does.
    """
    model, at = observed.seen.model, (slice(None), torch.arange(len(observed.probes)), observed.seen.reading)
    with torch.inference_mode(), capture_attention(model.module, model.blocks, hidden=True, values=True) as trace:
        model.logits(observed.seen.batch.inputs)
    ratio = rollout.mixing_ratio(trace.stack(), torch.stack(trace.values), torch.stack(trace.hidden[:-1]))
    fused = observed.seen.attention.mean(2)
    return {
        "1 − mixing ratio (norms)": 1 - ratio[at].cpu(),
        "rollout, never through attention": rollout.untouched_share(rollout.rollout(fused))[at].cpu(),
        "diagonal of (A + I) / 2": rollout.mix(fused)[*at, observed.seen.reading].cpu(),
    }
