"""What a model does without a direction: gender where it belongs, occupations, grammar, and running text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils import check
from xai_utils.capture import intervene
from xai_utils.gender import erasure, findings
from xai_utils.gender import probes as asked_of
from xai_utils.gender.erasure import Erasure
from xai_utils.gender.findings import Tested
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.samples import gender
from xai_utils.samples.gender import Probe
from xai_utils.samples.kinds import Text

#: What is measured, and what larger numbers mean.
OUTCOMES = {
    "definitions": "log odds of the right pronoun",
    "occupations": "distance of log P(he)/P(she) from its mean",
    "agreement": "log odds of the right verb form",
    "running text": "log P of a hidden word piece",
}


@dataclass(frozen=True)
class Asked:
    """What a model is asked, with and without a direction.

    Attributes:
        definitions: see :func:`gender.definitions`.
        occupations: sentences about occupations that have no gender by definition.
        agreements: see :func:`gender.agreements`.
        texts: running text, every sixth word piece of which is hidden.
    """

    definitions: Sequence[Probe]
    occupations: Sequence[Probe]
    agreements: Sequence[Probe]
    texts: Sequence[str]

    def clusters(self, outcome: str) -> list[str]:
        """Name for every sample what it shares with others: its pair of words, occupation, noun or text."""
        if outcome == "running text":
            return list(map(str, range(len(self.texts))))
        if outcome == "occupations":
            return [probe.word for probe in self.occupations]
        chosen = self.definitions if outcome == "definitions" else self.agreements
        return [min(probe.word, probe.other) for probe in chosen]


def asked(texts: Sequence[str] = (), every: int = 4) -> Asked:
    """Return what a model is asked: only definitions of odd pairs, so that even pairs can give the directions.

    Args:
        texts: running text.
        every: take each ``every``-th occupation.
    """
    odd = {word for pair in gender.pairs()[1::2] for word in pair}
    neutral = [probe for probe in gender.probes("occupation") if not probe.group]
    held_out = [probe for probe in gender.definitions() if probe.word in odd]
    return Asked(held_out, neutral[::every], gender.agreements(), list(texts))


def measure(
    model: Model, asked: Asked, edits: Sequence[Erasure] | None = None, layers: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Ask a model everything, as it is or with its states changed on the way.

    Args:
        model: of masked words; it is itself again afterwards.
        asked: of :func:`asked`.
        edits: one for the input of every block and one for what leaves the last; ``None``: as it is.
        layers: which of them apply; default all.

    Returns:
        By outcome, see :data:`OUTCOMES`, one number a sample or running text; what is not asked is left out.
    """
    module: Any = model.module
    if edits is not None and len(edits) != (places := module.config.num_hidden_layers + 1):
        raise ValueError(f"{len(edits)} changes for {places} states; expected one more than blocks.")
    chosen = {} if edits is None else {i: edits[i] for i in (range(len(edits)) if layers is None else layers)}
    with intervene.edited(model, chosen) if chosen else nullcontext():
        found = {"definitions": _margins(model, asked.definitions, "male")} if asked.definitions else {}
        if asked.occupations:
            leaning = _margins(model, asked.occupations, "")
            found["occupations"] = np.abs(leaning - leaning.mean())
        if asked.agreements:
            found["agreement"] = _margins(model, asked.agreements, "one")
        return found | ({"running text": -price(model, asked.texts)} if asked.texts else {})


def _margins(model: Model, probes: Sequence[Probe], first: str) -> np.ndarray:
    """Return the log odds of the first word for probes of the group ``first``, of the second word for the others."""
    one, other = asked_of.probabilities(model, probes).log().T
    return (one - other).numpy() * [1 if probe.group == first else -1 for probe in probes]


def random_directions(like: Tensor, seed: int, draws: int) -> list[list[Erasure]]:
    """Return for every draw a random direction at each place of ``like``, ``(layer + 1, width)``."""
    noise = torch.Generator().manual_seed(seed)
    return [[erasure.projection(v) for v in torch.randn(like.shape, generator=noise)] for _ in range(draws)]


def high_variance(running: Tensor, seed: int, draws: int) -> list[list[Erasure]]:
    """Return for every draw directions in which states of running text vary: random sums of their deviations.

    A direction is drawn in proportion to the variance along it, so that removing it takes far more than a random one.

    Args:
        running: ``(layer + 1, token, width)``, see :func:`vectors.running`.
        seed: of the weights.
        draws: how many.
    """
    noise = torch.Generator().manual_seed(seed)
    off = running - running.mean(1, keepdim=True)
    weights = torch.randn(draws, running.shape[1], generator=noise).to(off)
    return [[erasure.projection(weights[draw] @ layer) for layer in off] for draw in range(draws)]


def controls(
    model: Model, asked: Asked, edits: Sequence[Sequence[Erasure]], layers: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Return :func:`measure` under every draw of a control, ``(draw, sample)`` by outcome."""
    rows = [measure(model, asked, one, layers) for one in edits]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def change(
    asked: Asked, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], seed: int
) -> dict[str, Tested]:
    """Return by outcome how much more there is after than before, by samples that belong together, with its test.

    Either side may be a control of many draws, ``(draw, sample)``, whose mean over the draws counts.
    """
    less = {name: np.atleast_2d(after[name]).mean(0) - np.atleast_2d(before[name]).mean(0) for name in after}
    return {name: findings.paired(values, seed, asked.clusters(name)) for name, values in less.items()}


def first_to_go(asked: Asked, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], seed: int) -> Tested:
    """Return how much larger a share the definitions lose than the occupations, with the p of shuffled membership.

    A loss is what is less after than before, as a share of the outcome's mean before. Pairs of words are held against
    occupations, each with the mean of its sentences.
    """
    lost = []
    for name in ("definitions", "occupations"):
        less = (before[name] - after[name]) / before[name].mean()
        lost.append(pd.Series(less).groupby(asked.clusters(name)).mean().to_numpy())
    return agreement.group_difference(lost[0], lost[1], seed)


def summary(before: Mapping[str, np.ndarray], changed: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return one row a change and outcome: its mean, that of the least and greatest draw, and the share above 0.

    Args:
        before: by outcome ``(sample,)``.
        changed: by change and outcome ``(sample,)``, or ``(draw, sample)`` of a control.
    """
    rows = []
    for change, found in {"as it is": before, **changed}.items():
        for outcome, values in found.items():
            means = np.atleast_2d(values).mean(1)
            rows.append((change, outcome, means.mean(), means.min(), means.max(), float((values > 0).mean())))
    heads = ["change", "outcome", "mean", "least draw", "greatest draw", "above 0"]
    return pd.DataFrame(rows, columns=heads).set_index(heads[:2])


def price(model: Model, texts: Sequence[str]) -> np.ndarray:
    """Return the mean loss on the hidden word pieces of each text, ``(text,)``, nats; zero where none was hidden."""
    losses, owner = word_losses(model, texts)
    return np.bincount(owner, losses, len(texts)) / np.bincount(owner, minlength=len(texts)).clip(1)


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
        logits = asked_of.answers_at(model, replace(batch, inputs=given), partial(_at, hide))
        found.append(F.cross_entropy(logits, ids[hide], reduction="none").cpu())
        owner.append(hide.nonzero()[:, 0].cpu() + start)
    return torch.cat(found), torch.cat(owner)


def _at(chosen: Tensor, states: Tensor) -> Tensor:
    return states[chosen]
