"""Change a model where an explanation should notice, and the input where it should not.

As the scoring of a sweep (``scoring: xai_utils.evaluation.sanity`` in a plan) it asks what is left of a map once parts
of the model are shuffled, or its classifier has learnt random labels: one row for each sample, test and shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from xai_utils import check, models, stats
from xai_utils.capture.intervene import restored
from xai_utils.evaluation import judged, scoring
from xai_utils.evaluation.judged import Methods
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.models.targets import Target
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample

LABELS = "random labels"
#: what is changed: the classifier alone, all from there down to the middle, all; or what the classes mean
METRICS = ("classifier", "upper half", "everything", LABELS)
SHUFFLES = 5  #: of each test, the operators of a sweep: ``"shuffle 0"`` and so on
STRENGTH = 1e4  #: how little the classifier that learns random labels is held back
LEARNT = 0.95  #: share of the random labels that it has to know, or nothing is tested
STEPS = 8  #: of the path of integrated gradients at the pixels


def layers(model: Model) -> list[str]:
    """Return the names of the parts that hold weights, from the output down to the input.

    One part is one block of a list of equal blocks, or else one child of the model.
    """
    found: list[str] = []
    _collect(model.module, "", found)
    return found[::-1]


@contextmanager
def randomised(model: Model, names: Sequence[str], seed: int) -> Iterator[None]:
    """Shuffle the weights of the named parts within the block; afterwards they have their own values back.

    Every tensor is permuted, so that its values, and with them its scale, stay what they were.

    Args:
        model: the model.
        names: of parts, from :func:`layers`: one for the independent test, the first ones for the cascading test.
        seed: of the shuffling.

    Raises:
        ValueError: a part that is not there.

    Source: Adebayo et al. (2018), arXiv:1810.03292, section 4. Differs from: drawing weights anew as at the start of a
        training, which also changes their scale.
    """
    for name in names:
        check.one_of("part", name, tuple(dict(model.module.named_modules())))
    noise = torch.Generator().manual_seed(seed)
    parts = [model.module.get_submodule(name) for name in names]
    chosen = list(dict.fromkeys(parameter for part in parts for parameter in part.parameters()))
    with restored(chosen):
        with torch.no_grad():
            for parameter in chosen:
                order = torch.randperm(parameter.numel(), generator=noise).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        yield


def shuffled(
    model: Model,
    samples: Sequence[Sample],
    asked: Methods,
    mark: Callable[[dict[str, list[Attribution]]], pd.DataFrame],
    target: Target = None,
    seeds: Sequence[int] = range(5),
) -> dict[int, pd.DataFrame]:
    """Mark the maps of a model all of whose weights are shuffled: what the form of model and method brings by itself.

    A random ranking is an easy null where nearness, order or frequency already point at the truth.

    Args:
        model: has its own weights again afterwards.
        samples: sentences or pictures.
        asked: methods, as in :func:`judged.explained`.
        mark: label to a map for each sample -> a table with a row for each sample, such as of :func:`judged.judge`.
        target: as in :func:`methods.explain`; of the shuffled model the predicted class would be another.
        seeds: of the shuffles.

    Returns:
        Seed to table.
    """
    found = {}
    for seed in seeds:
        with randomised(model, layers(model), seed):
            found[seed] = mark(judged.explained(model, samples, asked, target))
    return found


def above_shuffled(
    own: pd.DataFrame, null: Mapping[int, pd.DataFrame], measures: Sequence[str]
) -> dict[tuple[str, str, str], np.ndarray]:
    """Return by how much each map is better than the mean of the same map after every shuffle, sample by sample.

    Args:
        own: of :func:`judged.judge`, columns ``(map, measure)``.
        null: from :func:`shuffled`; maps that it lacks are left out.
        measures: of which more is better.

    Returns:
        ``(map, "shuffled weights", measure)`` to ``(sample,)``, as :func:`paired.differences` names them.
    """
    mean = sum(null.values()) / len(null)
    return {
        (label, "shuffled weights", measure): (own[label, measure] - mean[label, measure]).to_numpy()
        for label, measure in own
        if measure in measures and (label, measure) in mean
    }


def beside_shuffled(
    own: pd.DataFrame, null: Mapping[int, pd.DataFrame], seed: int, clusters: Sequence[Hashable] | None = None
) -> pd.DataFrame:
    """Sum up marks and their null in one table.

    Args:
        own: as in :func:`above_shuffled`.
        null: as there.
        seed: of the bootstraps.
        clusters: as in :func:`stats.mean_interval`.

    Returns:
        A row for each ``(measure, map)``: mean over samples, its interval of 95 % (Wilson's for marks that are 0 or 1
        and have no clusters), ``"shuffled"``, the mean over samples and shuffles, and its least and greatest value over
        the shuffles; NaN where a map was not made with shuffled weights.
    """
    drawn = pd.DataFrame({number: table.mean() for number, table in null.items()})
    rows = {}
    for label, measure in own:
        one = _interval(own[label, measure], seed, clusters)
        found = drawn.loc[(label, measure)] if (label, measure) in drawn.index else pd.Series(dtype=float)
        rows[measure, label] = (one.mean, *one.bounds, found.mean(), found.min(), found.max())
    names = ["mean", "low", "high", "shuffled", "shuffled, least", "shuffled, most"]
    order = sorted(rows, key=lambda key: list(dict.fromkeys(own.columns.get_level_values(1))).index(key[0]))
    return pd.DataFrame(rows, index=names).T.loc[order].rename_axis(["measure", "map"])


def _interval(marks: pd.Series, seed: int, clusters: Sequence[Hashable] | None) -> stats.Interval:
    if clusters is None and marks.isin([0, 1]).all():
        return stats.rate_interval(marks.astype(bool).tolist())
    return stats.mean_interval(marks.tolist(), seed, clusters=clusters)


@contextmanager
def relabelled(model: Model, inputs: dict[str, Tensor], seed: int) -> Iterator[float]:
    """Let the classifier know random labels by heart within the block; afterwards it has its own weights back.

    The features stay what they are. Whoever explains the answer of a class that now means nothing should say something
    else.

    Args:
        model: a model whose last part is a linear classifier.
        inputs: of the model; at most as many samples as the classifier has features can surely be learnt.
        seed: of the labels.

    Yields:
        The share of the random labels that the classifier has learnt.

    Raises:
        TypeError: no linear classifier at the end.
        ValueError: fewer samples than classes.

    Source: Adebayo et al. (2018), arXiv:1810.03292, section 5. Differs: they train the whole model on random labels.
    """
    last = model.module.get_submodule(layers(model)[0])
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise TypeError(f"{model.name} ends in {type(last).__name__}, expected a linear classifier with bias.")
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    try:
        with torch.inference_mode():
            model.logits(inputs)
    finally:
        hook.remove()
    features = seen[0].double().cpu()
    if len(features) < last.out_features:
        raise ValueError(f"{len(features)} samples for {last.out_features} classes; expected one of each at least.")
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(last.out_features, (len(features),), generator=noise)
    labels[: last.out_features] = torch.arange(last.out_features)[: len(labels)]  # every class is there
    spread, middle = features.std(0).clamp(min=1e-6), features.mean(0)
    fitted = LogisticRegression(C=STRENGTH, max_iter=2000).fit((features - middle) / spread, labels)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps the difference of their logits
        coefficients, intercepts = (np.concatenate([-one, one]) / 2 for one in (coefficients, intercepts))
    weight = torch.from_numpy(coefficients) / spread
    bias = torch.from_numpy(intercepts) - weight @ middle
    with restored([last.weight, last.bias]):
        with torch.no_grad():
            last.weight.copy_(weight)
            last.bias.copy_(bias)
        yield float((features @ weight.T + bias).argmax(1).eq(labels).double().mean())


@contextmanager
def shifted(model: Model, shift: float) -> Iterator[None]:
    """Let a vision model take pictures that are brighter by ``shift`` and answer as it does for the ones that are not.

    Its first layer is given a bias that takes the shift away again, so that nothing that the model computes has
    changed. Whoever explains such a model on the shifted picture should say what he says of the other. The caller
    shifts the normalised pixels.

    Raises:
        TypeError: the first layer is no convolution of pixels.

    Source: Kindermans et al. (2017), arXiv:1711.00867, section 2.
    """
    first = next((part for part in model.module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or any(first.padding):  # type: ignore[arg-type]
        raise TypeError(f"{model.name} does not begin with a convolution of pixels without padding.")
    lost = shift * first.weight.detach().sum((1, 2, 3))
    kept = first.bias
    try:
        before = torch.zeros_like(lost) if kept is None else kept.detach()
        first.bias = nn.Parameter(before - lost, requires_grad=False)
        yield
    finally:
        first.bias = kept


def _collect(module: nn.Module, prefix: str, found: list[str]) -> None:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if not any(True for _ in child.parameters()):
            continue
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            found += [f"{path}.{i}" for i, part in enumerate(child) if any(True for _ in part.parameters())]
        elif any(isinstance(part, (nn.ModuleList, nn.Sequential)) for part in child.modules()):
            _collect(child, f"{path}.", found)
        else:
            found.append(path)


def stages(model: Model) -> dict[str, list[str]]:
    """Return the parts that each test of :data:`METRICS` shuffles, from the output down; not those of random labels."""
    names = layers(model)
    return dict(zip(METRICS, (names[:1], names[: (len(names) + 1) // 2], names), strict=False))


def methods_for(model_name: str) -> list[str]:
    """Return the methods that a sweep knows for a model."""
    return scoring.methods_for(model_name)


def identity(model_name: str) -> str:
    """Return the hash of what decides a model's answers."""
    return scoring.identity(model_name)


