"""Rankings of marked words: the best one, one that knows nothing, refusals."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from xai_utils import methods, metrics, models, samples
from xai_utils.evaluation import on_words
from xai_utils.models import encoding


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-sst2")


@pytest.fixture(scope="module")
def maps(model):
    return methods.explain("gradient_norm", model, samples.reviews(12))


def scored(model, maps, texts, score):
    spans = encoding.encode(model, texts).spans
    return [replace(one, scores=score(text, own)) for one, text, own in zip(maps, texts, spans, strict=True)]


def test_the_rationale_itself_is_the_best_ranking_and_noise_is_none(model, maps):
    texts = samples.reviews(12)
    noise = torch.Generator().manual_seed(0)
    best = scored(model, maps, texts, lambda text, own: torch.from_numpy(encoding.rationale_mask(text, own) + 0.0))
    blind = scored(model, maps, texts, lambda _, own: torch.rand(len(own), generator=noise))
    worst = scored(model, maps, texts, lambda text, own: torch.from_numpy(1.0 - encoding.rationale_mask(text, own)))
    of_best, of_blind, of_worst = (on_words.gains(model, texts, one) for one in (best, blind, worst))
    assert (of_best > 0).all() and (of_best >= of_blind).all()
    assert abs(of_blind.mean()) < 0.2 and of_best.mean() > 0.4 and of_worst.mean() < -0.05


def test_special_tokens_do_not_take_part(model, maps):
    texts = samples.reviews(12)
    loud = [replace(one, scores=one.scores.clone()) for one in maps]
    for one in loud:
        one.scores[[0, -1]] = 1e6
    found = (on_words.gains(model, texts, one) for one in (maps, loud))
    assert np.array_equal(*found)


def test_what_does_not_fit_is_refused(model, maps):
    texts = samples.reviews(2)
    with pytest.raises(ValueError, match="1 maps are given for 2 texts"):
        on_words.gains(model, texts, maps[:1])
    with pytest.raises(ValueError, match="scores for the"):
        on_words.gains(model, texts, [maps[1], maps[0]])
    with pytest.raises(ValueError, match="inside and tokens outside"):
        on_words.gains(model, [replace(texts[0], rationale=())], maps[:1])


@pytest.mark.parametrize(("tokens", "marked"), [(2, 1), (5, 2), (6, 5)])
def test_chance_is_the_mean_over_all_rankings(tokens, marked):
    truth = torch.arange(tokens) < marked
    every = [metrics.average_precision(torch.tensor(one), truth + 0.0) for one in permutations(range(tokens))]
    assert on_words.chance(tokens, marked) == pytest.approx(np.mean(every))
    with pytest.raises(ValueError, match="some, and not all"):
        on_words.chance(tokens, tokens)


def test_the_label_is_explained_by_every_method(model):
    texts = samples.reviews(6)
    asked = {"length": ("gradient_norm", {}), "no rules": ("mamba_lrp", {"rules": ()})}
    found = on_words.gained(model, texts, asked)
    for label, (name, options) in asked.items():
        own = methods.explain(name, model, texts, [one.label for one in texts], **options)
        np.testing.assert_allclose(found[label], on_words.gains(model, texts, own))
