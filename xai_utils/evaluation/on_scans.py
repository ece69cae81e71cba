"""What do the scans of a Mamba hold? Is their matrix exact, what do the published shortcuts leave out, and how far back
do they remember?
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from xai_utils import stats
from xai_utils.capture.scans import ScanTrace, capture_scans
from xai_utils.maths import diffusion, hidden_attention, hidden_maps, rollout
from xai_utils.maths.selective_scan import selective_scan
from xai_utils.methods.hidden import Look, looks, unified_maps
from xai_utils.methods.observation import observe
from xai_utils.models import Model, state_sha256
from xai_utils.models.encoding import encode, patch_grid
from xai_utils.samples.kinds import Picture, Text


def look(model: Model, sample: Text) -> Look:
    """Run a Mamba once on one text, without gradients; ``TypeError`` for a model without scans."""
    return looks(model, encode(model, [sample]))[0]


def matrix_miss(seen: Look, precision: torch.dtype) -> float:
    """Return by how much hidden attention times the scan's input misses the scan's output: the worst layer's gap.

    Args:
        seen: from :func:`look`.
        precision: in which both are computed, ``torch.float32`` or ``torch.float64``.

    Returns:
        Greatest difference over the greatest output of that layer.
    """
    gaps = []
    for (scan,) in seen.layers:
        u, delta, A, B, C = (one.to(precision) for one in (scan.u, scan.delta, scan.A, scan.B, scan.C))
        maps = hidden_attention.hidden_attention(delta, A, B, C, "all")
        gaps.append(_gap(torch.einsum("bdij,bdj->bdi", maps, u), selective_scan(u, delta, A, B, C)))
    return max(gaps)


@torch.no_grad()
def mixer_misses(module: nn.Module, ids: Tensor) -> list[float]:
    """Return by how much the matrix of each layer, skip and gate folded in, misses what the mixer itself computes.

    Args:
        module: a Mamba or Mamba-2 of transformers, in evaluation mode.
        ids: ``(batch, token)``.

    Returns:
        Per layer the greatest difference over the greatest output. Of Mamba-2, whose gate sits in the norm behind, the
        output is taken before it.
    """
    with capture_scans(module) as trace:
        module(ids)
    assert isinstance(trace, ScanTrace)
    gaps = []
    for (scan,), (output,) in zip(trace.scans, trace.outputs, strict=True):
        bare = scan if trace.gated else replace(scan, gate=None)
        maps = hidden_attention.of_scan(bare, "all", folded=True)
        heads = scan.u.unflatten(1, (maps.shape[1], -1))  # of Mamba-1 every channel is a head of its own
        gaps.append(_gap(torch.einsum("bhij,bhpj->bhpi", maps, heads).flatten(1, 2), output))
    return gaps


def channel_maps(seen: Look, layer: int = -1) -> Tensor:
    """Return one layer's hidden attention of every channel, ``(channel, query, key)``, signed."""
    return hidden_attention.of_scan(seen.layers[layer][0], "all")[0]


@dataclass(frozen=True)
class Published:
    """What the published program computes in place of the hidden attention and its rollout, on one text.

    Attributes:
        off_form: greatest difference of its product, in which a row is broadcast to a matrix, from the closed form.
        off_row: share of the last layer's row that is wrong where the product of decays ends before the reader.
        own_weight: greatest weight of the reader itself in that row.
        divisors: per layer what its row is divided by, one plus the sum of its signed weights.
    """

    off_form: float
    off_row: float
    own_weight: float
    divisors: tuple[float, ...]


