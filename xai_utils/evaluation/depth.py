"""What becomes of attention from layer to layer, on many samples: rollouts, flows, and layers that are left out.

Head-mean maps of a sample are ``(layer, query, key)``, without padding, prefix tokens included. Everything that judges
tokens leaves specials and prefixes out.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils.capture import capture_attention
from xai_utils.capture.attention import blocks_of, capture_states
from xai_utils.capture.intervene import edited, without_blocks
from xai_utils.evaluation import on_prompts
from xai_utils.evaluation.judged import BATCH, chance, evidence, judge
from xai_utils.maths import diffusion, flow, rollout, selective
from xai_utils.methods.observation import observe
from xai_utils.metrics.agreement import spearman
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.models.targets import Target, per_sample, together
from xai_utils.samples.kinds import Sample, Text

Key = TypeVar("Key", bound=Hashable)
DRAWN = ("random layers", "random with the first")  #: controls that are drawn many times
MEASURES = ("truth", "gradient norm", "gradient × input")
CONTROLS = ("first layers", "last layers", *DRAWN)


def head_means(model: Model, samples: Sequence[Sample], batch_size: int = 16) -> list[Tensor]:
    """Return the head-mean attention of every sample, ``(layer, query, key)`` in the model's precision, on the CPU."""
    found: list[Tensor] = []
    for start in range(0, len(samples), batch_size):
        seen = observe(model, samples[start : start + batch_size], gradient=False)
        found += [rollout.fuse(seen.view(i).attention).cpu() for i in range(len(seen.batch))]
    return found


def collapse(maps: Sequence[Tensor], residual: float = 0.5) -> Tensor:
    """Return how far the rows of each rollout still differ after every layer, ``(sample, layer)`` in [0, 1].

    0: all positions have the same map (see :func:`rollout.rank_collapse`). ``maps`` is as from :func:`head_means`.
    """
    return torch.stack([rollout.rank_collapse(rollout.rollout(one, residual)) for one in maps])


def mixing(model: Model, samples: Sequence[Sample]) -> Tensor:
    """Return how much of every token comes from others in each layer, mean over tokens: ``(sample, layer)`` in [0, 1].

    Norm-based, see :func:`rollout.mixing_ratio`; for the models whose values :func:`capture_attention` can keep.
    """
    found = []
    for one in samples:
        inputs = encode(model, [one]).inputs
        with torch.no_grad(), capture_attention(model.module, model.blocks, hidden=True, values=True) as trace:
            model.logits(inputs)
        states = torch.stack(trace.hidden[:-1])
        found.append(rollout.mixing_ratio(trace.stack(), torch.stack(trace.values), states).mean((1, 2)).cpu())
    return torch.stack(found)


