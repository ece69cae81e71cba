"""Change a model where an explanation should notice, and the input where it should not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from xai_utils import check
from xai_utils.capture.intervene import restored
from xai_utils.evaluation import scoring
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.result import Attribution
from xai_utils.samples.kinds import Picture, Sample

WAYS = ("cascading", "independent")
STRENGTH = 1e4  #: how little the classifier that learns random labels is held back


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


def steps(model: Model, way: str) -> list[tuple[str, list[str]]]:
    """Return ``(last part changed, parts changed)`` for every step of a test.

    Args:
        model: the model.
        way: ``"cascading"`` changes all from the output down to the named part, ``"independent"`` that one alone.
    """
    check.one_of("way", way, WAYS)
    names = layers(model)
    if way == "independent":
        return [(name, [name]) for name in names]
    return [(name, names[: i + 1]) for i, name in enumerate(names)]


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
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(last.out_features, (len(features),), generator=noise)
    labels[: last.out_features] = torch.arange(last.out_features)[: len(labels)]  # every class is there
    spread, middle = features.std(0).clamp(min=1e-6), features.mean(0)
    fitted = LogisticRegression(C=STRENGTH, max_iter=2000).fit((features - middle) / spread, labels)
    weight = torch.from_numpy(fitted.coef_) / spread
    bias = torch.from_numpy(fitted.intercept_) - weight @ middle
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


def randomisation(
    model: Model, method: str, samples: Sequence[Sample], targets: Sequence[int], way: str, seed: int
) -> dict[str, list[float]]:
    """Return the rank correlation of each sample's map with its map after parts of the model were shuffled.

    Args:
        model: the model, which has its own weights again afterwards.
        method: a method or null of the leaderboard.
        samples: sentences or pictures.
        targets: class explained of each, the same before and after.
        way: ``"cascading"`` or ``"independent"``, see :func:`steps`.
        seed: of the shuffling.

    Returns:
        Last part shuffled to one correlation a sample; 0 where no map is left, or a constant one.
    """
    before = scoring.attributions(model, method, samples, targets, seed)[0]
    found = {}
    for name, parts in steps(model, way):
        with randomised(model, parts, seed):
            found[name] = _left(before, model, method, samples, targets, seed)
    return found


def relabelling(
    model: Model,
    method: str,
    samples: Sequence[Sample],
    targets: Sequence[int],
    taught: Sequence[Sample],
    seed: int,
) -> tuple[list[float], float]:
    """Return the rank correlation of each map with its map once the classifier has learnt random labels.

    Args:
        model: the model, which has its own classifier again afterwards.
        method: a method or null of the leaderboard.
        samples: sentences or pictures that are explained.
        targets: class explained of each, the same before and after.
        taught: samples whose random labels the classifier learns (see :func:`relabelled`).
        seed: of the labels.

    Returns:
        One correlation a sample, 0 where no map is left or a constant one; and the share of labels learnt.
    """
    before = scoring.attributions(model, method, samples, targets, seed)[0]
    with relabelled(model, encode(model, taught).inputs, seed) as learnt:
        return _left(before, model, method, samples, targets, seed), learnt


def shift(
    model: Model, method: str, pictures: Sequence[Picture], targets: Sequence[int], by: float, seed: int
) -> list[float]:
    """Return each map's relative change when pictures get brighter by ``by`` and the model takes it away again.

    The model computes what it did before, so a method that explains the model changes nothing (0).
    """
    assert model.preprocessing is not None
    std = model.preprocessing.std
    if len(set(std)) > 1:
        raise ValueError(f"{model.name} scales its channels differently ({std}); one shift needs one scale.")
    before = scoring.attributions(model, method, pictures, targets, seed)[0]
    brighter = [replace(one, image=(one.image + by).astype(np.float32)) for one in pictures]
    with shifted(model, by / std[0]):
        after = scoring.attributions(model, method, brighter, targets, seed)[0]
    pairs = [(a.scores.double(), b.scores.double()) for a, b in zip(before, after, strict=True) if a and b]
    return [float((one - other).norm() / one.norm()) for one, other in pairs]


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
