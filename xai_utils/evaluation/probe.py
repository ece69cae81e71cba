"""What is asked of a model about some samples, whatever the method: targets, untouched, emptied, random removals.

It is the same for every method, so it is kept for the next one.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xai_utils import metrics
from xai_utils.evaluation import on_prompts
from xai_utils.metrics import removal_curves
from xai_utils.metrics.removal_curves import QUARTERS
from xai_utils.models import Model, removal
from xai_utils.models.encoding import Batch, encode, rationale_mask, view_mask, word_mask
from xai_utils.models.kinds import UNITS
from xai_utils.models.targets import probabilities
from xai_utils.samples import sets
from xai_utils.samples.kinds import Sample, Text
from xai_utils.samples.prompts import Prompt

OPERATORS = 3  # ways to remove that a leaderboard compares: the first ones that the model knows
RANDOM = 16  # random removals for infidelity
KEPT = 48  # shards whose probe stays in memory
_INNER = slice(1, -1)


@dataclass(frozen=True)
class Probe:
    """Answers about some samples.

    Attributes:
        batches: each sample encoded by itself.
        targets: the class explained, the one the model predicts; of a prompt whose cause is known of this model (see
            :mod:`on_prompts`) the right word.
        places: of each sample, the tokens that may go, ``(rank,)``: all but specials.
        operators: ways to remove.
        full: probability of the target of the whole input, ``(sample,)``.
        empty: the same with everything gone, ``(sample, operator)``.
        gone: of each sample ``(mask, rank)`` bool, random removals by the first operator.
        drops: of each sample ``(mask,)``, fall of the target's logit by them.
        truth: of each sample ``(rank,)`` share inside the rationale or the mask; ``None`` where nothing is known, or
            the model predicts a class that is not there.
        words: which tokens are ranked against the truth, ``(rank,)`` bool: all but punctuation, and of a prompt those
            of the words that :func:`on_prompts.words` ranks.
    """

    batches: tuple[Batch, ...]
    targets: tuple[int, ...]
    places: tuple[Tensor, ...]
    operators: tuple[str, ...]
    full: Tensor
    empty: Tensor
    gone: tuple[Tensor, ...]
    drops: tuple[Tensor, ...]
    truth: tuple[Tensor | None, ...]
    words: tuple[Tensor, ...]

    def removal(self, model: Model, scores: Sequence[Tensor | None], seed: int) -> list[dict[tuple[str, str], float]]:
        """Return ``(metric, operator)`` to value for maps of all samples; a sample without a map gets nothing."""
        there = [i for i, one in enumerate(scores) if one is not None]
        keeps = {}
        for i in there:
            one = scores[i]
            assert one is not None
            keep = removal_curves.keep_both(one, self.places[i], self._tokens(i), QUARTERS, seed)
            keeps[i] = keep[:, _INNER].flatten(0, 1)
        answers = removal.ask(
            model, [self.batches[i] for i in there], [dict.fromkeys(self.operators, keeps[i]) for i in there]
        )
        found: list[dict[tuple[str, str], float]] = [{} for _ in scores]
        for i, answer in zip(there, answers, strict=True):
            for number, (operator, logits) in enumerate(answer.items()):
                inner = probabilities(logits, model.link)[:, self.targets[i]].view(2, -1)
                ends = self.full[i].expand(2, 1), self.empty[i, number].expand(2, 1)
                curves = torch.cat([ends[0], inner, ends[1]], 1)
                found[i] |= {(name, operator): value for name, value in _curve_metrics(*curves).items()}
        return found

    def _tokens(self, sample: int) -> int:
        return len(self.batches[sample].labels[0])


def _curve_metrics(morf: Tensor, lerf: Tensor) -> dict[str, float]:
    full = morf[0]
    found = {
        "deletion": removal_curves.deletion(morf),
        "insertion": removal_curves.insertion(lerf),
        "delta_af": removal_curves.delta_af(morf, lerf),
        "comprehensiveness": removal_curves.comprehensiveness(full, morf[1]),
        "sufficiency": removal_curves.sufficiency(full, lerf[-2]),
        "aopc": removal_curves.aopc(full, morf[_INNER]),
        "log_odds": removal_curves.log_odds(full, morf[_INNER]),
    }
    return {name: float(value) for name, value in found.items()}


_memory: OrderedDict[tuple[object, ...], Probe] = OrderedDict()


def probe(model: Model, samples: tuple[Sample, ...], seed: int) -> Probe:
    """Ask about some samples, or remember what was answered; the same samples are always asked about together.

    Raises:
        ValueError: samples that the model does not take, or a model whose answers are no probabilities.
    """
    key = (model.sha256, str(model.device), seed, tuple(map(_print, samples)))
    if key not in _memory:
        _memory[key] = _probe(model, samples, seed)
        if len(_memory) > KEPT:
            _memory.popitem(last=False)
    _memory.move_to_end(key)
    return _memory[key]


def _probe(model: Model, samples: tuple[Sample, ...], seed: int) -> Probe:
    if model.link in UNITS:
        raise ValueError(
            f"{model.name} answers by a {UNITS[model.link]} and no probability, which measures by removal are made of. "
            "Compare numbers instead: models.removal.scorer(model, sample, output='logit')."
        )
    samples = _labelled(model, samples)
    batches = tuple(encode(model, [one]) for one in samples)
    operators = removal.operators_for(model)[:OPERATORS]
    places = tuple(removal.places(batch) for batch in batches)
    keeps = []
    for batch, place, one in zip(batches, places, samples, strict=True):
        tokens = len(batch.labels[0])
        nothing = torch.ones(1, tokens, dtype=torch.bool).index_fill(1, place, False)
        masks = removal_curves.random_removals(place, tokens, RANDOM, seed + zlib.crc32(one.name.encode()))
        keeps.append(
            {op: nothing for op in operators[1:]}
            | {operators[0]: torch.cat([torch.ones_like(nothing), nothing, masks])}
        )
    answers = removal.ask(model, batches, keeps)
    logits = torch.stack([answer[operators[0]][0] for answer in answers])
    right = [one.label if isinstance(one, Prompt) else None for one in samples]
    targets = tuple(
        found if known is None else known for known, found in zip(right, logits.argmax(-1).tolist(), strict=True)
    )
    full = probabilities(logits, model.link)[range(len(samples)), targets]
    empty, drops = [], []
    for answer, target in zip(answers, targets, strict=True):
        first, others = answer[operators[0]], [answer[op][0] for op in operators[1:]]
        empty.append(probabilities(torch.stack([first[1], *others]), model.link)[:, target])
        drops.append(first[0, target] - first[2:, target])
    gone = tuple(~keep[operators[0]][2:][:, place] for keep, place in zip(keeps, places, strict=True))
    words = tuple(_words(*each) for each in zip(samples, batches, places, strict=True))
    truth = tuple(_truth(model, *each) for each in zip(samples, batches, places, words, targets, strict=True))
    return Probe(batches, targets, places, operators, full, torch.stack(empty), gone, tuple(drops), truth, words)


def _labelled(model: Model, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Give every prompt whose cause is known of a language model the place of its answer in the vocabulary as label."""
    asked = [one for one in samples if isinstance(one, Prompt)]
    if model.head != "next" or not asked:
        return samples
    kept = {one.name for one in on_prompts.verified(model, asked).prompts}
    return tuple(
        replace(one, label=model.class_index(one.answer)) if isinstance(one, Prompt) and one.name in kept else one
        for one in samples
    )


