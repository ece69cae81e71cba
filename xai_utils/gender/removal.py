"""What a model does without a direction: its preference for one of two words, and the price on running text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils import check
from xai_utils.capture import intervene
from xai_utils.gender import probes as asked_of
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.samples.gender import Probe
from xai_utils.samples.kinds import Text


@dataclass(frozen=True)
class Measured:
    """What a model does, as it is or without a direction.

    Attributes:
        pair: the two words.
        probabilities: of both at each probe's [MASK], ``(probe, 2)``.
        losses: ``-log P`` of every hidden word piece of the texts, ``(place,)``.
        owner: the text of each place, ``(place,)``: places of one text are no independent samples.
        texts: how many there are.
    """

    pair: tuple[str, str]
    probabilities: Tensor
    losses: Tensor
    owner: Tensor
    texts: int

    @property
    def leaning(self) -> np.ndarray:
        """``log P(first) / P(second)``, ``(probe,)``."""
        return (self.probabilities[:, 0] / self.probabilities[:, 1]).log().numpy()

    @property
    def spread(self) -> np.ndarray:
        """How far each leaning is from their mean, ``(probe,)``."""
        return np.abs(self.leaning - self.leaning.mean())

    @property
    def price(self) -> np.ndarray:
        """Mean loss on the hidden word pieces of each text, ``(text,)``, nats; zero where none was hidden."""
        counts = np.bincount(self.owner, minlength=self.texts).clip(1)
        return np.bincount(self.owner, self.losses, self.texts) / counts

    def __str__(self) -> str:
        chances = zip(self.pair, self.probabilities.mean(0).tolist(), strict=True)
        shown = "  ".join(f"P({word}) {chance:.3f}" for word, chance in chances)
        perplexity = f"perplexity {self.losses.mean().exp():.1f}, " if self.texts else ""
        return f"{shown}  {perplexity}spread of log P({self.pair[0]})/P({self.pair[1]}) {self.spread.mean():.3f}"


def measure(
    model: Model,
    probes: Sequence[Probe],
    texts: Sequence[str] = (),
    directions: Tensor | None = None,
    layers: Sequence[int] | None = None,
) -> Measured:
    """Ask a model about probes of one pair, and about every sixth word piece of running texts.

    Args:
        model: of masked words; it is itself again afterwards.
        probes: whose preference is measured.
        texts: on which the price is measured; may be left out.
        directions: to remove, ``(layer + 1, width)``, see :func:`intervene.without_direction`; ``None``: as it is.
        layers: where to remove them; default everywhere.
    """
    removed = nullcontext() if directions is None else intervene.without_direction(
        model, directions.to(model.device), layers
    )  # fmt: skip
    with removed:
        losses, owner = word_losses(model, texts)
        return Measured(probes[0].pair, asked_of.probabilities(model, probes), losses, owner, len(texts))


def random_directions(like: Tensor, seed: int) -> Tensor:
    """Return random unit vectors of the shape of ``like``, ``(layer + 1, width)``."""
    return F.normalize(torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@torch.inference_mode()
def word_losses(model: Model, texts: Sequence[str], every: int = 6, size: int = 64) -> tuple[Tensor, Tensor]:
    """Hide every ``every``-th word piece, shifted from text to text.

    Returns:
        ``-log P`` of every hidden piece, ``(place,)``; the exponential of its mean is the perplexity of masked words.
        And the text each belongs to, ``(place,)``.
    """
    check.at_least_one("every", every)
    found, owner = [torch.empty(0)], [torch.empty(0, dtype=torch.long)]
    for start in range(0, len(texts), size):
        batch = encode(model, [Text(text) for text in texts[start : start + size]])
        ids = batch.inputs["input_ids"]
        special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
        shift = torch.arange(start, start + len(ids), device=ids.device)[:, None]
        hide = ((torch.arange(ids.shape[1], device=ids.device) + shift) % every == 0) & ~special
        given = {**batch.inputs, "input_ids": ids.masked_fill(hide, model.tokenizer.mask_token_id)}
        found.append(F.cross_entropy(model.module(**given).logits[hide], ids[hide], reduction="none").cpu())
        owner.append(hide.nonzero()[:, 0].cpu() + start)
    return torch.cat(found), torch.cat(owner)