def flows(
    maps: Tensor, residual: float = 0.5, layers: Sequence[int] | None = None, query: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the attention flow from one position after each layer, and the most that it can be.

    Args:
        maps: of one sample, ``(layer, query, key)``.
        residual: share of the skip connection.
        layers: after which; all by default.
        query: the position, by default the class token.

    Returns:
        Flow ``(layer, input)`` and :func:`flow.flow_bound` ``(input,)``, float64.
    """
    mixed = rollout.mix(maps.double(), residual)
    asked = range(len(mixed)) if layers is None else layers
    return torch.stack([flow.flow(mixed, layer, [query])[0] for layer in asked]), flow.flow_bound(mixed)


def gradient_pairing(
    model: Model, samples: Sequence[Sample], residual: float = 0.5
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Roll out attention weighted by its gradient, once by the own layer's and once by that of the mirrored layer.

    A script that collects gradients as they arrive, last layer first, pairs layer ``l`` with layer ``L - 1 - l``.

    Returns:
        Rightly and wrongly paired maps, each ``(sample, token)`` without prefix tokens, of samples of one length; and
        Spearman's correlation of the two, ``(sample,)``.
    """
    found: list[list[Tensor]] = [[], []]
    for one in samples:
        view = observe(model, [one]).view(0)
        assert view.gradient is not None
        for kept, gradient in zip(found, (view.gradient, view.gradient.flip(0)), strict=True):
            weighted = rollout.gradient_weighted(view.attention, gradient)
            kept.append(rollout.rollout_row(weighted, 0, residual, rescale=True)[view.prefix :].cpu())
    right, wrong = torch.stack(found[0]), torch.stack(found[1])
    return right, wrong, spearman(right, wrong)


def beyond_pole(maps: Sequence[Tensor], alpha: float) -> tuple[Tensor, Tensor]:
    """Tell where attention stands to the pole of :func:`diffusion.spectral_map`, which lies at ``alpha ** -0.5``.

    Args:
        maps: as from :func:`head_means`.
        alpha: of the spectral map.

    Returns:
        Largest singular value, and whether the unguarded filter leaves a row with a negative sum (bool), each
        ``(sample, layer)``.
    """
    largest = torch.stack([torch.linalg.matrix_norm(one, 2) for one in maps])
    return largest, torch.stack([diffusion.unguarded(one, alpha).sum(-1).amin(-1) < 0 for one in maps])


def diffused(
    model: Model, samples: Sequence[Sample], filters: Mapping[str, float], skips: Sequence[float], batch_size: int = 16
) -> dict[str, list[Tensor]]:
    """Roll out after every filter of the spectrum at every share of the skip connection.

    Args:
        model: text or vision model with attention, or a Mamba.
        samples: sentences or pictures.
        filters: a name in :data:`diffusion.FILTERS` to its strength; ``"identity"`` is plain rollout.
        skips: shares of the skip connection, each in [0, 1].
        batch_size: samples in one pass.

    Returns:
        ``"enhancement, 0.7"`` and so on, ``"rollout, 0.7"`` without a filter, to the row ``(token,)`` of the token that
        the answer is read from, for each sample, without prefix tokens.
    """
    names = {name: "rollout" if name == "identity" else name for name in filters}
    found: dict[str, list[Tensor]] = {f"{name}, {skip:g}": [] for name in names.values() for skip in skips}
    for start in range(0, len(samples), batch_size):
        seen = observe(model, samples[start : start + batch_size], gradient=False)
        for view in map(seen.view, range(len(seen.batch))):
            rows = diffusion.grid(rollout.fuse(view.attention).cpu(), filters, skips, view.reading)
            for own, row in zip(found.values(), rows[..., view.prefix :].flatten(0, 1), strict=True):
                own.append(row)
    return found


def alike(maps: Sequence[Tensor], filters: Mapping[str, float], residual: float = 0.5) -> pd.DataFrame:
    """Return how far the rows of the last rollout still differ after each filter: a row a sample, a column a filter.

    Args:
        maps: as from :func:`head_means`.
        filters: as in :func:`diffused`.
        residual: share of the skip connection.

    Returns:
        :func:`rollout.rank_collapse`, in [0, 1]; 0: all rows are the same.
    """
    rows = [
        {
            name: float(rollout.rank_collapse(rollout.rollout(diffusion.diffuse(one, name, value), residual)[-1]))
            for name, value in filters.items()
        }
        for one in maps
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Looked:
    """What one captured pass, forwards and backwards, leaves of each of many samples; float64, on the CPU.

    Attributes:
        maps: head-mean attention, ``(layer, query, key)``.
        slopes: length of the gradient at each token that enters the first block, ``(token,)``.
        products: size of the inner product of each token there with its gradient.
        sums: size of the gradient's sum over the width there.
    """

    maps: list[Tensor]
    slopes: list[Tensor]
    products: list[Tensor]
    sums: list[Tensor]


def look(model: Model, samples: Sequence[Sample], target: Target = None, batch_size: int = 16) -> Looked:
    """Capture attention and the gradient of what is asked, by default of the predicted class, of every sample."""
    questions, found = per_sample(target, len(samples)), Looked([], [], [], [])
    for start in range(0, len(samples), batch_size):
        some = slice(start, start + batch_size)
        seen = observe(model, samples[some], together(questions[some]))
        for view in map(seen.view, range(len(seen.batch))):
            assert view.embedding is not None and view.embedding_gradient is not None
            token, gradient = view.embedding.double().cpu(), view.embedding_gradient.double().cpu()
            found.maps.append(rollout.fuse(view.attention).double().cpu())
            found.slopes.append(gradient.norm(dim=-1))
            found.products.append((token * gradient).sum(-1).abs())
            found.sums.append(gradient.sum(-1).abs())
    return found


def half(looked: Looked, which: int) -> Looked:
    """Return what was seen of the even samples (0), or of the odd ones (1)."""
    return Looked(*(some[which::2] for some in (looked.maps, looked.slopes, looked.products, looked.sums)))


@torch.inference_mode()
def answers_kept(
    model: Model, samples: Sequence[Sample], choices: Mapping[Key, Collection[int]], batch_size: int = BATCH
) -> dict[Key, np.ndarray]:
    """Return whether a model still gives its answer when only some blocks are left: does its depth matter?

    Args:
        model: with a head.
        samples: sentences or pictures.
        choices: name to the numbers of the blocks that are left; the others hand on what they get.
        batch_size: samples in one pass.

    Returns:
        By name, bool of each sample.
    """
    count = len(blocks_of(model.module, model.blocks or model.module.config.num_hidden_layers))  # type: ignore
    same: dict[Key, list[Tensor]] = {name: [] for name in choices}
    for inputs in (encode(model, samples[i : i + batch_size]).inputs for i in range(0, len(samples), batch_size)):
        with capture_states(model.module) as trace:
            whole = model.logits(inputs).argmax(-1)
        for name, left in choices.items():
            with _without(model, set(range(count)) - set(left), list(trace.hidden)):
                same[name].append(model.logits(inputs).argmax(-1) == whole)
    return {name: torch.cat(some).cpu().numpy() for name, some in same.items()}


@contextmanager
def _without(model: Model, missing: set[int], entered: Sequence[Tensor]) -> Iterator[None]:
    """Take blocks out; what enters the first of them is as in the whole model, so nothing below runs again."""
    first = min(missing, default=0)
    with without_blocks(model, missing | set(range(first))), edited(model, {first: lambda _: entered[first]}):
        yield


def shallower(layers: int) -> dict[str, list[int]]:
    """Return which blocks to leave, for :func:`answers_kept`: the first few, and all but one in the middle."""
    first = sorted({2, 4, layers // 2, 3 * layers // 4, layers - 1} & set(range(1, layers)))
    missing = sorted({layers // 3, 2 * layers // 3})
    every = range(layers)
    return {f"first {n}": list(range(n)) for n in first} | {
        f"all but block {n}": [one for one in every if one != n] for n in missing
    }


def share_used(maps: Sequence[Tensor], threshold: float, distance: str, residual: float = 0.5) -> np.ndarray:
    """Return which share of the layers selective rollout goes through, ``(sample,)``."""
    return np.array(
        [selective.layers_used(one, threshold, distance, residual=residual).double().mean() for one in maps]
    )


def composed(
    maps: Sequence[Tensor], used: Sequence[Tensor], seed: int, query: int = 0, residual: float = 0.5, draws: int = 20
) -> dict[str, list[Tensor]]:
    """Roll out through the layers used, and through controls of as many layers: is it the rule, or their number?

    Args:
        maps: as from :func:`head_means`.
        used: ``(layer,)`` bool of each sample.
        seed: of the random layers.
        query: position that is read: 0, the class token, or -1, the last token of a language model.
        residual: share of the skip connection.
        draws: of random layers for each sample.

    Returns:
        A row ``(token,)`` for each sample, by ``"selective"``, ``"first layers"``, ``"last layers"``, and for each draw
        ``"random layers 0"`` and so on, and ``"random with the first 0"``, which keeps the first, as the rule does.
    """
    names = ["selective", "first layers", "last layers", *(f"{kind} {n}" for kind in DRAWN for n in range(draws))]
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for i, (one, own) in enumerate(zip(maps, used, strict=True)):
        bottom = selective.first_layers(own)
        drawn = [selective.random_layers(own, [seed, i], draws, keep_first=keep) for keep in (False, True)]
        choices = torch.cat([torch.stack([own, bottom, bottom.flip(0)], 1), *drawn], 1)
        for name, row in zip(names, selective.row_through(one, choices, query, residual), strict=True):
            found[name].append(row)
    return found


def reader(model: Model) -> int:
    """Return the position that is read: 0, the class token, or -1, the last token of a language model."""
    return -1 if model.head == "next" else 0


def ranked(model: Model, samples: Sequence[Sample], punctuation: bool = False) -> list[Tensor]:
    """Return which tokens of each sample are ranked, ``(rank,)``: words, and with them punctuation if asked for.

    The first token of a language model is left out: it draws attention that says nothing of it.
    """
    found = [own.places if punctuation else own.places[own.words] for own in evidence(model, samples)]
    return [one[one > 0] for one in found] if model.head == "next" else found


def agreement(
    rows: Mapping[str, Sequence[Tensor]], references: Sequence[Tensor], places: Sequence[Tensor]
) -> pd.DataFrame:
    """Return Spearman's correlation of rows with a reference, a row for each sample and a column for each name.

    Args:
        rows: name to the scores of each sample, ``(token,)``.
        references: of each sample ``(token,)``.
        places: the tokens that are ranked, as from :func:`ranked`.
    """
    stacked = [torch.stack(some)[:, own] for some, own in zip(zip(*rows.values(), strict=True), places, strict=True)]
    each = zip(stacked, references, places, strict=True)
    return pd.DataFrame([spearman(some, one[own]) for some, one, own in each], columns=list(rows))


def truth(model: Model, samples: Sequence[Text], rows: Mapping[str, Sequence[Tensor]]) -> pd.DataFrame:
    """Return how much better each map finds what is known to decide than a random ranking of the words would.

    Args:
        model: whose tokens are ranked.
        samples: reviews with marked words; or prompts of known cause for a language model, as
            :func:`on_prompts.verified` keeps them, whose decisive word is to be found.
        rows: name to the scores of each sample, ``(token,)``.

    Returns:
        Average precision less its expectation by chance, a row for each sample and a column for each name.
    """
    if model.head != "next":
        return judge(model, samples, rows, ("precision",)).droplevel("measure", axis=1).reset_index(drop=True)
    prompts: Any = samples
    marked = on_prompts.marks(model, prompts, {name: on_prompts.without_first(some) for name, some in rows.items()})
    spans = encode(model, prompts).spans
    by_chance = [chance(len(on_prompts.words(*pair)), 1) for pair in zip(prompts, spans, strict=True)]
    found = pd.DataFrame({name: marked[name, "precision"].to_numpy() for name in rows})
    return found.sub(by_chance, axis=0)


def measured(
    model: Model, samples: Sequence[Text], looked: Looked, rows: Mapping[str, Sequence[Tensor]],
    measures: Sequence[str] = MEASURES,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure the reader's rows: by ``"truth"`` where it is known of all samples, and by two gradients.

    Args:
        model: whose tokens are ranked.
        samples: texts.
        looked: of these samples.
        rows: name to the scores of each sample, ``(token,)``.
        measures: among :data:`MEASURES`.

    Returns:
        :func:`truth`, and :func:`agreement` with ``"gradient norm"`` and ``"gradient × input"``, words only.
    """
    known = "truth" in measures and all(one.rationale for one in samples)
    found = {"truth": truth(model, samples, rows)} if known else {}
    places, references = ranked(model, samples), dict(zip(MEASURES[1:], (looked.slopes, looked.products), strict=True))
    return found | {name: agreement(rows, one, places) for name, one in references.items() if name in measures}


def swept(
    model: Model, samples: Sequence[Text], looked: Looked, thresholds: Mapping[float, float], distance: str,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Compare selective rollout at many thresholds with as many layers at the bottom, and drawn at random.

    Args:
        model: a classifier, of which the class token is read, or a language model, of which the last token is.
        samples: judged; with known truth or without.
        looked: of these samples.
        thresholds: of the distance, by a name such as the quantile.
        distance: a name in :data:`selective.DISTANCES`.
        seed: of the random layers, :func:`composed`.

    Returns:
        A row for each sample; columns ``(threshold's name, composed, measure)``: ``"selective"`` and :data:`CONTROLS`,
        of those drawn the mean over the draws, by the first two of :data:`MEASURES`; and how many ``"layers"`` were
        used.
    """
    query = reader(model)
    columns: dict[tuple[float, str, str], Any] = {}
    for name, threshold in thresholds.items():
        used = [selective.layers_used(one, threshold, distance) for one in looked.maps]
        rows = composed(looked.maps, used, seed, query)
        for measure, table in measured(model, samples, looked, rows, MEASURES[:2]).items():
            for kind in ("selective", *CONTROLS):
                columns[name, kind, measure] = table.filter(like=kind).mean(axis=1)
        columns[name, "selective", "layers"] = [int(one.sum()) for one in used]
    return pd.DataFrame(columns).rename_axis(columns=["quantile", "composed", "measure"])


def settings(
    model: Model, looked: Looked, thresholds: Mapping[float, float], distance: str, skips: Sequence[float]
) -> dict[str, list[Tensor]]:
    """Return the reader's row of rollouts with all layers at many skips, and of selective ones at many thresholds.

    Args:
        model: a classifier or a language model, as in :func:`swept`.
        looked: of the samples.
        thresholds: name to threshold of the distance.
        distance: a name in :data:`selective.DISTANCES`.
        skips: shares of the skip connection; of selective rollout it is 0.5, as published.

    Returns:
        ``"skip 0.9"``, ``"quantile 0.5"`` and so on, and ``"last attention"``: ``(token,)`` for each sample.
    """
    query = reader(model)
    found = {f"skip {skip}": [rollout.rollout_row(one, query, skip) for one in looked.maps] for skip in skips}
    for name, threshold in thresholds.items():
        used = [selective.layers_used(one, threshold, distance)[:, None] for one in looked.maps]
        rows = [selective.row_through(*pair, query)[0] for pair in zip(looked.maps, used, strict=True)]
        found[f"quantile {name}"] = rows
    return found | {"last attention": [one[-1, query] for one in looked.maps]}


READINGS = ((-2, "max", "all"), (-2, "reader", "words"), (-1, "max", "all"), (-1, "reader", "with punctuation"),
            (-1, "reader", "words"))  # fmt: skip


def readings(
    model: Model, samples: Sequence[Sample], stacks: Mapping[str, Sequence[Tensor]], references: Sequence[Tensor]
) -> pd.DataFrame:
    """Return how the agreement of rollouts with a reference depends on how they are read.

    Args:
        model: whose tokens are ranked.
        samples: sentences.
        stacks: map to the rollout of each sample, ``(layer, query, input)``.
        references: of each sample ``(token,)``.

    Returns:
        Spearman's correlation, a row for each sample, columns ``(layer, row, tokens, map)`` for :data:`READINGS`: the
        last layer or the one before; the maximum over rows, as published, or the row that the answer is read from; all
        tokens, all but specials, or words.
    """
    found = []
    taken = {"all": [torch.arange(len(one)) for one in references], "words": ranked(model, samples)}
    taken["with punctuation"] = ranked(model, samples, punctuation=True)
    for layer, row, tokens in READINGS:
        rows = {
            name: [one[layer].amax(0) if row == "max" else one[layer, reader(model)] for one in stack]
            for name, stack in stacks.items()
        }
        table = agreement(rows, references, taken[tokens])
        table.columns = pd.MultiIndex.from_tuples([(layer, row, tokens, name) for name in rows])
        found.append(table)
    return pd.concat(found, axis=1).rename_axis(columns=["layer", "row", "tokens", "map"])
