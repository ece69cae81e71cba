"""Activation patching: a whole state brings the whole answer, and scores are compared with what it does."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.gender import patching, probes
from xai_utils.samples.gender import Probe

WORDS = ("film", "plot", "slow", "warm", "funny", "dull")
COUPLES = [
    Probe(f"the {word} is [MASK] .", word, group="male", other=WORDS[i ^ 1], pair=("warm", "dull"))
    for i, word in enumerate(WORDS)
]


@pytest.fixture(scope="module")
def patched():
    return patching.patch(tiny.mlm(), COUPLES)


def test_the_place_that_differs_brings_everything_at_first_and_the_answer_in_the_end(patched):
    assert patched.effect.shape == (tiny.BLOCKS + 1, 6, 7)
    np.testing.assert_allclose(patched.effect[0, :, 2], 1, atol=1e-6)
    np.testing.assert_allclose(np.delete(patched.effect[0], 2, 1), 0, atol=1e-6)
    np.testing.assert_allclose(patched.effect[-1, :, 4], 1, atol=1e-6)
    np.testing.assert_allclose(np.delete(patched.effect[-1], 4, 1), 0, atol=1e-6)
    assert patched.tokens[2] == "…" and patched.tokens[1] == "the"
    np.testing.assert_allclose(patched.distance[::2], -patched.distance[1::2])
    np.testing.assert_allclose(patched.moved[0, :, 2], patched.distance, atol=1e-6)


def test_one_state_in_between_is_put_in_by_hand(patched):
    model = tiny.mlm()
    one, other = (probes.observe(model, [probe]) for probe in COUPLES[:2])
    states = torch.stack([one.seen.states[1], other.seen.states[1]])[:, 0]
    mixed = states[0].clone()
    mixed[4] = states[1, 4]
    rest = model.module.bert.encoder.layer[1:]
    state = mixed[None]
    for block in rest:
        state = block(state)[0] if isinstance(block(state), tuple) else block(state)
    logits = model.module.cls(state)[0, 4]
    first, second = (model.class_index(word) for word in ("warm", "dull"))
    expected = float(logits[first] - logits[second]) - one.log_odds[0]
    assert patched.moved[1, 0, 4] == pytest.approx(expected, abs=1e-6)


def test_a_score_of_couples_is_what_differs_between_them(patched, rays):
    found = patching.of_states(patched, "DensRay", rays)
    scores = patched.seen.scores("DensRay", rays)
    assert found.shape == (tiny.BLOCKS, 6, 7)
    np.testing.assert_allclose(found[1, 3, 2], float(scores[1, 2, 2] - scores[1, 3, 2]))
    slopes = patching.of_states(patched, "gradient × difference", rays)
    seen = patched.seen.seen
    expected = ((seen.states[1, 2] - seen.states[1, 3]) * seen.state_gradients[1, 3]).sum(-1)
    np.testing.assert_allclose(slopes[1, 3], expected)


def test_what_is_patching_itself_follows_it_and_noise_does_not(patched, rays, monkeypatch):
    monkeypatch.setattr(patching, "of_states", lambda one, name, rays: one.moved[:-1])
    itself = patching.follows([patched], "AttCAT", rays, 0, 99)
    assert itself.found.mean == pytest.approx(1) and itself.p < 0.05 and itself.found.n == 6
    noise = np.random.default_rng(0).normal(size=patched.moved[:-1].shape)
    monkeypatch.setattr(patching, "of_states", lambda one, name, rays: noise)
    assert abs(patching.follows([patched], "AttCAT", rays, 0, 99).found.mean) < 0.5


@pytest.mark.parametrize("given", [COUPLES[:3], [COUPLES[0], Probe("film is [MASK] .", "film", pair=("warm", "dull"))]])
def test_only_couples_of_one_length_are_patched(given):
    with pytest.raises(ValueError, match="couples of one length"):
        patching.patch(tiny.mlm(), given)
