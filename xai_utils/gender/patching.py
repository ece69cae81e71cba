"""Which state carries gender: put one state of the partner's sentence in, and see how far the answer follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from xai_utils import stats
from xai_utils.capture import intervene
from xai_utils.gender import probes
from xai_utils.gender.probes import Observed
from xai_utils.models import Model
from xai_utils.samples.gender import Probe
from xai_utils.stats import AgainstChance

#: Scores that are held against the effect of patching, see :func:`of_states`.
COMPARED = ("AttCAT", "DensRay", "AttDR", "gradient × difference")


@dataclass(frozen=True)
class Patched:
    """Sentences of one template, couple by couple, and what each state of the partner does to the answer.

    Attributes:
        seen: the sentences as they are.
        effect: change of the log odds towards the partner's, as a share of the distance between both sentences, by the
            place where the state is put in, ``(layer + 1, sample, token)``.
        distance: log odds of the partner minus those of the sentence, ``(sample,)``.
    """

    seen: Observed
    effect: np.ndarray
    distance: np.ndarray

    @property
    def moved(self) -> np.ndarray:
        """The effect in log odds of the first word, ``(layer + 1, sample, token)``."""
        return self.effect * self.distance[:, None]

    @property
    def tokens(self) -> list[str]:
        """The tokens, with ``…`` where the couples differ."""
        batch = self.seen.seen.batch
        alike = (batch.inputs["input_ids"] == batch.inputs["input_ids"][0]).all(0).tolist()
        return [label if same else "…" for same, label in zip(alike, batch.labels[0], strict=True)]


def patch(model: Model, couples: Sequence[Probe]) -> Patched:
    """Replace every state by that of the partner's sentence, one layer and token at a time.

    Args:
        model: of masked words.
        couples: a sentence and its partner in turn, such as those of one template of :func:`gender.definitions`; all of
            one length.

    Raises:
        ValueError: an odd number of sentences, or sentences of several lengths.

    Source: activation patching, Vig et al. (2020), Causal Mediation Analysis, and Meng et al. (2022), ROME.
    """
    one = probes.observe(model, couples)
    lengths = sorted({one.seen.batch.length(i) for i in range(len(couples))})
    if len(couples) % 2 or len(lengths) != 1:
        raise ValueError(f"{len(couples)} sentences of {lengths} tokens; expected couples of one length.")
    assert one.seen.states is not None
    partner = torch.arange(len(couples)) ^ 1
    there = one.seen.states[:, partner]
    distance = one.log_odds[partner] - one.log_odds
    moved = [[_log_odds(model, one, there, layer, token) for token in range(lengths[0])] for layer in range(len(there))]
    return Patched(one, (np.array(moved).swapaxes(1, 2) - one.log_odds[:, None]) / distance[:, None], distance)


@torch.inference_mode()
def _log_odds(model: Model, one: Observed, there: Tensor, layer: int, token: int) -> np.ndarray:
    """Ask with one state exchanged; blocks below it would make the states that are known already, and are skipped."""
    assert one.seen.states is not None
    changed = one.seen.states[layer].clone()
    changed[:, token] = there[layer, :, token]
    with intervene.without_blocks(model, range(layer)), intervene.edited(model, {layer: lambda _: changed}):
        chances = probes.probabilities(model, one.probes, len(one.probes))
    return (chances[:, 0].log() - chances[:, 1].log()).numpy()


def of_states(one: Patched, name: str, rays: Tensor) -> np.ndarray:
    """Return a score as it differs between both sentences of a couple, ``(layer, sample, token)``.

    A score of one sentence has parts that have nothing to do with gender; what differs between partners has not.
    ``"gradient × difference"`` is the first-order guess of patching: the gradient times the change of the state.
    """
    partner = torch.arange(len(one.seen.probes)) ^ 1
    if name != "gradient × difference":
        scores = one.seen.scores(name, rays)
        return (scores[:, partner] - scores).double().cpu().numpy()
    states, slopes = one.seen.seen.states, one.seen.seen.state_gradients
    assert states is not None and slopes is not None
    return ((states[:-1, partner] - states[:-1]) * slopes[:-1]).sum(-1).double().cpu().numpy()


def follows(patched: Sequence[Patched], name: str, rays: Tensor, seed: int, shuffles: int = 999) -> AgainstChance:
    """Compare a score with the effect of patching: does it rank layers and tokens as the effect does?

    Spearman's correlation of both sizes over all layers and tokens of a sentence, [CLS] and [SEP] left out, its mean
    over sentences and its interval over pairs of words; by chance the tokens change places, in all layers and all
    sentences of a template alike.
    """
    noise = np.random.default_rng(seed)
    found, chance, clusters = [], np.zeros(shuffles), []
    for one in patched:
        kept = (one.seen.explained | one.seen.mask)[0].cpu().numpy()
        truth, scores = (_ranks(values[..., kept]) for values in (one.moved[:-1], of_states(one, name, rays)))
        found.append((truth * scores).mean((1, 2)))
        met = np.einsum("slt,slu->tu", truth, scores) / truth.size * len(truth[0, 0])
        orders = noise.permuted(np.tile(np.arange(len(met)), (shuffles, 1)), axis=1)
        chance += met[np.arange(len(met)), orders].mean(1)
        clusters += [min(probe.word, probe.other) for probe in one.seen.probes]
    interval = stats.mean_interval(np.concatenate(found).tolist(), seed, clusters=clusters)
    return AgainstChance.of(interval, chance / len(patched))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank sizes ``(layer, sample, token)`` within each sample, mean 0 and variance 1: ``(sample, layer, token)``."""
    sizes = np.abs(values).swapaxes(0, 1)
    ranks = rankdata(sizes.reshape(len(sizes), -1), axis=1)
    return ((ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)).reshape(sizes.shape)
