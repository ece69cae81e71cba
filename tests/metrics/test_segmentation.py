"""Maps as segmentations, by hand."""

import pytest
import torch

from xai_utils.metrics import pictures

MASK = torch.tensor([1.0, 1.0, 0.5, 0.0])


def test_marks_at_the_mean_and_by_area():
    scores = torch.tensor([3.0, 1.0, 2.0, -1.0])  # mean 1.25
    assert pictures.above_mean(scores).tolist() == [True, False, True, False]
    assert pictures.top_area(scores, 0.75, 0).tolist() == [True, True, True, False]
    assert pictures.top_area(scores, 0.01, 0).tolist() == [True, False, False, False]
    assert not pictures.above_mean(torch.ones(4)).any()
    drawn = {tuple(pictures.top_area(torch.zeros(12), 0.25, seed).tolist()) for seed in (0, 0, 1, 2)}
    assert len(drawn) == 3 and all(sum(one) == 3 for one in drawn)


def test_patches_count_by_their_share():
    marked = torch.tensor([True, False, True, False])
    assert pictures.pixel_accuracy(marked, MASK) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert pictures.iou(marked, MASK) == pytest.approx(1.5 / (2 + 2.5 - 1.5))
    whole = torch.tensor([True, True, False, False])
    assert pictures.iou(whole, whole) == 1 and pictures.pixel_accuracy(~whole, whole) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pictures.iou(torch.ones(3).bool(), torch.zeros(3)), "empty"),
        (lambda: pictures.pixel_accuracy(torch.ones(3), torch.ones(4)), "one length"),
        (lambda: pictures.above_mean(torch.tensor([1.0, float("nan")])), "NaN"),
        (lambda: pictures.top_area(torch.ones(3), 1.5, 0), "area"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