def published(seen: Look) -> Published:
    """Do what the published program does with the rows of one text, and compare.

    Source: ``compute_rollout_attention`` in the code of Ali et al. (2024), see :func:`hidden_maps.published_rollout`.
    """
    reader, (scan,) = seen.position, seen.layers[-1]
    rows = hidden_maps.class_rows(seen.layers, reader).mean(2)  # (layer, batch, key)
    identity = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    product = identity
    for row in rows:  # the row meets the identity, is divided by its sum, and multiplied on
        step = row + identity
        product = (step / step.sum(-1, keepdim=True)) @ product
    closed = hidden_maps.published_rollout(rows, reader)
    early = scan.delta.clone()
    early[..., reader] = 0  # the decays end one token early, the reader's own weight with them
    true, short = (
        hidden_attention.hidden_row(delta, scan.A, scan.B, scan.C, reader)[0] for delta in (scan.delta, early)
    )
    return Published(
        float((product[reader] - closed[0]).abs().max()),
        float((short - true).abs().sum() / true.abs().sum()),
        float(short[:, reader].abs().max()),
        tuple((1 + rows.sum((1, 2))).tolist()),
    )


def half_lives(seen: Look) -> list[Tensor]:
    """Return per layer after how many tokens half of each state is left, ``(channel, state)``."""
    return [hidden_attention.half_life(scan.delta, scan.A)[0] for (scan,) in seen.layers]


def outlasting(seen: Look) -> list[float]:
    """Return per layer the share of channels whose slowest state has a half-life longer than the text."""
    return [float(longer.mean()) for longer in _longer(seen)]


def longer_than(seen: Look, other: Look, seed: int, level: float = 0.9) -> stats.Interval:
    """Return how many more channels of one model than of another outlive the text, as a share of the channels.

    Args:
        seen: of the model.
        other: of the same text in another, such as an :func:`untrained` copy; channels of the two do not correspond.
        seed: of the bootstrap over channels of all layers, those of each model on their own.
        level: of the interval; 0.9 for :func:`claims.equivalent`.
    """
    both = [np.concatenate(_longer(one)) for one in (seen, other)]
    return stats.bootstrap_interval(both, _difference, seed, level=level)


def _difference(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    return one.mean(axis) - other.mean(axis)


def _longer(seen: Look) -> list[np.ndarray]:
    """Return of every layer which channels' slowest state outlives the text, ``(channel,)`` 0 or 1."""
    return [(lives.amax(-1) > seen.position + 1).double().cpu().numpy() for lives in half_lives(seen)]


def untrained(model: Model, seed: int) -> Model:
    """Return a copy with fresh weights, drawn as its class draws them: what comes of the initialisation alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = type(model.module)(deepcopy(model.module.config)).to(model.device).eval()
    return replace(model, name=f"{model.name}, untrained", module=module, sha256=state_sha256(module))


def last_reads(seen: Look) -> tuple[Tensor, Tensor]:
    """Return what the last token reads of every token, ``(layer, token)``, mean over channels of absolute weights.

    Returns:
        Of the bare scans; and of unified attention (convolution, skip and gate folded in), which speaks of the tokens
        before the mixer.
    """
    bare = hidden_maps.layer_maps(seen.layers)
    return bare[:, 0, seen.position], unified_maps(seen)[:, 0, seen.position]


def filtered_rows(model: Model, picture: Picture, filters: Sequence[str]) -> dict[str, Tensor]:
    """Return what the class token of Vision Mamba reads in every block, after filters of the spectrum.

    Args:
        model: a vision model.
        picture: one.
        filters: names in :data:`diffusion.FILTERS`; ``"identity"`` leaves the maps as they are.

    Returns:
        Filter to ``(layer, row, column)``, shares of what is read; the class token's own is left out.
    """
    view = observe(model, [picture], gradient=False).view(0)
    maps, grid = rollout.fuse(view.attention).cpu(), patch_grid(model)
    rows = {name: diffusion.diffuse(maps, name)[:, view.reading, view.prefix :] for name in filters}
    return {name: one.unflatten(-1, grid) for name, one in rows.items()}


def without_biases(model: Model) -> Model:
    """Return a copy whose biases are zero, but for the step's, which MambaLRP takes for a constant."""
    module = deepcopy(model.module)
    for name, parameter in module.named_parameters():
        if name.endswith("bias") and "dt_proj" not in name:
            parameter.data.zero_()
    return replace(model, name=f"{model.name}, no biases", module=module, sha256=state_sha256(module))


def _gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
