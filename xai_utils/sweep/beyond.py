"""Where the closed form ends: the same attention inside a block, and attention in every block of a deep transformer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils.maths import attention_layer
from xai_utils.methods.observation import View, observe
from xai_utils.metrics import agreement
from xai_utils.models import Model
from xai_utils.models.attention_classifier import AttentionClassifier, BlockClassifier, build
from xai_utils.models.encoding import encode
from xai_utils.samples.kinds import Text

#: Predictions of the gradient, see :func:`predicted`; the first is the formula, the last is the null.
FORMULA, ONE_SLOPE, OWN_SLOPE, ANOTHER = "formula", "one slope for all", "its own slope", "another text's formula"


def untrained(model: Model, seed: int) -> Model:
    """Return a small classifier with fresh weights in place of what it has learnt."""
    module = _small(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build(module.config).eval().requires_grad_(False)
    return replace(model, name=f"{model.name}, untrained", module=fresh)


def predicted(model: Model, texts: Sequence[Text], seed: int) -> pd.DataFrame:
    """Measure how well the closed form predicts the gradient at every word, in one layer of attention or in a block.

    The gradient is that of the last class's score, by back-propagation in double precision; the class token's row, in
    which the residual connection stands, is left out.

    Args:
        model: an attention classifier, or one with a residual connection and an MLP.
        texts: at least two.
        seed: of which text stands for which other.

    Returns:
        A row for each text, columns ``(prediction, measure)``. Measures: ``cosine`` of both gradients, all words and
        coordinates as one vector; ``rank``, Spearman's correlation of their lengths over words; and ``error``, the
        length of their difference over that of the gradient. Predictions:
        ``FORMULA``, the closed form as if nothing stood around the attention; ``ANOTHER``, that of another text, as
        many words as both have; and in a block, whose MLP makes the direction that the attention's answer is read
        along depend on the text, the formula with the mean direction of the other texts (``ONE_SLOPE``) and with that
        of the text itself (``OWN_SLOPE``), which is the chain rule and exact.

    Raises:
        TypeError: another kind of model.
    """
    module, target = deepcopy(_small(model)).double(), len(model.classes) - 1
    tokens = [module.embed(encode(model, [text]).inputs["input_ids"])[0].cpu() for text in texts]
    module = module.cpu()
    right = [_gradient(module, one, target) for one in tokens]
    found = {FORMULA: [_formula(module, one, target) for one in tokens]}
    if isinstance(module, BlockClassifier):
        slopes = torch.stack([_slope(module, one, target) for one in tokens])
        others = (slopes.sum(0) - slopes) / (len(texts) - 1)
        for name, along in ((ONE_SLOPE, others), (OWN_SLOPE, slopes)):
            found[name] = [_formula(module, one, target, slope) for one, slope in zip(tokens, along, strict=True)]
    order = np.random.default_rng(seed).permutation(len(texts))
    found[ANOTHER] = [found[FORMULA][order[(place + 1) % len(texts)]] for place in np.argsort(order)]
    columns = {name: [_alike(*both) for both in zip(right, maps, strict=True)] for name, maps in found.items()}
    return pd.concat({name: pd.DataFrame(rows) for name, rows in columns.items()}, axis=1)


def _small(model: Model) -> AttentionClassifier | BlockClassifier:
    if not isinstance(model.module, AttentionClassifier | BlockClassifier):
        raise TypeError(f"{model.name} is no attention classifier; try attention-sst2 or attention-mlp-sst2.")
    return model.module


def _gradient(module: AttentionClassifier | BlockClassifier, tokens: Tensor, target: int) -> Tensor:
    """Back-propagate to the words, ``(word, width)``."""
    given = tokens.clone().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(module.read(given[None])[0, target], given)
    return found[1:]


def _formula(
    module: AttentionClassifier | BlockClassifier, tokens: Tensor, target: int, slope: Tensor | None = None
) -> Tensor:
    """Return the closed gradient at the words, ``(word, width)``."""
    layer = module.layer(target, slope) if isinstance(module, BlockClassifier) else module.layer(target)
    return attention_layer.gradient(layer, tokens).mean(0)[1:]


def _slope(module: BlockClassifier, tokens: Tensor, target: int) -> Tensor:
    """Return how the score changes with what the attention answers, ``(width,)``."""
    state = module.state(tokens[None]).detach().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(module.answer(state)[0, target], state)
    return found[0]


def _alike(right: Tensor, found: Tensor) -> dict[str, float]:
    """Compare two gradients ``(word, width)`` on the words that both have."""
    count = min(len(right), len(found))
    one, other = right[:count], found[:count]
    return {
        "cosine": float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)),
        "rank": float(agreement.spearman(one.norm(dim=-1), other.norm(dim=-1))),
        "error": float((one - other).norm() / one.norm()),
    }


def by_block(model: Model, texts: Sequence[Text], batch: int = 32) -> pd.DataFrame:
    """Measure in every block of a deep transformer how well attention tells the size of the gradient.

    In the closed form attention is a factor of every gradient. Around a block stand a skip, normalisation and a
    feed-forward part, and tokens have been mixed below it.

    Args:
        model: a transformer that classifies texts.
        texts: whose label is what is differentiated, of one without label the last class.
        batch: texts in one pass.

    Returns:
        A row for each text, a column for each block: Spearman's correlation over tokens, the class token and the
        separator left out, between the class token's attention, mean over heads, and the length of the gradient at
        what enters the block.

    Raises:
        ValueError: a model that reads its answer elsewhere than from the first token, such as a Mamba.
    """
    rows = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        seen = observe(model, some, [-1 if one.label is None else one.label for one in some])
        if seen.reading.any() or seen.state_gradients is None:
            raise ValueError(f"{model.name} has no class token in front that reads the others; try minilm-sst2.")
        rows += [_by_block(seen.view(place)) for place in range(len(some))]
    return pd.DataFrame(rows)


def _by_block(view: View) -> list[float]:
    assert view.state_gradients is not None
    weights = view.attention.mean(1)[:, view.reading, 1:-1]
    slopes = view.state_gradients[:-1].norm(dim=-1)[:, 1:-1]
    return [float(agreement.spearman(*pair)) for pair in zip(weights, slopes, strict=True)]
