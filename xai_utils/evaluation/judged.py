"""Explain many samples by many methods, and judge the maps: by known evidence, by other maps, by removal; one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from xai_utils import check, metrics
from xai_utils.methods import METHODS, attribute, explain, read_relevance, relevance
from xai_utils.methods.observation import Observation, observe
from xai_utils.metrics.agreement import spearman
from xai_utils.metrics.rankings import precision_of_rows, ranking
from xai_utils.metrics.removal_curves import TENTHS
from xai_utils.models import Model, removal
from xai_utils.models.encoding import Batch, encode, patch_grid, rationale_mask, view_mask, word_mask
from xai_utils.models.targets import Target, per_sample, probabilities, together
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample, Text

Methods = Mapping[str, tuple[str, Mapping[str, Any]]]  #: what a map is called -> (name of its method, options)
Maps = Mapping[str, Sequence[Attribution | Tensor]]  #: what it is called -> a map, or its scores, for each sample

BY_REMOVAL = ("deletion", "insertion")
BATCH = 32  # samples in one pass


def explained(
    model: Model, samples: Sequence[Sample], asked: Methods, target: Target = None, batch_size: int = BATCH,
    look: Callable[[Observation], None] | None = None,
) -> dict[str, list[Attribution]]:  # fmt: skip
    """Explain every sample by every method; methods that look at one captured pass share it, as do readings
    of one relevance pass.

    Args:
        model: from :func:`models.load`.
        samples: sentences or pictures; none gives no map.
        asked: label -> (name in :data:`methods.METHODS`, options).
        target: as in :func:`methods.explain`.
        batch_size: samples in one pass.
        look: is given every captured pass too, for what is no map of a method.

    Returns:
        Label to a map for each sample, in the order of ``asked``.
    """
    shared = {label: one for label, one in asked.items() if one[0] in METHODS and METHODS[one[0]].score is not None}
    read = {label: one for label, one in asked.items() if one[0] in relevance.READ and "preset" not in one[1]}
    read = read if look or shared or (len(read) > 1 and model.padding == "any") else {}
    used = [METHODS[name] for name, _ in shared.values()]
    gradient = bool(look or read) or any(one.asks for one in used)
    maps = bool(look or read) or any(one.reads_maps for one in used)
    questions = per_sample(target, len(samples))
    found: dict[str, list[Attribution]] = {label: [] for label in asked}
    for start in range(0, len(samples) if shared or read or look else 0, batch_size):
        some = slice(start, start + batch_size)
        seen = observe(model, samples[some], together(questions[some]), gradient, maps=maps)
        for label, (name, options) in shared.items():
            found[label] += [attribute(name, seen, i, **options) for i in range(len(seen.batch))]
        for label, own in read_relevance(seen, read).items() if read else ():
            found[label] += own
        if look:
            look(seen)
    for label, (name, options) in asked.items():
        if label not in shared and label not in read and len(samples):
            found[label] = explain(name, model, list(samples), target, batch_size=batch_size, **options)
    return found


def sizes(maps: Mapping[str, Sequence[Attribution]]) -> dict[str, list[Tensor]]:
    """Return the sizes ``(token,)`` of the scores of signed maps, each called ``"... (size)"``: the other choice.

    Everywhere a negative score speaks against what was asked, and a map is judged as it is. Whoever asks only how much
    a token matters, either way, judges these.
    """
    signed = {label: own for label, own in maps.items() if any(one.signed for one in own)}
    return {f"{label} (size)": [one.scores.abs() for one in own] for label, own in signed.items()}


@dataclass(frozen=True)
class Evidence:
    """What is known of one sample.

    Attributes:
        tokens: how many tokens a map of it scores, specials among them.
        places: the tokens that take part, ``(rank,)``: all but specials.
        inside: share of each of these inside the rationale or the masks, ``(rank,)`` float64; ``None`` if nothing is
            known.
        words: which of them are ranked against it, ``(rank,)`` bool: all but punctuation (:func:`encoding.word_mask`).
    """

    tokens: int
    places: Tensor
    inside: Tensor | None
    words: Tensor


def evidence(model: Model, samples: Sequence[Sample]) -> list[Evidence]:
    """Return which tokens of each sample take part, and which of them are marked as evidence, whatever the model says.

    Of a text these are the tokens that overlap its rationale, of a picture the patches under any of its masks.
    """
    if model.kind == "vision" or not samples:
        return [_of_picture(model, one) for one in samples]  # type: ignore[arg-type]
    batch = encode(model, samples)
    return [_of_text(batch, i, one) for i, one in enumerate(samples)]  # type: ignore[arg-type]


def _of_text(batch: Batch, i: int, sample: Text) -> Evidence:
    places = removal.places(batch, i)
    marked = torch.from_numpy(rationale_mask(sample, batch.spans[i])).double()[places]
    words = torch.from_numpy(word_mask(sample, batch.spans[i]))[places]
    return Evidence(batch.length(i), places, marked if sample.rationale else None, words)


def _of_picture(model: Model, sample: Picture) -> Evidence:
    grid = patch_grid(model)
    places = torch.arange(grid[0] * grid[1])
    every = torch.ones(len(places), dtype=torch.bool)
    if not sample.masks:
        return Evidence(len(places), places, None, every)
    assert model.preprocessing is not None
    whole = np.any([view_mask(mask, model.preprocessing) for mask in sample.masks.values()], axis=0)
    return Evidence(len(places), places, metrics.cover(whole, grid), every)


def chance(tokens: int, marked: int) -> float:
    """Return the expected average precision of a random ranking of ``tokens``, ``marked`` of which are to be found.

    A marked token at rank k has k - 1 tokens before it, of which (marked - 1) / (tokens - 1) are marked too.
    """
    if not 0 < marked < tokens:
        raise ValueError(f"{marked} of {tokens} tokens are marked; expected some, and not all.")
    ranks = np.arange(1, tokens + 1)
    return float(((1 + (ranks - 1) * (marked - 1) / (tokens - 1)) / ranks).mean())


def _precision_gains(rows: Tensor, inside: Tensor) -> list[float]:
    found = precision_of_rows(rows, inside)
    return (found - chance(len(inside), int((inside > 0.5).sum()))).tolist()  # type: ignore[no-any-return]


def _each(mark: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], list[float]]:
    return lambda rows, inside: [float(mark(row, inside)) for row in rows]


#: by known evidence, of many maps ``(map, token)``: the share of the positive scores on it, that share over a uniform
#: map's, whether the greatest score lies on it, and the average precision of finding it less that of a random ranking
BY_EVIDENCE: dict[str, Callable[[Tensor, Tensor], list[float]]] = {
    "mass": _each(metrics.mass_inside),
    "lift": _each(metrics.lift),
    "pointing": _each(metrics.hit),
    "precision": _precision_gains,
}
PUNCTUATED = " with punctuation"  #: ends the name of a measure by evidence that ranks punctuation among the words
MEASURES = (*BY_EVIDENCE, *BY_REMOVAL, *(name + PUNCTUATED for name in BY_EVIDENCE))


def judge(
    model: Model,
    samples: Sequence[Sample],
    maps: Maps,
    measures: Sequence[str] = ("mass", "pointing"),
    references: Maps | None = None,
    fractions: Sequence[float] = TENTHS,
) -> pd.DataFrame:
    """Judge every map of every sample; special tokens do not take part.

    Args:
        model: whose tokens the maps score.
        samples: sentences or pictures.
        maps: label to a map for each sample, as from :func:`explained`, or their scores ``(token,)``.
        measures: names in :data:`MEASURES`; deletion and insertion are explained at :func:`areas`. Those by evidence
            rank words alone, unless their name ends in :data:`PUNCTUATED`.
        references: label to a map for each of the first samples: one more measure each, Spearman's correlation with
            it; NaN where there is none.
        fractions: of the tokens that are gone, or back, for deletion and insertion.

    Returns:
        A row for each sample, columns ``(map, measure)``: for each map first the measures, then the references.

    Raises:
        ValueError: an unknown measure; maps that are not as many as samples, or of another length; a measure by
            evidence for a sample of which nothing is known.
    """
    for measure in measures:
        check.one_of("measure", measure, MEASURES)
    known = evidence(model, samples)
    removed = areas(model, samples, maps, fractions) if set(measures) & set(BY_REMOVAL) else pd.DataFrame()
    ranked = {label: _ranked(label, own, known) for label, own in maps.items()}
    by_evidence = [measure for measure in measures if maps and measure not in BY_REMOVAL]
    marks = {measure: _by_evidence(measure, ranked, known) for measure in by_evidence}
    columns: dict[tuple[str, str], Any] = {}
    for label, rows in ranked.items():
        for measure in measures:
            columns[label, measure] = removed[label, measure] if measure in BY_REMOVAL else marks[measure][label]
        for reference, others in (references or {}).items():
            agreed = np.full(len(rows), np.nan)
            for i, other in enumerate(_ranked(reference, others, known[: len(others)])):
                agreed[i] = spearman(rows[i], other)
            columns[label, reference] = agreed
    return _table(columns, samples)


def gained(model: Model, texts: Sequence[Text], asked: Methods) -> dict[str, np.ndarray]:
    """Return how much better each map ranks the marked words of texts than a random ranking is expected to.

    The label of every text is explained, whether or not the model agrees with it.

    Args:
        model: a text model.
        texts: each with a label, and a rationale that leaves some tokens out.
        asked: as in :func:`explained`.

    Returns:
        Label to average precision less :func:`chance`, ``(text,)``.

    Raises:
        ValueError: a text without a label, or whose rationale is empty or everything.
    """
    maps = explained(model, texts, asked, [one.label for one in texts if one.label is not None])
    table = judge(model, texts, maps, ("precision",))
    return {label: table[label, "precision"].to_numpy() for label in asked}


def areas(
    model: Model,
    samples: Sequence[Sample],
    maps: Maps,
    fractions: Sequence[float] = TENTHS,
    operator: str | None = None,
) -> pd.DataFrame:
    """Return the areas under removal of many maps on many samples; all maps of one sample are asked about together.

    Args:
        model: text or vision model with a classifier; the class that it predicts for the whole sample is followed.
        samples: sentences or pictures.
        maps: as in :func:`judge`; of equal scores the earlier token comes first.
        fractions: rising from 0 to 1, of the tokens without specials.
        operator: what is put in a token's place, see :func:`removal.scorer`.

    Returns:
        A row for each sample, columns ``(map, "deletion")``, the area under the probability of the class while the
        highest tokens are removed first (lower is better), and ``(map, "insertion")``, the same while they are put
        back (higher is better).
    """
    known, operator = evidence(model, samples), operator or removal.operators_for(model)[0]
    ranked = {label: _ranked(label, own, known) for label, own in maps.items()}
    found = np.empty((len(samples), len(maps), 2))
    for start in range(0, len(samples) if maps else 0, BATCH):
        some = range(len(samples))[start : start + BATCH]
        steps = [_steps(known[i], [rows[i] for rows in ranked.values()], fractions) for i in some]
        batches = [encode(model, [samples[i]]) for i in some]
        answers = removal.ask(model, batches, [{operator: keep.flatten(0, 2).unique(dim=0)} for keep in steps])
        for i, keep, answer in zip(some, steps, answers, strict=True):
            place = keep.flatten(0, 2).unique(dim=0, return_inverse=True)[1].view(keep.shape[:-1])
            logits = answer[operator][place]
            sure = probabilities(logits, model.link)[..., int(logits[0, 0, 0].argmax())]
            found[i] = metrics.area(sure, fractions).T
    columns = {(label, way): found[:, k, n] for k, label in enumerate(maps) for n, way in enumerate(BY_REMOVAL)}
    return _table(columns, samples)


def _steps(own: Evidence, rows: Sequence[Tensor], fractions: Sequence[float]) -> Tensor:
    """Return what is kept while the highest tokens go, and while they come back: ``(2, map, step, token)`` bool."""
    orders = own.places[ranking(torch.stack(list(rows)).double(), seed=None)]
    return torch.stack([metrics.keep_masks(orders, own.tokens, fractions, insert) for insert in (False, True)])


def controls(model: Model, samples: Sequence[Sample], maps: Sequence[Attribution]) -> dict[str, list[Tensor]]:
    """Return what a better map has to beat: cheap changes of a map, the scores ``(token,)`` of each sample.

    Args:
        model: whose tokens the maps score.
        samples: sentences or pictures.
        maps: one for each sample.

    Returns:
        ``"blur"``: a Gaussian of one patch, or of one word, specials left out; ``"power"``: the square, which leaves
        the ranking of a map that is nowhere negative as it is.
    """
    known = evidence(model, samples)
    return {
        "blur": [_blurred(one, own.places) for one, own in zip(maps, known, strict=True)],
        "power": [one.scores.square() for one in maps],
    }


def _blurred(found: Attribution, places: Tensor) -> Tensor:
    own = found.scores[places] if found.grid is None else found.picture()
    smooth = torch.from_numpy(gaussian_filter(own.numpy(), 1)).flatten()
    return found.scores.index_copy(0, places, smooth)


def _by_evidence(
    measure: str, ranked: Mapping[str, Sequence[Tensor]], known: Sequence[Evidence]
) -> dict[str, tuple[float, ...]]:
    """Mark all maps of a sample together: label to a number for each sample."""
    unknown = [i for i, own in enumerate(known) if own.inside is None]
    if unknown:
        raise ValueError(
            f"{measure} needs known evidence, but sample {unknown[0]} has neither a rationale nor a mask; take "
            "samples.reviews or samples.scene_pictures, or judge by a reference or by removal."
        )
    mark, found = BY_EVIDENCE[measure.removesuffix(PUNCTUATED)], []
    for own, *rows in zip(known, *ranked.values(), strict=True):
        assert own.inside is not None
        some = slice(None) if measure.endswith(PUNCTUATED) else own.words
        found.append(mark(torch.stack([row.double() for row in rows])[:, some], own.inside[some]))
    return dict(zip(ranked, zip(*found, strict=True), strict=True)) if found else dict.fromkeys(ranked, ())


def _ranked(label: str, maps: Sequence[Attribution | Tensor], known: Sequence[Evidence]) -> list[Tensor]:
    """Return the scores of the tokens that take part."""
    if len(maps) != len(known):
        raise ValueError(f"{label}: {len(maps)} maps are given for {len(known)} samples; expected one for each.")
    scores = [one.scores if isinstance(one, Attribution) else one for one in maps]
    for one, own in zip(scores, known, strict=True):
        if one.shape != (own.tokens,):
            raise ValueError(f"{label}: scores {tuple(one.shape)} are given for a sample of {own.tokens} tokens.")
    return [one[own.places] for one, own in zip(scores, known, strict=True)]


def _table(columns: Mapping[tuple[str, str], Any], samples: Sequence[Sample]) -> pd.DataFrame:
    names = pd.Index([one.name for one in samples], name="sample")
    table = pd.DataFrame(dict(columns), index=names)
    table.columns = pd.MultiIndex.from_tuples(columns, names=["map", "measure"])
    return table
