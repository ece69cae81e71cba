"""Several objects of one picture, empty maps, the first layer of a product, and masks that a detector draws."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from xai_utils import claims, evaluation, methods, metrics, models, samples
from xai_utils.evaluation import on_objects
from xai_utils.methods import relevance
from xai_utils.models import encode, patch_grid
from xai_utils.models.detector import Detections, with_masks
from xai_utils.samples import Picture
from xai_utils.stats import Interval

SIDE, SHAPE = tiny.SIDE, (tiny.SIDE, tiny.SIDE)
GRIDS = [[0.0, 3, 1, 0], [-5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  #: 3 on the star, 1 on the moon


def pictures(count=3, names=("star", "moon")):
    """Make pictures whose objects cover the second and the third patch of the first row."""
    noise, found = np.random.default_rng(0), []
    for i in range(count):
        masks = {name: np.zeros(SHAPE, dtype=bool) for name in names}
        for place, mask in enumerate(masks.values(), 1):
            mask[:8, 8 * place : 8 * place + 8] = True
        found.append(Picture(noise.random((3, *SHAPE), dtype=np.float32), f"picture {i}", masks))
    return found


@pytest.fixture
def drawn(monkeypatch):
    """Replace explanations by one fixed map, and remember what was asked."""
    asked = []

    def maps(model, some, methods_, targets):
        asked.append(([one.name for one in some], targets))
        scores = torch.tensor(GRIDS).expand(len(some), 4, 4)
        return {"known": scores, "empty": -scores.abs()}

    monkeypatch.setattr(on_objects, "maps", maps)
    return asked


def test_marks_by_hand(drawn):
    found = on_objects.marks(tiny.model("timm-vit"), pictures(2), {})
    assert drawn == [(["picture 0", "picture 0", "picture 1", "picture 1"], ["star", "moon"] * 2)]
    known, empty = found[found["method"] == "known"], found[found["method"] == "empty"]
    assert known["object"].tolist() == ["star", "moon"] * 2 and not known["empty"].any()
    assert known["preference"].tolist() == [0.75, 0.25] * 2 and known["lift"].tolist() == [12, 4] * 2
    assert empty["empty"].all() and set(empty["preference"]) == {0.5} and set(empty["lift"]) == {0}


def test_a_map_beside_all_objects_prefers_none(drawn, monkeypatch):
    aside = torch.zeros(1, 4, 4)
    aside[:, 3, 3] = 1
    monkeypatch.setattr(on_objects, "maps", lambda model, some, *_: {"aside": aside.expand(len(some), 4, 4)})
    found = on_objects.marks(tiny.model("timm-vit"), pictures(1, ("star", "moon", "cross")), {})
    assert found["preference"].tolist() == [1 / 3] * 3 and not found["empty"].any() and not found["lift"].any()


def test_a_map_that_knows_no_class_prefers_none_on_average():
    model, asked = tiny.model("timm-vit"), {"rollout": ("rollout", {}), "cp": ("cp_lrp", {})}
    found = on_objects.marks(model, pictures(), asked)
    preference = on_objects.by_picture(found, "preference")
    assert list(preference) == ["rollout", "cp"] and list(preference.index) == [f"picture {i}" for i in range(3)]
    np.testing.assert_allclose(preference["rollout"], 0.5, atol=1e-6)
    assert (preference["cp"] - 0.5).abs().max() > 1e-3
    alone = methods.explain("cp_lrp", model, pictures()[1], "moon").scores
    wanted = metrics.lift(alone, torch.eye(16)[2])
    assert found.query("method == 'cp' and picture == 'picture 1' and object == 'moon'")["lift"].item() == (
        pytest.approx(wanted, rel=1e-4)
    )


def test_pictures_without_masks_are_not_asked_about():
    found = on_objects.marks(tiny.model("timm-vit"), tiny.samples("timm-vit"), {"rollout": ("rollout", {})})
    assert list(found) == list(on_objects.COLUMNS) and not len(found)
    wide = on_objects.by_picture(found, "lift")
    assert not len(wide) and not len(wide.columns)


def test_the_first_layer_against_the_method_itself():
    model, some, names = tiny.model("timm-vit"), pictures(), ["star", "moon", "circle"]
    found = on_objects.by_first_layer(model, some, names)
    for start in range(model.blocks):
        alone = [one.scores for one in methods.explain("transformer_attribution", model, some, names, start=start)]
        first = [one.scores for one in methods.explain("transformer_attribution", model, some, names)]
        agreement = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(first, alone, strict=True)]
        torch.testing.assert_close(found["spread"][:, start], torch.stack([one.std() for one in alone]))
        torch.testing.assert_close(found["agreement"][:, start], torch.stack(agreement))
        wanted = [metrics.lift(one, torch.eye(16)[place]) for one, place in zip(alone[:2], (1, 2), strict=True)]
        np.testing.assert_allclose(found["lift"][:2, start], wanted, rtol=1e-4)
    assert found["lift"][2].isnan().all(), "there is no circle"


def masks_and_maps(count=5):
    noise = torch.Generator().manual_seed(3)
    truth = torch.rand(count, *SHAPE, generator=noise) < 0.3
    truth[0] = False
    found = {name: torch.randn(count, 4, 4, generator=noise, dtype=torch.float64) for name in ("one", "other")}
    found["other"][1] = -1
    return found, truth


def test_tables_keep_every_picture():
    found, truth = masks_and_maps()
    scored = on_objects.fractions(found, truth)
    table = on_objects.table(scored)
    np.testing.assert_array_equal(table["one"], metrics.foreground_fraction(found["one"], truth).fraction)
    assert table.isna().sum().to_dict() == {"one": 1, "other": 2}
    np.testing.assert_allclose(on_objects.table(scored, "lift") * on_objects.table(scored, "area"), table)


def test_other_measures_are_those_of_each_map():
    found, truth = masks_and_maps()
    truth[4] = True
    quality = on_objects.quality(found, truth)
    for name, drawn in found.items():
        one = metrics.pictures.segment(drawn, truth)
        np.testing.assert_array_equal(quality["IoU"][name], one.iou)
        mass = metrics.foreground_fraction(drawn, truth).fraction[1:4]
        np.testing.assert_array_equal(quality["FAF"][name][1:4], mass)
        assert quality["pointing game"][name][1:4].tolist() == metrics.pictures.pointing(drawn, truth)[1:4].tolist()
    for measure, table in quality.items():
        assert table.isna().all(axis=1).tolist() == [True, False, False, False, True], measure
    pd.testing.assert_index_equal(quality["IoU"].columns, quality["pointing game"].columns)


def test_the_mask_itself_is_as_good_as_a_map_can_be_at_its_own_sharpness():
    _, truth = masks_and_maps()
    exact = metrics.covers(truth[1:3], (4, 4))
    quality = on_objects.quality({"exact": exact, "square": exact**2, "swapped": exact.roll(1, 0)}, truth[1:3])
    sharp = quality["FAF at one sharpness"]
    np.testing.assert_allclose(sharp["exact"], quality["FAF"]["exact"], atol=1e-6)
    np.testing.assert_allclose(sharp["square"], sharp["exact"], atol=1e-6)
    assert (sharp["swapped"] < sharp["exact"]).all()


def test_two_networks_are_marked_on_one_grid_each_by_its_own_masks():
    found, truth = masks_and_maps()
    one, other = {"one": found["one"]}, {"other": found["other"]}
    joined = on_objects.on_one_grid((2, 2), (one, truth), (other, ~truth))
    coarse = metrics.pictures.through(found["other"], (2, 2))
    alone = on_objects.quality({"other": coarse}, ~truth)
    for what, table in joined.items():
        assert list(table) == ["one", "other"]
        pd.testing.assert_series_equal(table["other"], alone[what]["other"])
    fine = on_objects.on_one_grid((4, 4), (found, truth))
    pd.testing.assert_frame_equal(fine["FAF"], on_objects.quality(found, truth)["FAF"])


def test_published_tables_count_the_background():
    found, truth = masks_and_maps()
    table = on_objects.as_published(found, truth)
    one = metrics.pictures.segment(found["one"], truth)
    assert table.index.name == "map" and list(table) == ["pixel accuracy", "mAP", "mIoU"]
    expected = (
        one.pixel_accuracy,
        metrics.pictures.both_precision(found["one"], truth),
        (one.iou + one.iou_background) / 2,
    )
    np.testing.assert_allclose(table.loc["one"], [100 * float(column.nanmean()) for column in expected])


def test_standings_are_a_row_for_each_map():
    ones = {("rollout", 0.5): Interval(0.5, 0.4, 0.6, 9), ("rollout", 0.9): Interval(0.7, 0.6, 0.8, 9)}
    table = on_objects.standings({"FAF": ones}, ("map", "skip"))
    assert table.index.names == ["map", "skip"] and list(table) == ["FAF", "FAF low", "FAF high"]
    assert table.loc[("rollout", 0.9)].tolist() == [0.7, 0.6, 0.8]


def test_thresholds_of_a_detector_change_its_masks():
    model, some = tiny.model("timm-vit"), pictures(2)
    soft = torch.zeros(1, *SHAPE)
    soft[0, :8], soft[0, 8:16] = 0.9, 0.6
    seen = [Detections(("star",), torch.tensor([sure]), torch.zeros(1, 4), soft) for sure in (0.8, 0.4)]
    found = evaluation.maps(model, some, ["rollout"])
    low, high, none = on_objects.by_threshold(model, found, some, seen, [(0.3, 0.5), (0.5, 0.8), (0.9, 0.5)])
    assert low["rollout"].area.tolist() == [0.5, 0.5] and high["rollout"].area.tolist() == [0.25, 0]
    assert not none["rollout"].found.any()
    by_class = {"targets": [model.class_index("moon")] * 2, "match": "class"}
    (other,) = on_objects.by_threshold(model, found, some, seen, [(0.3, 0.5)], **by_class)
    assert not other["rollout"].found.any()
    masks = evaluation.on_pictures.masks(model, with_masks(some, seen, 0.3, 0.5))
    torch.testing.assert_close(low["rollout"].fraction, metrics.foreground_fraction(found["rollout"], masks).fraction)


# Many maps of many pictures

TARGETS = pytest.mark.parametrize("targets", [None, [1, 4, 0], ["square", "cross", "circle"]])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(on_objects, "BATCH", 2)


@pytest.mark.parametrize("name", ["timm-vit", "resnet", "bert"])
def test_the_predicted_class_has_the_greatest_logit(name):
    model, some = tiny.model(name), tiny.samples(name)
    alone = [int(model.logits(encode(model, [one]).inputs)[0].argmax()) for one in some]
    assert on_objects.predicted(model, some) == alone and on_objects.predicted(model, []) == []


@TARGETS
@pytest.mark.parametrize("name", ["timm-vit", "vim"])
def test_maps_are_what_each_method_gives_alone(name, targets):
    model, some = tiny.model(name), tiny.samples(name)
    asked = {"by gradient": ("gradient_x_input", {}), "rollout": ("rollout", {}),
             "smoothed": ("diffusion_rollout", {"filter": "rank", "strength": 2}),
             "own passes": ("integrated_gradients", {"steps": 2, "tolerance": 9.0})}  # fmt: skip
    found = on_objects.maps(model, some, asked, targets)
    assert list(found) == list(asked)
    for label, (method, options) in asked.items():
        for i, one in enumerate(some):
            alone = methods.explain(method, model, one, None if targets is None else targets[i], **options)
            torch.testing.assert_close(found[label][i], alone.picture(), rtol=1e-3, atol=1e-6)


@TARGETS
def test_gradcam_is_that_of_each_class(targets):
    model, some = tiny.model("resnet"), tiny.samples("resnet")
    (found,) = on_objects.maps(model, some, {"early": ("gradcam", {"layer": "layer2"})}, targets).values()
    for i, one in enumerate(some):
        (target,) = on_objects.predicted(model, [one]) if targets is None else [model.class_index(targets[i])]
        ((alone, _),) = methods.relevance.gradcam(model, encode(model, [one]), [target], "layer2")
        torch.testing.assert_close(found[i].flatten(), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "of"), [("gradcam", "resnet"), ("attention_gradcam", "timm-vit")])
def test_only_gradcams_may_be_empty(name, of, monkeypatch):
    model, axis = tiny.model(of), -3 if name == "gradcam" else -2
    monkeypatch.setattr(on_objects.relevance.class_maps, name, lambda one, gradient: torch.zeros_like(one).sum(axis))
    found = on_objects.maps(model, tiny.samples(of), [name])[name]
    assert found.shape == (3, *patch_grid(model)) and not found.any()


def test_an_empty_map_of_another_method_is_refused(monkeypatch):
    monkeypatch.setitem(
        methods.METHODS, "rollout", methods.table.Method(lambda view: (torch.zeros(view.attention.shape[-1]), {}))
    )
    with pytest.raises(ValueError, match="every score is zero"):
        on_objects.maps(tiny.model("timm-vit"), tiny.samples("timm-vit"), ["rollout"])


def test_one_relevance_pass_is_read_as_the_methods_read_it(monkeypatch):
    model, some, names = tiny.model("timm-vit"), pictures(3), ["star", "moon", "star"]
    alone = {
        label: on_objects.maps(model, some, {label: one}, names)[label] for label, one in on_objects.READINGS.items()
    }
    passes, propagated = [], relevance._propagated
    monkeypatch.setattr(relevance, "_propagated", lambda *given: passes.append(given) or propagated(*given))
    found = on_objects.maps(model, some, on_objects.READINGS | {"attention_gradcam": ("attention_gradcam", {})}, names)
    assert len(passes) == 1 and list(found) == [*on_objects.READINGS, "attention_gradcam"]
    for label, expected in alone.items():
        torch.testing.assert_close(found[label], expected, rtol=0, atol=1e-7)


def test_maps_made_elsewhere_are_marked_beside_the_others(drawn):
    again, names = on_objects.questions(pictures(2))
    assert names == ["star", "moon"] * 2 and [one.name[-1] for one in again] == list("0011")
    more = {"more": torch.tensor(GRIDS).flip(1).expand(4, 4, 4)}  # 1 on the star, 3 on the moon
    found = on_objects.marks(tiny.model("timm-vit"), pictures(2), {}, more)
    assert found.loc[found["method"] == "more", "preference"].tolist() == [0.25, 0.75] * 2


def test_maps_lie_on_the_grid_and_stages_halve_it():
    model, some = tiny.model("timm-vit"), pictures(2)
    passed = evaluation.judged.explained(model, some, {"rollout": ("rollout", {})}, [0, 1])
    found = on_objects.on_grid(passed)["rollout"]
    assert found.shape == (2, *patch_grid(model)) and torch.equal(found[1].flatten(), passed["rollout"][1].scores)
    found = on_objects.stages(tiny.model("resnet"), some[0], ("layer1", "layer2"))
    assert found["layer1"][0] == 2 * found["layer2"][0] and found["layer1"][1] == 2 * found["layer2"][1]


def test_rollout_of_the_same_skip_stands_beside_the_methods():
    model, some = tiny.model("timm-vit"), pictures(3)
    found = on_objects.beside_same_skip(model, some, ["gradient_rollout"], [1, 4, 0])
    assert list(found) == ["gradient_rollout", on_objects.SAME_SKIP]
    weighted = [methods.explain("gradient_rollout", model, one, k) for one, k in zip(some, [1, 4, 0], strict=True)]
    skip = np.median([one.details["skip"] for one in weighted])
    assert 0.5 < skip < 1
    for one, drawn in zip(some, found[on_objects.SAME_SKIP], strict=True):
        alone = methods.explain("rollout", model, one, residual=float(skip)).picture()
        torch.testing.assert_close(drawn, alone, rtol=1e-3, atol=1e-6)


# Faults planted in the study of scenes, which its claims have to see


@pytest.fixture(scope="module")
def scenes():
    model, some = models.load("vit-scenes", "cpu"), samples.scene_pictures(32, split="backgrounds")
    truth = evaluation.on_pictures.masks(model, some)
    maps = on_objects.maps(model, some, ["rollout", "gradient_rollout", "transformer_attribution", "centre"])
    assert len({one.background for one in some}) == 32
    return maps, truth


def claimed(maps, truth, capsys):
    """Say how three claims of the notebook turn out: each ``holds``, ``does not hold`` or ``undecided``."""
    quality = on_objects.quality(maps, truth)
    faf, precision = quality["FAF"], quality["average precision"]
    tests = {
        "the gradient puts more on the object": faf["gradient_rollout"] - faf["rollout"],
        "the map ranks better than the centre": precision["transformer_attribution"] - precision["centre"],
        "the gradient ranks better": precision["gradient_rollout"] - precision["rollout"],
    }
    for name, one in evaluation.paired.family((tests, None), seed=0, permutations=999).items():
        claims.tested(name, one.interval.mean, one.p)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_claims_turn_out_as_the_notebook_says(scenes, capsys):
    assert claimed(*scenes, capsys) == ["holds", "holds", "does not hold"]


def test_masks_of_another_scene_are_seen(scenes, capsys):
    maps, truth = scenes
    assert claimed(maps, truth.roll(1, 0), capsys)[1] != "holds"


def test_names_of_maps_that_are_swapped_are_seen(scenes, capsys):
    maps, truth = scenes
    swapped = maps | {"rollout": maps["gradient_rollout"], "gradient_rollout": maps["rollout"]}
    assert claimed(swapped, truth, capsys) == ["does not hold", "holds", "holds"]


def test_patches_in_random_order_are_seen(scenes, capsys):
    maps, truth = scenes
    order = torch.randperm(maps["rollout"][0].numel(), generator=torch.Generator().manual_seed(0))
    mixed = {name: one.flatten(1)[:, order].view_as(one) for name, one in maps.items() if name != "centre"}
    first, second, third = claimed(maps | mixed, truth, capsys)
    assert "holds" not in (first, second) and third != "does not hold"


@pytest.fixture(scope="module")
def kept():
    """Return the maps of the questions below, once they are drawn."""
    return {}


def preferring(kept, monkeypatch, capsys, order):
    """Say whether maps prefer what was asked about, where the map of ``order`` in a picture's questions is taken."""
    model, some = models.load("vit-scenes", "cpu"), samples.scene_pictures(16, objects=2, first=5000)
    real = on_objects.maps

    def maps(*given):
        kept.update(kept or real(*given))
        return {name: drawn[[2 * (i // 2) + order(i) for i in range(len(drawn))]] for name, drawn in kept.items()}

    monkeypatch.setattr(on_objects, "maps", maps)
    marked = on_objects.marks(model, some, ["transformer_attribution", "rollout"])
    mean = marked.groupby(["method", "picture"]).preference.mean().unstack("method") - 0.5
    tests = {name: mean[name].to_numpy() for name in ("transformer_attribution", "rollout")}
    for name, one in evaluation.paired.family((tests, None), seed=0, permutations=999).items():
        claims.tested(f"{name} prefers the digit asked about", one.interval.mean, one.p)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_a_map_with_a_gradient_prefers_and_rollout_does_not(kept, monkeypatch, capsys):
    assert preferring(kept, monkeypatch, capsys, lambda i: i % 2) == ["holds", "undecided"]


def test_maps_of_the_other_class_are_seen(kept, monkeypatch, capsys):
    assert preferring(kept, monkeypatch, capsys, lambda i: 1 - i % 2)[0] == "does not hold"


def test_one_map_for_both_classes_is_seen(kept, monkeypatch, capsys):
    assert preferring(kept, monkeypatch, capsys, lambda _: 0) == ["undecided", "undecided"]
