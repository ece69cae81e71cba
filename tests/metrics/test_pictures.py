"""Marks against a known truth: properties, numbers worked out by hand, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, jaccard_score
from strategies import normal, steady

from xai_utils import metrics, stats
from xai_utils.evaluation.judged import chance
from xai_utils.metrics import average_precision, cover, hit, lift, mass_inside, pictures

NAN = float("nan")
METRICS = [mass_inside, lift, hit, average_precision]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def marked(draw, max_tokens=12):
    """Draw scores, some of them positive, and a truth with tokens on both sides."""
    tokens = draw(st.integers(2, max_tokens))
    scores = normal(tokens, seed=draw(st.integers(0, 9999)))
    scores[draw(st.integers(0, tokens - 1))] = 2.5
    inside = torch.tensor(draw(st.permutations([True, False, *draw(st.lists(st.booleans(), max_size=tokens - 2))])))
    return scores, torch.cat([inside, torch.zeros(tokens - len(inside), dtype=torch.bool)])


# Properties


@steady
@given(given_=marked(), data=st.data())
def test_the_order_of_tokens_does_not_matter(given_, data):
    scores, inside = given_
    order = torch.tensor(data.draw(st.permutations(range(len(scores)))))
    for metric in METRICS:
        assert metric(scores[order], inside[order]) == pytest.approx(metric(scores, inside), abs=1e-12)


@steady
@given(given_=marked(), factor=st.floats(1e-6, 1e6))
def test_the_unit_of_the_scores_does_not_matter(given_, factor):
    scores, inside = given_
    for metric in METRICS:
        assert metric(factor * scores, inside) == pytest.approx(metric(scores, inside), abs=1e-9)


@steady
@given(given_=marked())
def test_mass_is_inside_or_outside_and_negative_scores_have_none(given_):
    scores, inside = given_
    assert 0 <= mass_inside(scores, inside) <= 1
    assert mass_inside(scores, inside) + mass_inside(scores, ~inside) == pytest.approx(1, abs=1e-12)
    assert mass_inside(scores, inside) == mass_inside(scores.clamp(min=0), inside)


@steady
@given(given_=marked())
def test_a_uniform_map_is_no_better_than_uniform(given_):
    scores, inside = given_
    assert lift(torch.ones_like(scores), inside) == pytest.approx(1, abs=1e-12)
    assert average_precision(torch.ones_like(scores), inside) == pytest.approx(chance(len(inside), int(inside.sum())))


@steady
@given(given_=marked())
def test_the_truth_is_the_best_map_and_its_opposite_the_worst(given_):
    _, inside = given_
    truth, share = inside.double(), inside.double().mean().item()
    assert mass_inside(truth, inside) == 1 and lift(truth, inside) == pytest.approx(1 / share)
    assert hit(truth, inside) is True and average_precision(truth, inside) == 1
    assert mass_inside(1 - truth, inside) == 0 and hit(1 - truth, inside) is False


@steady
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), columns=st.integers(1, 4), side=st.integers(1, 5))
def test_covers_keep_the_area_of_the_mask(seed, rows, columns, side):
    mask = np.random.default_rng(seed).random((rows * side, columns * (side + 1))) < 0.4
    mask[0, 0] = True
    found = cover(mask, (rows, columns))
    assert found.dtype == torch.float64 and found.shape == (rows * columns,)
    assert float(found.sum()) * side * (side + 1) == pytest.approx(mask.sum(), abs=1e-9)


# By hand


def test_covers_are_row_by_row():
    mask = np.zeros((4, 6), dtype=bool)
    mask[0, 4:] = mask[2:, :2] = mask[3, 2] = True
    assert cover(mask, (2, 3)).tolist() == [0, 0, 0.5, 1, 0.25, 0]
    assert cover(mask, (1, 2)).tolist() == [5 / 12, 2 / 12]


def test_mass_and_lift():
    scores = vector(3, 1, -4, 1)
    assert mass_inside(scores, torch.tensor([True, False, True, False])) == pytest.approx(0.6)
    assert lift(scores, torch.tensor([True, False, True, False])) == pytest.approx(1.2)
    assert mass_inside(scores, vector(0.5, 1, 1, 0)) == pytest.approx((1.5 + 1) / 5)
    assert lift(scores, vector(0.5, 1, 1, 0)) == pytest.approx(0.5 / 0.625)


# Refusals


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scores", "inside", "what"),
    [
        (vector(1, NAN), vector(1, 0), r"scores holds 1 of 2 .*\(1,\)"),
        (vector(1, 2, 3), vector(1, 0), r"scores \(3,\) and truth \(2,\)"),
        (vector(1, 2)[None], vector(1, 0)[None], r"scores \(1, 2\) .* two \(token,\) vectors"),
    ],
)
def test_scores_that_do_not_fit_the_truth_are_refused(metric, scores, inside, what):
    with pytest.raises(ValueError, match=what):
        metric(scores, inside)


@pytest.mark.parametrize("metric", [mass_inside, lift])
def test_scores_without_mass_are_refused(metric):
    with pytest.raises(ValueError, match="no score is positive"):
        metric(vector(-1, 0), vector(1, 0))


def test_a_lift_needs_something_inside():
    with pytest.raises(ValueError, match="inside"):
        lift(vector(1, 2), vector(0, 0))


@pytest.mark.parametrize(("shape", "grid"), [((10, 10), (3, 5)), ((10, 10), (5, 3)), ((4, 4), (8, 8))])
def test_a_mask_that_does_not_divide_is_refused(shape, grid):
    with pytest.raises(ValueError, match="multiples of the grid"):
        cover(np.ones(shape, dtype=bool), grid)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        cover(np.zeros((4, 4), dtype=bool), (2, 2))


# Share of the mass on the foreground


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
def test_maps_and_masks_that_do_not_fit_are_refused(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        metrics.foreground_fraction(maps, masks)


# Maps as segmentations


MASK = torch.tensor([1.0, 1.0, 0.5, 0.0])


def test_patches_count_by_their_share():
    marked = torch.tensor([True, False, True, False])
    assert pictures.pixel_accuracy(marked, MASK) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert pictures.iou(marked, MASK) == pytest.approx(1.5 / (2 + 2.5 - 1.5))
    whole = torch.tensor([True, True, False, False])
    assert pictures.iou(whole, whole) == 1 and pictures.pixel_accuracy(~whole, whole) == 0


def test_marks_at_the_mean():
    scores = torch.tensor([3.0, 1.0, 2.0, -1.0])  # mean 1.25
    assert pictures.above_mean(scores).tolist() == [True, False, True, False]
    assert not pictures.above_mean(torch.ones(4)).any()


NOISE = torch.Generator().manual_seed(5)
MASKS = torch.rand(6, 28, 28, generator=NOISE) > 0.7
MAPS = torch.randn(6, 14, 14, generator=NOISE, dtype=torch.float64)


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
        assert float(pictures.both_precision(MAPS, MASKS)[i]) == pytest.approx(both)


def test_many_maps_give_what_few_give(monkeypatch):
    whole = pictures.segment(MAPS, MASKS)
    monkeypatch.setattr(pictures, "CHUNK", 2)
    few = vars(pictures.segment(MAPS, MASKS))
    assert all(torch.equal(values, few[name]) for name, values in vars(whole).items())


def test_an_empty_mask_is_not_scored():
    masks = MASKS.clone()
    masks[2], masks[4] = False, True
    found = pictures.segment(MAPS, masks)
    for values in vars(found).values():
        assert values.isnan().tolist() == [False, False, True, False, True, False]


def test_the_strongest_token_points():
    maps, masks = torch.zeros(3, 4, 4), torch.zeros(3, 8, 8, dtype=torch.bool)
    maps[:, 1, 2] = 1
    masks[0, 2:4, 4:6], masks[1, 2, 4], masks[2, 0, 0] = True, True, True
    assert pictures.pointing(maps, masks).tolist() == [True, True, False]
    assert pictures.pointing(maps, masks, least=0.25).tolist() == [True, False, False]


def test_maps_made_from_the_truth_are_as_good_as_the_grid_allows():
    found = pictures.ceilings(MASKS, (14, 14), [(7, 7)])
    assert list(found) == ["exact mask", "best patch", "exact mask, 7 × 7", "best patch, 7 × 7"]
    torch.testing.assert_close(found["exact mask"], metrics.covers(MASKS, (14, 14)))
    assert (found["best patch"].sum((1, 2)) == 1).all()
    fraction = {name: metrics.foreground_fraction(one, MASKS).fraction for name, one in found.items()}
    most = metrics.covers(MASKS, (14, 14)).flatten(1).amax(1)
    torch.testing.assert_close(fraction["best patch"], most)  # the largest FAF that any map can have
    for drawn in torch.rand(20, *found["exact mask"].shape, generator=torch.Generator().manual_seed(0)):
        assert (metrics.foreground_fraction(drawn**9, MASKS).fraction <= most + 1e-12).all()
    for name in ("exact mask", "best patch"):
        assert (fraction[f"{name}, 7 × 7"] < fraction[name]).all()  # a coarser grid costs something
    assert all(one.shape == (len(MASKS), 14, 14) for one in found.values())


@pytest.mark.parametrize("between_centres", [False, True])
def test_a_centre_prior_is_highest_in_the_middle(between_centres):
    bell = pictures.centre_prior((5, 7), between_centres=between_centres)
    assert bell.argmax() == 17 and bell.max() == 1
    steps = torch.linspace(-0.5, 0.5, 7, dtype=torch.float64) * (1 if between_centres else 6 / 7)
    torch.testing.assert_close(bell[2], torch.exp(-(steps**2) / (2 * 0.25**2)))


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
        (lambda: pictures.ceilings(MASKS & False, (14, 14)), "no perfect map"),
        (lambda: pictures.centre_prior((2, 2), width=0), "width is 0"),
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


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pictures.iou(torch.ones(3).bool(), torch.zeros(3)), "empty"),
        (lambda: pictures.pixel_accuracy(torch.ones(3), torch.ones(4)), "one length"),
        (lambda: pictures.above_mean(torch.tensor([1.0, float("nan")])), "NaN"),
    ],
)
def test_bad_marks_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_places_count_how_widely_a_map_lies():
    wide = torch.stack([torch.ones(4, 4), torch.eye(4), torch.zeros(4, 4), -torch.ones(4, 4)])
    wide[3, 2, 1] = 7
    found = pictures.places(wide)
    assert found[[0, 1, 3]].tolist() == pytest.approx([16, 4, 1]) and found[2].isnan()


def test_maps_of_one_sharpness_differ_by_what_they_rank_only():
    noise = torch.Generator().manual_seed(0)
    maps, like = (torch.rand(5, 6, 6, generator=noise, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(
        pictures.places(pictures.as_sharp_as(maps, like)), pictures.places(like), rtol=1e-6, atol=0
    )
    again = pictures.as_sharp_as(maps**3, like)
    torch.testing.assert_close(again, pictures.as_sharp_as(maps, like), rtol=0, atol=1e-6)
    assert torch.equal(again.flatten(1).argsort(1), maps.flatten(1).argsort(1))
    assert not pictures.as_sharp_as(torch.zeros(1, 2, 2), like[:1]).any()
    with pytest.raises(ValueError, match="5 maps are to be as sharp as 4, of which 0 have no positive"):
        pictures.as_sharp_as(maps, like[:4])
    with pytest.raises(ValueError, match="of which 1 have no positive score"):
        pictures.as_sharp_as(maps, torch.cat([like[:4], -like[4:]]))


def test_a_map_passes_through_a_coarser_grid():
    maps = torch.zeros(1, 4, 4, dtype=torch.float64)
    maps[0, 0, 0] = 4
    assert pictures.through(maps, (4, 4)) is maps
    small = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    small[0, 0, 0, 0] = 1
    large = torch.nn.functional.interpolate(small, (4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pictures.through(maps, (2, 2)), large[0])


def test_ratios_draw_whole_clusters():
    values, to = np.array([1.0, 5, 1, 5]), np.array([1.0, 1, 1, 1])
    alone = pictures.ratio_of_means(values, to, 0)
    alike = pictures.ratio_of_means(values, to, 0, clusters=["a", "a", "b", "b"])
    assert alone.mean == alike.mean == 3 and alike.n == 4
    assert alike.bounds == (3, 3) and alone.low < 3 < alone.high
    with pytest.raises(ValueError):
        pictures.ratio_of_means(values, to, 0, clusters=["a"] * 4)
