"""FAF, BAF and lift: against a literal loop, its limits, and what is counted instead of scored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_utils import metrics


@st.composite
def cases(draw):
    count, rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    maps = torch.randn(count, rows, columns, generator=noise, dtype=torch.float64)
    masks = torch.rand(count, rows * draw(st.integers(1, 4)), columns * 3, generator=noise) < draw(st.floats(0, 1))
    return maps, masks


@settings(deadline=None, max_examples=40)
@given(cases())
def test_it_is_the_literal_sum(case):
    maps, masks = case
    found = metrics.foreground_fraction(maps, masks)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        high, wide = mask.shape[0] // scores.shape[0], mask.shape[1] // scores.shape[1]
        inside = total = 0.0
        for row in range(scores.shape[0]):
            for column in range(scores.shape[1]):
                tile = mask[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
                mass = max(0.0, float(scores[row, column]))
                total += mass
                inside += mass * float(tile.double().mean())
        assert found.found[i] == mask.any() and found.positive[i] == (total > 0)
        assert float(found.area[i]) == pytest.approx(float(mask.double().mean()))
        if found.scored[i]:
            assert float(found.fraction[i]) == pytest.approx(inside / total)
            assert float(found.lift[i]) == pytest.approx(inside / total / float(mask.double().mean()))
        else:
            assert found.fraction[i].isnan() and found.lift[i].isnan()


@settings(deadline=None, max_examples=40)
@given(cases(), st.floats(0.01, 1000))
def test_scale_does_not_matter_and_both_parts_make_one(case, scale):
    maps, masks = case
    found, scaled = (metrics.foreground_fraction(one, masks) for one in (maps, maps * scale))
    torch.testing.assert_close(found.fraction, scaled.fraction, equal_nan=True)
    other = metrics.foreground_fraction(maps, ~masks)
    both = found.scored & other.scored
    torch.testing.assert_close(found.background[both], other.fraction[both])


def test_a_uniform_map_has_the_area_and_a_map_on_the_object_has_everything():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4], masks[1, :2, :] = True, True
    uniform = metrics.foreground_fraction(torch.ones(2, 4, 4), masks)
    assert uniform.fraction.tolist() == uniform.area.tolist() == [0.25, 0.25] and uniform.lift.tolist() == [1, 1]
    exact = metrics.foreground_fraction(metrics.covers(masks, (4, 4)), masks)
    assert exact.fraction.tolist() == [1, 1] and exact.lift.tolist() == [4, 4] and exact.background.tolist() == [0, 0]


def test_what_cannot_be_scored_is_counted_and_refused_by_the_statistics():
    from xai_utils import stats

    maps, masks = torch.ones(4, 2, 2), torch.ones(4, 4, 4, dtype=torch.bool)
    masks[0], maps[1], masks[2], maps[2] = False, -1.0, False, 0.0
    found = metrics.foreground_fraction(maps, masks)
    assert found.scored.tolist() == [False, False, False, True]
    assert str(found) == "1 of 4 maps scored, 2 without foreground, 1 without a positive score"
    with pytest.raises(ValueError, match="3 NaN"):
        stats.mean_interval(found.fraction.tolist(), 0)


def test_soft_masks_and_masks_on_the_grid_are_taken_as_they_are():
    soft = torch.tensor([[[0.5, 0.0], [1.0, 0.25]]])
    assert metrics.foreground_fraction(torch.tensor([[[2.0, 1.0], [1.0, 0.0]]]), soft).fraction.item() == 0.5
    assert metrics.covers(soft.repeat_interleave(3, 1).repeat_interleave(2, 2), (2, 2)).tolist() == soft.tolist()


def test_a_batch_of_masks_is_averaged_like_single_ones():
    masks = torch.rand(3, 28, 42, generator=torch.Generator().manual_seed(0)) > 0.6
    for one, mask in zip(metrics.covers(masks, (14, 14)), masks, strict=True):
        torch.testing.assert_close(one.ravel(), metrics.cover(np.asarray(mask), (14, 14)))


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.ones(1, 3, 3), torch.ones(1, 7, 9, dtype=torch.bool), "multiples of the grid .3, 3.*view_mask"),
        (torch.ones(2, 3, 3), torch.ones(1, 9, 9, dtype=torch.bool), r"maps .2, 3, 3. and masks .1, 9, 9."),
        (torch.ones(9), torch.ones(1, 9, 9, dtype=torch.bool), "expected .map, row, column."),
        (torch.ones(1, 3, 3), torch.ones(9, 9, dtype=torch.bool)[None, 0], "expected .map, height, width."),
        (torch.full((1, 3, 3), torch.nan), torch.ones(1, 9, 9, dtype=torch.bool), "NaN or infinite"),
        (torch.ones(1, 3, 3), torch.full((1, 9, 9), 255.0), "masks run from 255 to 255"),
        (torch.ones(0, 3, 3), torch.ones(0, 9, 9, dtype=torch.bool), "expected .map, height, width."),
    ],
)
def test_what_does_not_fit_is_refused(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        metrics.foreground_fraction(maps, masks)
