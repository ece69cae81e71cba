"""What [MASK] takes from the asked word: attention by head, rollout, flow, and what it keeps of itself."""

import pytest
import tiny
import torch

from xai_utils.gender import paths, probes
from xai_utils.maths import flow, rollout
from xai_utils.samples.gender import Probe

PROBES = [Probe(f"the {word} is not [MASK] .", word, pair=("warm", "dull")) for word in ("film", "plot", "very slow")]


@pytest.fixture(scope="module")
def observed():
    return probes.observe(tiny.mlm(), PROBES)


def test_attention_by_head_adds_up_the_pieces_of_the_word(observed):
    found = paths.attention_by_head(observed)
    assert found.shape == (tiny.BLOCKS, tiny.HEADS)
    rows = [observed.seen.attention[1, i, 2, int(observed.seen.reading[i])] for i in range(3)]
    expected = (rows[0][2] + rows[1][2] + rows[2][2] + rows[2][3]) / 3
    assert float(found[1, 2]) == pytest.approx(float(expected))


def test_reach_follows_words_of_one_piece_by_the_three_readings(observed):
    found = paths.reach(observed)
    assert list(found) == ["attention", "rollout", "flow"] and all(len(row) == tiny.BLOCKS for row in found.values())
    maps = [observed.seen.attention[:, i].mean(1)[:, :8, :8] for i in range(2)]  # the third word has two pieces
    for layer in range(tiny.BLOCKS):
        assert found["attention"][layer] == pytest.approx(float(sum(one[layer, 5, 2] for one in maps) / 2))
        rolled = sum(rollout.rollout(one)[layer, 5, 2] for one in maps) / 2
        assert found["rollout"][layer] == pytest.approx(float(rolled))
        flows = [float(flow.flow(rollout.mix(one), layer, [5], [2])) for one in maps]
        assert found["flow"][layer] == pytest.approx(sum(flows) / 2)


def test_own_shares_are_those_of_mask(observed):
    found = paths.own_shares(observed)
    assert len(found) == 3 and all(one.shape == (tiny.BLOCKS, 3) for one in found.values())
    assert all(((one >= 0) & (one <= 1)).all() for one in found.values())
    diagonal = found["diagonal of (A + I) / 2"]
    attention = observed.seen.attention.mean(2)
    torch.testing.assert_close(diagonal[2, 1], (attention[2, 1, 5, 5] + 1) / 2)
    untouched = found["rollout, never through attention"]
    assert (untouched[1:] <= untouched[:-1]).all(), "what never passed through attention can only fall"
