"""Is the published reference of selective rollout a property of the model? It is zero but for rounding.

The reference is the sum over the width of the gradient at word embeddings that enter a LayerNorm, see
:mod:`input_gradient`. A property of a model does not depend on the precision of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def ratios_by_chance(maps: Sequence[Tensor], others: Sequence[Tensor], seed: int, draws: int = 2000) -> np.ndarray:
    """Draw what a published improvement looks like where there is nothing to find: the reference is random numbers.

    Args:
        maps: of one method, ``(token,)`` for each text.
        others: of the other method.
        seed: of the references.
        draws: of a reference for every text.

    Returns:
        ``(draw,)``: the size of the median Spearman correlation of ``others`` over that of ``maps``, infinite where
        the latter is zero.
    """
    noise = np.random.default_rng(seed)
    references = [noise.random((draws, len(one))) for one in maps]
    medians = [
        np.median([spearman(own, one.numpy()) for own, one in zip(references, some, strict=True)], axis=0)
        for some in (maps, others)
    ]
    with np.errstate(divide="ignore"):
        return np.abs(medians[1] / medians[0])
