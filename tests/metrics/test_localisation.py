"""Pointing game, segmentation, average precision and baselines: against scikit-learn and literal loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score

from xai_utils import metrics, stats
from xai_utils.metrics import pictures

NOISE = torch.Generator().manual_seed(5)
MASKS = torch.rand(6, 28, 28, generator=NOISE) > 0.7
MAPS = torch.randn(6, 14, 14, generator=NOISE, dtype=torch.float64)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_is_scikit_learns_ties_included(levels):
    scores = torch.randint(levels, (30, 80), generator=NOISE).double()
    truth = torch.rand(30, 80, generator=NOISE) > 0.6
    expected = [average_precision_score(t, s) for s, t in zip(scores, truth, strict=True)]
    np.testing.assert_allclose(pictures.average_precisions(scores, truth), expected, atol=1e-12)


def test_a_ranking_of_one_kind_only_is_not_judged():
    truth = torch.tensor([[True, True], [False, False], [True, False]])
    assert pictures.average_precisions(torch.rand(3, 2), truth).isnan().tolist() == [True, True, False]


def test_segmentation_is_that_of_the_upsampled_map_at_its_mean():
    found = pictures.segment(MAPS, MASKS)
    large = torch.nn.functional.interpolate(MAPS[:, None], (28, 28), mode="bilinear", align_corners=False)[:, 0]
    for i in range(len(MAPS)):
        above, truth = (large[i] > large[i].mean()).flatten().numpy(), MASKS[i].flatten().numpy()
        assert float(found.pixel_accuracy[i]) == pytest.approx((above == truth).mean())
        assert float(found.iou[i]) == pytest.approx(jaccard_score(truth, above))
        assert float(found.iou_background[i]) == pytest.approx(jaccard_score(~truth, ~above))
        assert float(found.average_precision[i]) == pytest.approx(average_precision_score(truth, large[i].flatten()))
        scaled = ((large[i] - large[i].min()) / (large[i].max() - large[i].min())).flatten().numpy()
        both = average_precision_score(np.r_[~truth, truth], np.r_[1 - scaled, scaled])
        assert float(found.both_precision[i]) == pytest.approx(both)
    means = found.published()
    assert means["mIoU"] == pytest.approx(50 * float((found.iou + found.iou_background).mean()))
    assert means["pixel accuracy"] == pytest.approx(100 * float(found.pixel_accuracy.mean()))


def test_many_maps_give_what_few_give(monkeypatch):
    whole = pictures.segment(MAPS, MASKS)
    monkeypatch.setattr(pictures, "CHUNK", 2)
    few = vars(pictures.segment(MAPS, MASKS))
    assert all(torch.equal(values, few[name]) for name, values in vars(whole).items())


def test_an_empty_mask_is_not_scored_and_does_not_spoil_the_mean():
    masks = MASKS.clone()
    masks[2], masks[4] = False, True
    found = pictures.segment(MAPS, masks)
    for values in vars(found).values():
        assert values.isnan().tolist() == [False, False, True, False, True, False]
    assert all(np.isfinite(value) for value in found.published().values())


def test_the_strongest_token_points():
    maps, masks = torch.zeros(3, 4, 4), torch.zeros(3, 8, 8, dtype=torch.bool)
    maps[:, 1, 2] = 1
    masks[0, 2:4, 4:6], masks[1, 2, 4], masks[2, 0, 0] = True, True, True
    assert pictures.pointing(maps, masks).tolist() == [True, True, False]
    assert pictures.pointing(maps, masks, least=0.25).tolist() == [True, False, False]


def test_baselines_know_nothing():
    found = pictures.baselines(6, (14, 14), seed=3)
    assert {name: tuple(one.shape) for name, one in found.items()} == dict.fromkeys(found, (6, 14, 14))
    lift = {name: metrics.foreground_fraction(one, MASKS).lift for name, one in found.items()}
    torch.testing.assert_close(lift["uniform"], torch.ones(6, dtype=torch.float64))
    assert (lift["random"] - 1).abs().max() < 0.2
    bell = found["centre prior"][0]
    torch.testing.assert_close(bell, bell.flip(0))
    torch.testing.assert_close(bell, bell.T)
    assert bell[6, 6] == pytest.approx(float(bell.max()))
    assert float(bell[6, 10] / bell[6, 6]) == pytest.approx(np.exp(-(3.5**2 - 0.5**2) / 14**2 / (2 * 0.25**2)))
    again, other = (pictures.baselines(6, (14, 14), seed)["random"] for seed in (3, 4))
    assert torch.equal(again, found["random"]) and not torch.equal(other, again)
    uniform = pictures.segment(found["uniform"], MASKS)
    torch.testing.assert_close(uniform.average_precision, MASKS.double().mean((1, 2)))
    torch.testing.assert_close(uniform.both_precision, torch.full((6,), 0.5, dtype=torch.float64))


def test_the_published_table_gives_its_published_ratio():
    before = [0.109, 0.012, 0.481, 0.294, 0.543, 0.241, 0.922, 0.193, 0.448, 0.467, 0.497]
    after = [0.143, 0.003, 0.703, 0.448, 0.497, 0.261, 0.927, 0.290, 0.672, 0.573, 0.738]
    found = pictures.ratio_of_means(after, before, 0)
    assert (round(found.mean, 3), found.n) == (1.249, 11)
    assert found.low == pytest.approx(1.10, abs=0.02) and found.high == pytest.approx(1.43, abs=0.03)
    assert stats.wilcoxon_p(np.subtract(after, before)) == pytest.approx(0.0186, abs=5e-4)


def test_pairs_are_drawn_together():
    values = np.random.default_rng(0).lognormal(size=40)
    found = pictures.ratio_of_means(2 * values, values, 0)
    assert found.mean == pytest.approx(2) and found.low == pytest.approx(2) and found.high == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.segment(MAPS, MASKS[:3]), "as many bool"),
        (lambda: pictures.segment(MAPS, MASKS.double()), "torch.float64"),
        (lambda: pictures.segment(MAPS * torch.nan, MASKS), "NaN or infinite"),
        (lambda: pictures.pointing(MAPS, MASKS[:, :27]), "multiples of the grid"),
        (lambda: pictures.baselines(0, (2, 2), 0), "count is 0"),
        (lambda: pictures.baselines(2, (2, 2), 0, width=0), "width is 0"),
        (lambda: pictures.ratio_of_means([1.0, 2.0], [1.0], 0), "two lists"),
        (lambda: pictures.ratio_of_means([1.0, np.nan], [1.0, 2.0], 0), "finite"),
        (lambda: pictures.ratio_of_means([1.0, 2.0], [0.0, 0.0], 0), "more than 0"),
        (lambda: stats.wilcoxon_p([0.0, 0.0]), "all 2 differences are zero"),
        (lambda: stats.wilcoxon_p([1.0]), "at least two"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
