r"""One attention layer read by the class token, in closed form: output, attention, gradient. Pure tensor functions.

Letters of the paper: token :math:`e_t`, class token :math:`e_1`, question :math:`q = W_q e_1`, attention
:math:`\alpha = \mathrm{softmax}(q \cdot W_k e_t / \sqrt{d})`, vote :math:`u_t = w \cdot W_v e_t`, output of a head
:math:`f_k = \sum_t \alpha_t u_t`, and of the model :math:`f`, the mean over heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xai_utils import check


@dataclass(frozen=True)
class Layer:
    """Weights of the layer, for the score of one class.

    Attributes:
        query: ``(head, key width, width)``.
        key: ``(head, key width, width)``.
        value: ``(head, value width, width)``.
        readout: ``(head, value width)``: the row of each head's linear map that makes the explained score.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    readout: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(part.shape) for part in (self.query, self.key, self.value, self.readout)]
        right = len(shapes[0]) == len(shapes[2]) == 3 and shapes[0] == shapes[1] and shapes[3] == shapes[2][:2]
        if not right or shapes[0][0] != shapes[2][0] or shapes[0][2] != shapes[2][2]:
            raise ValueError(
                f"query {shapes[0]}, key {shapes[1]}, value {shapes[2]}, readout {shapes[3]}: expected two of (head, "
                "key width, width), then (head, value width, width) and (head, value width)."
            )

    @property
    def heads(self) -> int:
        """How many heads."""
        return len(self.query)

    def head(self, number: int) -> Layer:
        """Return one head as a layer of its own."""
        check.index("head", number, self.heads)
        parts = (self.query, self.key, self.value, self.readout)
        return Layer(*(part[number % self.heads][None] for part in parts))

    def against(self) -> Layer:
        """Return the layer whose score is minus this one's; its attention is the same."""
        return replace(self, readout=-self.readout)

    def reading(self, classes: Tensor) -> Tensor:
        """Return the direction that scores are read along, ``W_k^T q / sqrt(d)``: ``(..., head, width)``.

        Args:
            classes: the class token, ``(..., width)``.
        """
        query = torch.einsum("hkw,...w->...hk", self.query, classes)
        return torch.einsum("hkw,...hk->...hw", self.key, query) / self.key.shape[1] ** 0.5

    def voting(self) -> Tensor:
        """Return the direction that values are read along, ``W_v^T w``: ``(head, width)``."""
        return torch.einsum("hvw,hv->hw", self.value, self.readout)


def scores(layer: Layer, embeddings: Tensor, reader: Tensor | None = None) -> Tensor:
    """Return attention before its softmax, ``(..., head, token)``, of the class token (the first, or ``reader``)."""
    _embedded(layer, embeddings)
    return layer.reading(embeddings[..., 0, :] if reader is None else reader) @ embeddings.mT


def votes(layer: Layer, embeddings: Tensor) -> Tensor:
    """Return what each token says by itself, :math:`u_t`: ``(..., head, token)``, in the unit of the score."""
    _embedded(layer, embeddings)
    return layer.voting() @ embeddings.mT


def attention(layer: Layer, embeddings: Tensor) -> Tensor:
    """Return the class token's attention on every token, ``(..., head, token)``; rows sum to 1."""
    return scores(layer, embeddings).softmax(-1)


def attention_matrix(layer: Layer, embeddings: Tensor) -> Tensor:
    """Return everybody's attention on everybody, ``(..., head, query, key)``; the model uses the first row only."""
    _embedded(layer, embeddings)
    queries = torch.einsum("hkw,...tw->...htk", layer.query, embeddings)
    keys = torch.einsum("hkw,...tw->...htk", layer.key, embeddings)
    return (queries @ keys.mT / keys.shape[-1] ** 0.5).softmax(-1)


def output(layer: Layer, embeddings: Tensor) -> Tensor:
    """Return the score of each head, ``(..., head)``; the model's is their mean."""
    return (attention(layer, embeddings) * votes(layer, embeddings)).sum(-1)


