"""Selective rollout: properties, the rule written out, the original's numbers, refusals."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from places import GOLDEN
from scipy.spatial.distance import jensenshannon
from strategies import SAMPLES, attention, attention_stacks, steady

from xai_utils.maths.rollout import mix, rollout
from xai_utils.maths.selective import (
    DISTANCES,
    REFERENCES,
    calibrate,
    first_layers,
    layers_used,
    random_layers,
    rollout_through,
    row_through,
    selective_rollout,
)

STORED = np.load(GOLDEN / "selective.npz")
same = torch.testing.assert_close
BOUNDED = [name for name in DISTANCES if name != "frobenius"]
EACH = pytest.mark.parametrize("distance", DISTANCES)


# Properties


@steady
@given(maps=attention_stacks(), residual=st.floats(0, 0.9), distance=st.sampled_from([*DISTANCES]))
def test_a_threshold_of_zero_is_the_plain_rollout(maps, residual, distance):
    assume(all((above - below).abs().max() > 1e-6 for below, above in pairwise(maps)))
    found = selective_rollout(maps, 0.0, distance, residual=residual)
    assert found.used.all()
    same(found.rolled, rollout(maps, residual))


@EACH
def test_a_layer_equal_to_the_one_below_is_never_used(distance):
    maps = attention(1, 5, 5).expand(3, 5, 5)
    assert layers_used(maps, 0.0, distance).tolist() == [True, False, False]


@steady
@given(maps=attention_stacks(axes=SAMPLES), distance=st.sampled_from([*DISTANCES]))
def test_out_of_reach_only_the_first_layer_is_used(maps, distance):
    found = selective_rollout(maps, 1.0 if distance in BOUNDED else 99.0, distance)
    assert found.used[0].all() and not found.used[1:].any()
    same(found.rolled, rollout(maps)[:1].expand_as(maps))


@steady
@given(maps=attention_stacks(axes=SAMPLES), threshold=st.floats(0, 1), reference=st.sampled_from(REFERENCES))
def test_rows_stay_probabilities_and_a_batch_is_a_loop(maps, threshold, reference):
    found = selective_rollout(maps, threshold, "total_variation", reference)
    same(found.rolled.sum(-1), torch.ones(found.rolled.shape[:-1], dtype=maps.dtype))
    for sample in range(maps.shape[1]):
        alone = selective_rollout(maps[:, sample], threshold, "total_variation", reference)
        same(alone.rolled, found.rolled[:, sample])
        assert torch.equal(alone.used, found.used[:, sample])


@steady
@given(maps=attention_stacks(), distance=st.sampled_from(BOUNDED), residual=st.floats(0, 1))
def test_bounded_distances_are_bounded_by_the_share_of_attention(maps, distance, residual):
    for below, above in pairwise(mix(maps, residual)):
        found = DISTANCES[distance](below, above)
        assert -1e-12 <= found <= 1 - residual + 1e-9
        same(found, DISTANCES[distance](above, below))


@EACH
def test_equal_maps_have_no_distance_and_opposite_ones_the_greatest(distance):
    one, other = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64).flip(0)
    greatest = 8**0.5 if distance == "frobenius" else 1.0
    assert float(DISTANCES[distance](one, one)) == 0
    assert float(DISTANCES[distance](one, other)) == pytest.approx(greatest)


@EACH
def test_only_the_published_distance_grows_with_the_sentence(distance):
    def typical(tokens):
        below, above = mix(attention(2, tokens, tokens, sharpness=4.0))
        return float(DISTANCES[distance](below, above))

    growth = typical(256) / typical(16)
    assert growth > 2.5 if distance == "frobenius" else 0.6 < growth < 1.5


def test_a_skipped_layer_is_compared_with_the_last_used_one_or_with_its_neighbour():
    # Three small steps in one direction: each is near its neighbour, the third is far from the first.
    uniform, diagonal = torch.full((4, 4), 0.25, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    maps = torch.stack([(1 - share) * uniform + share * diagonal for share in (0.0, 0.3, 0.6)])
    assert layers_used(maps, 0.15, "total_variation", "last_used").tolist() == [True, False, True]
    assert layers_used(maps, 0.15, "total_variation", "previous").tolist() == [True, False, False]


def test_controls_use_as_many_layers():
    used = torch.tensor([[True, True, True], [False, True, False], [True, True, False], [False, True, False]])
    assert torch.equal(first_layers(used).sum(0), used.sum(0))
    assert all(first_layers(used)[:count, i].all() for i, count in enumerate(used.sum(0)))
    for keep in (False, True):
        drawn = random_layers(used, 3, draws=400, keep_first=keep)
        assert drawn.shape == (4, 3, 400) and (drawn.sum(0) == used.sum(0)[:, None]).all()
        assert torch.equal(drawn, random_layers(used, 3, 400, keep))
        assert not torch.equal(drawn, random_layers(used, 4, 400, keep))
        often = drawn[:, 0].double().mean(-1)  # two of four layers
        wanted = [1, 1 / 3, 1 / 3, 1 / 3] if keep else [0.5] * 4
        assert often.tolist() == pytest.approx(wanted, abs=0.08)


def test_one_row_of_many_choices_is_that_of_each():
    maps = attention(5, 6, 6, seed=3).double()
    used = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    for query in (0, -1):
        found = row_through(maps, used, query, 0.3)
        assert found.shape == (4, 3, 6)
        for i, j in ((0, 0), (3, 2), (1, 1)):
            torch.testing.assert_close(found[i, j], rollout_through(maps, used[:, i, j], 0.3)[-1, query])
    turned = row_through(maps.flip(0), used, 0, 0.3)
    assert (turned - row_through(maps, used, 0, 0.3)).abs().max() > 1e-3  # the order of layers matters
    with pytest.raises(ValueError, match="expected bool, 5 layers first"):
        row_through(maps, used[:3])
    with pytest.raises(IndexError, match="query is 6"):
        row_through(maps, used, 6)


def test_the_first_layers_alone_are_a_shorter_rollout():
    maps = attention(6, 4, 4)
    used = torch.tensor([True] * 3 + [False] * 3)
    same(rollout_through(maps, used)[-1], rollout(maps[:3])[-1])


def test_a_calibrated_threshold_leaves_out_its_share_of_the_steps():
    stacks = [attention(12, tokens, tokens, seed=tokens, sharpness=3.0) for tokens in range(5, 25)]
    for share in (0.25, 0.5, 0.75):
        threshold = calibrate(stacks, share, "jensen_shannon")
        used = [layers_used(stack, threshold, "jensen_shannon", "previous")[1:] for stack in stacks]
        assert float(torch.stack(used).double().mean()) == pytest.approx(1 - share, abs=0.01)


# The rule, literally


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
def test_the_published_rule_written_out(threshold):
    for seed in range(5):
        maps = attention(6, 5, 5, seed=seed, sharpness=4.0)
        mixed = (maps + torch.eye(5, dtype=maps.dtype)) / 2
        reference, rolled, used = mixed[0], mixed[0], [0]
        for layer in range(1, 6):
            if float(((mixed[layer] - reference) ** 2).sum()) ** 0.5 > threshold:
                rolled, reference, used = mixed[layer] @ rolled, mixed[layer], [*used, layer]
        found = selective_rollout(maps, threshold)
        same(found.rolled[-1], rolled)
        assert found.used.nonzero()[:, 0].tolist() == used
        assert torch.equal(found.used[1:], found.distances[1:] > threshold) and found.distances[0] == 0


def test_jensen_shannon_is_scipys():
    one, other = attention(2, 6, 6, sharpness=3.0)
    wanted = np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(one, other, strict=True)])
    assert float(DISTANCES["jensen_shannon"](one, other)) == pytest.approx(wanted, abs=1e-12)


# The original


@pytest.mark.parametrize("case", range(6))
def test_golden_numbers(case):
    found = selective_rollout(torch.from_numpy(STORED["head_mean"]), float(STORED["taus"][case]))
    assert found.used.tolist() == STORED["used"][case].tolist()
    same(found.rolled[[3, 10, 11]], torch.from_numpy(STORED["rollout_sel"][case]), atol=1e-12, rtol=0)


# Bad input


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"threshold": -0.1}, "threshold is -0.1, expected at least 0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": 1.5, "distance": "total_variation"}, "threshold is 1.5, expected between 0 and 1"),
        ({"threshold": 1, "distance": "euclid"}, "distance is 'euclid', expected one of: frobenius"),
        ({"threshold": 1, "reference": "first"}, "reference is 'first', expected one of: last_used"),
        ({"threshold": 1, "residual": 2.0}, "residual is 2.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, what):
    with pytest.raises(ValueError, match=what):
        selective_rollout(attention(2, 3, 3), **options)


@pytest.mark.parametrize(
    ("maps", "what"),
    [
        (attention(4, 4), r"maps\[None\]"),
        (attention(2, 3, 4), "as many queries"),
        (2 * attention(2, 4, 4), "not a probability map"),
        (attention(2, 4, 4) / 0, "NaN or infinite"),
    ],
)
def test_what_is_no_attention_is_refused(maps, what):
    with pytest.raises(ValueError, match=what):
        selective_rollout(maps, 0.5)


def test_one_token_and_one_layer_are_fine():
    assert selective_rollout(torch.ones(3, 1, 1), 0.5).rolled.tolist() == [[[1.0]]] * 3
    assert selective_rollout(attention(1, 4, 4), 0.5).used.tolist() == [True]


def test_marks_of_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"expected bool \(3,\)"):
        rollout_through(attention(3, 4, 4), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"int64 \(3,\)"):
        rollout_through(attention(3, 4, 4), torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize(("stacks", "quantile"), [([], 0.5), ([attention(1, 4, 4)], 0.5), ([attention(3, 4, 4)], 1.5)])
def test_calibration_needs_layers_and_a_share(stacks, quantile):
    with pytest.raises(ValueError, match=r"at least two layers|quantile is 1\.5"):
        calibrate(stacks, quantile)
