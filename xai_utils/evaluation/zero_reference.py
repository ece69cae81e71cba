"""Is the published reference of selective rollout a property of the model? It is zero but for rounding.

The reference is the sum over the width of the gradient at word embeddings that enter a LayerNorm, see
:mod:`input_gradient`. What a program returns is a rounding error, whose size follows the gradient's length; so it
agrees with whatever agrees with that length, only less. :func:`noise` draws such references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils.maths import rollout, selective
from xai_utils.methods.input_gradient import in_double, relative_sum, word_gradients
from xai_utils.methods.observation import observe
from xai_utils.metrics.agreement import spearman
from xai_utils.models import Model
from xai_utils.samples.kinds import Text


@dataclass(frozen=True)
class Precisions:
    """The gradient of one model at its word embeddings in two precisions.

    Attributes:
        relative: size of the gradient's sum over its length, ``(token,)`` over all texts, by ``"float32"``,
            ``"float64"`` and ``"behind the LayerNorm"`` (float32 there).
        agreement: Spearman's correlation of float32 with float64 on each text, ``(text,)``, by ``"|sum| and |sum|"``,
            ``"|sum| and length"`` and ``"length and length"``.
    """

    relative: dict[str, np.ndarray]
    agreement: dict[str, np.ndarray]


def in_both_precisions(model: Model, texts: Sequence[Text]) -> Precisions:
    """Take the published gradient of some texts, one batch, in single and in double precision.

    The pass is the published one: embeddings that went through the embedding block are fed to it again, and the last
    class is explained whatever the model predicts.
    """
    single, double = (
        [one.cpu() for one in word_gradients(which, texts, -1, twice=True)] for which in (model, in_double(model))
    )
    seen = observe(model, texts)
    behind = [seen.view(i).embedding_gradient for i in range(len(texts))]
    found: dict[str, list[Any]] = {"float32": single, "float64": double, "behind the LayerNorm": behind}
    pairs = list(zip(single, double, strict=True))
    return Precisions(
        {kind: torch.cat([relative_sum(one) for one in some]).cpu().numpy() for kind, some in found.items()},
        {
            "|sum| and |sum|": np.array([spearman(one.sum(-1).abs(), two.sum(-1).abs()) for one, two in pairs]),
            "|sum| and length": np.array([spearman(one.sum(-1).abs(), two.norm(dim=-1)) for one, two in pairs]),
            "length and length": np.array([spearman(one.norm(dim=-1), two.norm(dim=-1)) for one, two in pairs]),
        },
    )


def summed(model: Model, texts: Sequence[Text]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the published reference, the size of the gradient's sum, and the gradient's length, both ``(token,)``."""
    gradients = [one.double().cpu() for one in word_gradients(model, texts, -1, twice=True)]
    return [one.sum(-1).abs() for one in gradients], [one.norm(dim=-1) for one in gradients]


def published(maps: Sequence[Tensor], threshold: float = 1.0, layer: int = -2) -> dict[str, list[Tensor]]:
    """Return rollout and selective rollout read as published: the maximum over rows, all tokens, one layer too early.

    Args:
        maps: head means of each text, ``(layer, query, key)``, float64.
        threshold: of the Frobenius distance from the last layer used.
        layer: after which the rollouts are read.

    Source: repository manuragkhullar/XAI_thesis, script 4_01_experiments.py.
    """
    return {
        "rollout": [rollout.rollout(one)[layer].amax(0) for one in maps],
        "selective": [selective.selective_rollout(one, threshold).rolled[layer].amax(0) for one in maps],
    }


def against_noise(
    pair: Mapping[str, Sequence[Tensor]], sums: Sequence[Tensor], lengths: Sequence[Tensor], seed: int, draws: int = 500
) -> pd.DataFrame:
    """Compare the published statistic, and the ratio of its two medians, with what rounding noise gives.

    Args:
        pair: as from :func:`published`.
        sums: the published reference, ``(token,)`` for each text.
        lengths: of the gradient, likewise.
        seed: of the noise.
        draws: of a reference for every text.

    Returns:
        A row for each of the pair and for ``"ratio"``, selective over rollout: the statistic with ``"sums"`` and with
        ``"lengths"``; the middle and the ends of 95 % of the draws of :func:`noise` that is as large as the gradient
        is long (``"noise"``, ``"low"``, ``"high"``), and how often such noise is as far from its middle as the sums or
        farther (``"p"``); the ends for noise of one size (``"flat low"``, ``"flat high"``).
    """
    maps, found = list(pair.values()), {}
    for name, references in (("sums", sums), ("lengths", lengths)):
        found[name] = _with_ratio(medians(maps, references))
    for name, sizes in (("", lengths), ("flat ", [torch.ones_like(one) for one in lengths])):
        drawn = _with_ratio(medians(maps, noise(sizes, seed, draws)))
        if not name:
            found["noise"] = np.nanmedian(drawn, axis=1)
            far = np.abs(drawn.T - found["noise"]) >= np.abs(found["sums"] - found["noise"])
            found["p"] = (1 + far.sum(0)) / (1 + draws)
        found[f"{name}low"], found[f"{name}high"] = np.nanquantile(drawn, [0.025, 0.975], axis=1)
    return pd.DataFrame(found, index=[*pair, "ratio"])


def _with_ratio(found: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # of one draw in many a median is zero
        return np.concatenate([found, found[1:] / found[:1].round(12)])


def medians(maps: Sequence[Sequence[Tensor]], references: Sequence[Tensor]) -> np.ndarray:
    """Return the median over texts of the Spearman correlation of each kind of map with the references.

    Args:
        maps: kinds, each ``(token,)`` for every text.
        references: of each text ``(..., token)``.

    Returns:
        ``(kind, ...)``.
    """
    return np.stack(
        [np.median([spearman(one, own) for one, own in zip(some, references, strict=True)], 0) for some in maps]
    )


def noise(sizes: Sequence[Tensor], seed: int, draws: int = 500) -> list[Tensor]:
    """Draw references that hold nothing but rounding: random numbers, larger where the gradient is longer.

    Args:
        sizes: length of the gradient at each token, ``(token,)`` for each text; ones for noise of one size.
        seed: of the draws.
        draws: of a reference for every text.

    Returns:
        ``(draw, token)`` for each text: the size of normal numbers of these standard deviations.
    """
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(draws, len(one), generator=generator, dtype=torch.float64).abs() * one for one in sizes]