def gradient(layer: Layer, embeddings: Tensor, query_term: bool = True) -> Tensor:
    r"""Differentiate each head's score by every token.

    .. math:: \frac{\partial f_k}{\partial e_t} = \alpha_t \left[W_v^\top w + (u_t - f_k) W_k^\top q / \sqrt d\right]
        + 1_{t=1} W_q^\top \sum_s \alpha_s (u_s - f_k) W_k e_s / \sqrt d

    Args:
        layer: the weights.
        embeddings: ``(..., token, width)``, the class token first.
        query_term: count that the class token also asks; without it the formula is the published one, which is wrong
            in the row of the class token.

    Returns:
        ``(..., head, token, width)``; the model's gradient is the mean over heads.

    Source: Lopardo, Precioso & Garreau (2024), Theorem 3.1, and the term it leaves out.
    """
    weights, surprise = _surprise(layer, embeddings)
    reading = layer.reading(embeddings[..., 0, :])
    found = weights[..., None] * layer.voting()[:, None] + surprise[..., None] * reading[..., None, :]
    if query_term:
        found[..., 0, :] += asked(layer, embeddings)
    return found


def asked(layer: Layer, embeddings: Tensor) -> Tensor:
    """Return how the score changes with the class token's question, ``(..., head, width)``; published without."""
    moved = torch.einsum("hkw,...hw->...hk", layer.key, _surprise(layer, embeddings)[1] @ embeddings)
    return torch.einsum("hkw,...hk->...hw", layer.query, moved) / layer.key.shape[1] ** 0.5


def _surprise(layer: Layer, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention, and it times what each token says beyond the head's score, ``(..., head, token)`` each."""
    weights, said = attention(layer, embeddings), votes(layer, embeddings)
    return weights, weights * (said - (weights * said).sum(-1, keepdim=True))


def summaries(found: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
    """Reduce a gradient ``(token, width)`` to a number a token in the four published ways, ``(token,)`` each.

    Returns:
        ``"gradient mean"``, ``"gradient L1"``, ``"gradient L2"``, and ``"gradient × input"``, where the input includes
        the position.
    """
    return {
        "gradient mean": found.mean(-1),
        "gradient L1": found.abs().sum(-1),
        "gradient L2": found.norm(dim=-1),
        "gradient × input": (found * embeddings).sum(-1),
    }


def integrated_gradients(layer: Layer, embeddings: Tensor, baseline: Tensor, steps: int = 32) -> Tensor:
    """Integrate the gradient of the mean over heads along the line from a baseline, ``(token,)``.

    Args:
        layer: the weights.
        embeddings: ``(token, width)``.
        baseline: where the line begins, same shape; with no information about the words.
        steps: Gauss-Legendre nodes.

    Returns:
        Scores whose sum is the difference of the outputs, up to the error of the quadrature.

    Source: Sundararajan, Taly & Yan (2017), arXiv:1703.01365, Eq. 1.
    """
    check.at_least_one("steps", steps)
    if baseline.shape != embeddings.shape:
        raise ValueError(f"the baseline is {tuple(baseline.shape)}, expected {tuple(embeddings.shape)} as the tokens.")
    nodes, weights = (torch.from_numpy(one).to(embeddings) for one in np.polynomial.legendre.leggauss(steps))
    way = embeddings - baseline
    slopes = gradient(layer, baseline + (nodes[:, None, None] + 1) / 2 * way).mean(1)
    return torch.einsum("tw,ntw,n->t", way, slopes, weights / 2)


def _embedded(layer: Layer, embeddings: Tensor) -> None:
    width = layer.query.shape[-1]
    if embeddings.ndim < 2 or embeddings.shape[-1] != width or not embeddings.shape[-2]:
        raise ValueError(
            f"the tokens are {tuple(embeddings.shape)}, expected (..., token, width) with a width of {width}."
        )
    check.finite("embeddings", embeddings)