def score_shard(
    model_name: str, method: str, samples: Sequence[Sample], metrics: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Return the rank correlation of each sample's map with its map after each test, under :data:`SHUFFLES` seeds.

    Args:
        model_name: a name for :func:`models.load`; the model has its own weights again afterwards.
        method: a method or null of the leaderboard.
        samples: sentences or pictures; the class that the model predicts is explained, before and after. The same
            samples get the random labels.
        metrics: names in :data:`METRICS`.
        seed: of the first shuffle; the next ones have the next seeds.

    Returns:
        Rows as of :func:`scoring.score_shard`: the test as ``metric``, the shuffle as ``operator``, and as ``value``
        the correlation, 0 where no map is left or a constant one.

    Raises:
        ValueError: an unknown test, a method that fails on every sample, labels that are not learnt.
    """
    model = models.shared(model_name)
    for test in metrics:
        check.one_of("test", test, METRICS)
    inputs = encode(model, samples).inputs
    with torch.inference_mode():
        targets = model.logits(inputs).argmax(-1).tolist()
    before, seconds = scoring.attributions(model, method, samples, targets, seed)
    rows = []
    for number, test in product(range(SHUFFLES), metrics):
        with _changed(model, test, inputs, seed + number):
            left = _left(before, model, method, samples, targets, seed)
        told = {"metric": test, "operator": f"shuffle {number}", "seconds": seconds}
        rows += [{"sample": one.name, **told, "value": value} for one, value in zip(samples, left, strict=True)]
    return rows


@contextmanager
def _changed(model: Model, test: str, inputs: dict[str, Tensor], seed: int) -> Iterator[None]:
    if test != LABELS:
        with randomised(model, stages(model)[test], seed):
            yield
        return
    with relabelled(model, inputs, seed) as learnt:
        if learnt < LEARNT:
            raise ValueError(f"{model.name} has learnt {learnt:.0%} of the random labels; take fewer samples a shard.")
        yield


def shift(
    model: Model, method: str, pictures: Sequence[Picture], targets: Sequence[int], by: float, seed: int
) -> list[float]:
    """Return each map's relative change when pictures get brighter by ``by`` and the model takes it away again.

    The model computes what it did before, so a method that explains the model changes nothing (0).
    """
    std = _std(model)
    before = scoring.attributions(model, method, pictures, targets, seed)[0]
    brighter = [replace(one, image=(one.image + by).astype(np.float32)) for one in pictures]
    with shifted(model, by / std):
        after = scoring.attributions(model, method, brighter, targets, seed)[0]
    pairs = [(a.scores.double(), b.scores.double()) for a, b in zip(before, after, strict=True) if a and b]
    return [float((one - other).norm() / one.norm()) for one, other in pairs]


def shift_at_pixels(model: Model, pictures: Sequence[Picture], targets: Sequence[int], by: float) -> pd.DataFrame:
    """Return the relative change of maps over pixels under the same shift as in :func:`shift`, a row for each picture.

    A method that multiplies by the input, or starts a path at a fixed place, can fail here. One that works on tokens
    cannot: the first layer gives back the very tokens, so :func:`shift` finds 0 by construction.

    Returns:
        Columns ``"gradient"``, ``"gradient x input"``, ``"integrated gradients"`` (from the mean colour), the same
        ``"..., reference moved"`` by the shift; and as scale ``"another picture"``, how much the gradient differs from
        that of the next one.
    """
    shift = by / _std(model)
    ((name, pixels),) = encode(model, pictures).inputs.items()

    def maps(pixels: Tensor, origin: float) -> dict[str, Tensor]:
        path = torch.linspace(0.5 / STEPS, 1 - 0.5 / STEPS, STEPS)
        along = [_slope(model, name, origin + part * (pixels - origin), targets) for part in path.tolist()]
        slope = _slope(model, name, pixels, targets)
        paths = (pixels - origin).double() * torch.stack(along).mean(0)
        return {"gradient": slope, "gradient x input": pixels.double() * slope, "integrated gradients": paths}

    before = maps(pixels, 0.0)
    with shifted(model, shift):
        after, moved = maps(pixels + shift, 0.0), maps(pixels + shift, shift)["integrated gradients"]
    found = {label: _apart(before[label], after[label]) for label in before}
    found["integrated gradients, reference moved"] = _apart(before["integrated gradients"], moved)
    found["another picture"] = _apart(before["gradient"], before["gradient"].roll(1, 0))
    return pd.DataFrame(found, index=[one.name for one in pictures])


def _slope(model: Model, name: str, pixels: Tensor, targets: Sequence[int]) -> Tensor:
    """Return the gradient of each picture's logit, ``(sample, channel, row, column)`` float64."""
    leaf = pixels.detach().requires_grad_()
    own = model.logits({name: leaf})[range(len(targets)), list(targets)].sum()
    return torch.autograd.grad(own, leaf)[0].double()


def _apart(one: Tensor, other: Tensor) -> np.ndarray:
    return np.asarray(((one - other).flatten(1).norm(dim=1) / one.flatten(1).norm(dim=1)).tolist())


def _std(model: Model) -> float:
    """Return the one scale of all channels."""
    assert model.preprocessing is not None
    std = model.preprocessing.std
    if len(set(std)) > 1:
        raise ValueError(f"{model.name} scales its channels differently ({std}); one shift needs one scale.")
    return float(std[0])


def _left(
    before: Sequence[Attribution | None], model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int],
    seed: int,
) -> list[float]:  # fmt: skip
    """Return how each map correlates with the map before; 0 where there is none, or a constant one."""
    try:
        after = scoring.attributions(model, method, samples, targets, seed)[0]
    except ValueError:
        return [0.0] * len(samples)
    return [_correlation(one, other) for one, other in zip(before, after, strict=True)]


def _correlation(one: Attribution | None, other: Attribution | None) -> float:
    if one is None or other is None or not all(len(both.scores.unique()) > 1 for both in (one, other)):
        return 0.0
    return float(agreement.spearman(one.scores, other.scores))