def _words(sample: Sample, batch: Batch, places: Tensor) -> Tensor:
    if not isinstance(sample, Text):
        return torch.ones(len(places), dtype=torch.bool)
    ranked = torch.from_numpy(word_mask(sample, batch.spans[0]))
    if isinstance(sample, Prompt):  # what asks is a cause of another kind, and no map is judged by it
        ranked &= on_prompts.words(sample, batch.spans[0]).of.any(0)
    return ranked[places]


def _truth(model: Model, sample: Sample, batch: Batch, places: Tensor, words: Tensor, target: int) -> Tensor | None:
    if isinstance(sample, Text):
        if not sample.rationale or sample.label != target:
            return None
        inside = torch.from_numpy(rationale_mask(sample, batch.spans[0]))[places].double()
    else:
        mask = sample.masks.get(model.classes[target], sample.masks.get(f"#{target}"))
        if mask is None or model.preprocessing is None or batch.grid is None:
            return None
        seen = mask if mask.shape == (model.preprocessing.size,) * 2 else view_mask(mask, model.preprocessing)
        if not seen.any():
            return None
        inside = metrics.cover(seen, batch.grid)
    ranked = inside[words] > 0.5
    return inside if ranked.any() and not ranked.all() else None


def _print(sample: Sample) -> str:
    """Return what tells one sample from another: a hash of what it holds and of all that is known about it."""
    return sets.digest([sample])
