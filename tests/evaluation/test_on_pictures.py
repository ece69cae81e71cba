"""Marks of maps against masks: a perfect map, blind maps, pairing, the foreground that the model sees, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from xai_utils import claims, models, samples, stats
from xai_utils.evaluation import judged, on_pictures, sanity
from xai_utils.evaluation.on_pictures import intervals, marks, paired
from xai_utils.models.encoding import view_mask
from xai_utils.result import Attribution
from xai_utils.samples import Picture

SIDE = tiny.SIDE


def pictures(count=4):
    noise = np.random.default_rng(0)
    found = []
    for i in range(count):
        masks = {name: np.zeros((SIDE, SIDE), dtype=bool) for name in ("star", "moon")}
        masks["star"][:8, 8 * i : 8 * i + 8] = True
        masks["moon"][16:24, 8 * i : 8 * i + 8] = True
        found.append(Picture(noise.random((3, SIDE, SIDE), dtype=np.float32), f"picture {i}", masks))
    return found


@pytest.fixture
def perfect(monkeypatch):
    """Replace the explanation by the mask of the class asked for, or of all objects; nulls stay."""
    real = on_pictures.explained

    def explained(model, some, asked, classes=None):
        if set(asked) <= set(on_pictures.RIVALS):
            return real(model, some, asked)
        names = [list(one.masks) if classes is None else [classes[i]] for i, one in enumerate(some)]
        covers = [sum(on_pictures.metrics.cover(one.masks[n], tiny.GRID) for n in own) for one, own in
                  zip(some, names, strict=True)]  # fmt: skip
        labels = tuple(map(str, range(16)))
        maps = [Attribution(cover, labels, "mask", model.name, grid=tiny.GRID) for cover in covers]
        return dict.fromkeys(asked, maps)

    monkeypatch.setattr(on_pictures, "explained", explained)


@pytest.mark.parametrize(("target", "lift"), [(None, 8.0), (lambda _: "moon", 16.0)])
def test_a_perfect_map_has_every_mark_and_that_of_another_scene_none(perfect, target, lift):
    table = marks(tiny.model("vim"), pictures(), {"mask": ("mask", {})}, target)
    means = table.groupby("method")[list(on_pictures.MEASURES)].mean()
    assert means.loc["mask"].tolist() == [1.0, lift, 1.0]
    assert means.loc["mask, other scene"].tolist() == [0.0, 0.0, 0.0]
    assert means.loc["uniform", "lift"] == 1 and means.loc["uniform", "share"] == pytest.approx(1 / lift)


def test_rows_are_one_for_each_map_of_the_real_methods():
    asked = {"raw": ("hidden_attention", {}), "clamped": ("hidden_rollout", {"signs": "clamped"})}
    table = marks(tiny.model("vim"), pictures(), asked)
    others = {*on_pictures.RIVALS, "exact mask"}
    assert len(table) == 4 * (2 * len(asked) + len(others))
    assert set(table["method"]) == {"raw", "clamped", "raw, other scene", "clamped, other scene"} | others
    assert (table.groupby("method")["share"].mean()["exact mask"] >= table.groupby("method")["share"].mean()).all()
    assert len(marks(tiny.model("vim"), pictures(), asked, nulls=False)) == 8
    assert not table[["share", "lift", "pointing"]].isna().any().any()
    found = intervals(table, "lift", 0)
    assert found["tiny vim", "uniform"].mean == pytest.approx(1) and found["tiny vim", "raw"].n == 4
    rates = intervals(table, "pointing", 0)
    assert all(one.low <= one.mean <= one.high and one.high - one.low > 0.3 for one in rates.values())


def test_what_stands_beside_the_methods_joins_their_maps():
    model, some = tiny.model("timm-vit"), pictures()
    maps = judged.explained(model, some, {"rollout": ("rollout", {})})
    beside = on_pictures.beside(model, some, maps["rollout"], [(2, 2)])
    assert list(beside) == [*on_pictures.RIVALS, "other scene", "exact mask", "exact mask, 2 × 2"]
    assert torch.equal(beside["other scene"][1], maps["rollout"][0].scores.double())
    table = judged.judge(model, some, maps | beside, ("precision", "pointing", "lift")).mean()
    assert table["exact mask", "pointing"] == 1 and table["uniform", "lift"] == pytest.approx(1)
    best = table.xs("precision", level="measure")
    assert best.idxmax() == "exact mask" and best["exact mask, 2 × 2"] < best["exact mask"]
    assert best["uniform"] < best["exact mask"]
    shuffled = {"shuffled": beside["exact mask"][1:] + beside["exact mask"][:1]}  # the truth of another picture
    assert (judged.judge(model, some, shuffled, ("pointing",)) == 0).all().all()


def test_intervals_resample_whole_backgrounds():
    twice = [*pictures(), *pictures()]
    some = [Picture(one.image, f"{i}", one.masks, background="ab"[i % 2]) for i, one in enumerate(twice)]
    table = marks(tiny.model("vim"), some, {"raw": ("hidden_attention", {})}, nulls=False)
    assert table["background"].tolist() == list("abababab")
    table["share"] = np.where(table["background"] == "a", 1.0, 0.0)  # all that differs is the background
    (loose,), (whole,) = (intervals(table, "share", 0, by).values() for by in (None, "background"))
    assert whole.bounds == (0.0, 1.0) and whole.n == 8 and loose.high - loose.low < 0.8
    (pointing,) = intervals(table, "pointing", 0, "background").values()
    assert pointing.mean == pytest.approx(table["pointing"].mean())


def test_differences_are_paired_by_picture():
    table = marks(tiny.model("vim"), pictures(), {"raw": ("hidden_attention", {}), "rolled": ("hidden_rollout", {})})
    raw, rolled = ("tiny vim", "raw"), ("tiny vim", "rolled")
    found = paired(table.sample(frac=1, random_state=0), raw, rolled, "share")
    means = table.groupby("method")["share"].mean()
    assert found.mean() == pytest.approx(means["raw"] - means["rolled"]) and found.shape == (4,)
    with pytest.raises(ValueError, match="no map"):
        paired(table, raw, ("tiny vim", "cooked"), "share")


def test_one_picture_or_no_mask_is_refused():
    asked = {"raw": ("hidden_attention", {})}
    with pytest.raises(ValueError, match="at least two"):
        marks(tiny.model("vim"), pictures(1), asked)
    with pytest.raises(ValueError, match="no mask"):
        marks(tiny.model("vim"), tiny.samples("vim"), asked)


# The foreground as the model sees it


def picture(masks, size=(32, 32), name="one"):
    return Picture(np.zeros((3, *size), np.float32), name, masks)


def half(side, size=(32, 32)):
    mask = np.zeros(size, dtype=bool)
    mask[:, : size[1] // 2] = True
    return mask if side == "left" else ~mask


def test_any_mask_counts_or_only_the_explained_class():
    model, two = tiny.model("timm-vit"), picture({"circle": half("left"), "star": half("right")})
    assert on_pictures.masks(model, [two]).all()
    for target, side in ((0, "left"), (2, "right")):
        assert np.array_equal(on_pictures.masks(model, [two], [target], "class")[0], half(side))
    assert not on_pictures.masks(model, [two, picture({})], [1, 1], "class").any()
    named = {"circle": [3, 4], "star": []}
    assert on_pictures.masks(model, [two], [4], "class", named)[0].sum() == half("left").sum()
    assert not on_pictures.masks(model, [two], [0], "class", named).any()


def test_masks_go_through_the_resize_and_crop_of_their_picture():
    model, mask = tiny.model("timm-vit"), half("left", (48, 64))
    (found,) = on_pictures.masks(model, [picture({"a": mask}, (48, 64))])
    assert found.shape == (32, 32) and np.array_equal(found, view_mask(mask, model.preprocessing))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: on_pictures.masks(m, [picture({})], match="all"), "match is 'all'"),
        (lambda m: on_pictures.masks(m, [picture({})], match="class"), "needs a class for each of 1"),
        (lambda m: on_pictures.masks(m, [picture({"a": half("left", (8, 8))})]), r"has \(8, 8\) pixels, the picture"),
        (lambda _: on_pictures.masks(tiny.model("bert"), [picture({})]), "reads texts"),
    ],
)
def test_masks_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny.model("timm-vit"))


def test_a_map_points_at_one_object_at_both_or_at_none(monkeypatch):
    some = pictures(3)
    covers = [[on_pictures.metrics.cover(mask, tiny.GRID) for mask in one.masks.values()] for one in some]
    drawn = {"star": [one[0] for one in covers], "both": [one[0] + one[1] for one in covers]}

    def maps_of(model, names, asked, targets, seed):
        labels = tuple(map(str, range(16)))
        maps = {
            name: [Attribution(one, labels, name, model.name, grid=tiny.GRID) for one in own[:2]]
            for name, own in drawn.items()
        }
        return {name: [*maps[name], None] if name in maps else [None] * 3 for name in names}

    monkeypatch.setattr(on_pictures.scoring, "maps_of", maps_of)
    found = on_pictures.pointed(tiny.model("timm-vit"), some, ["star", "both", "gone"], ["first", "second"])
    means = found.groupby("method")[["fails", "first", "second"]].mean().astype(float)
    assert means.loc["star"].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert means.loc["both"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert means.loc["gone"].tolist() == [1, 0, 0] and len(found) == 9
    shares = on_pictures.shares(found.assign(background=["a", "a", "b"] * 3), ["first"], 0)["first"]
    assert shares["star"].mean == pytest.approx(2 / 3) and shares["gone"].bounds == (0, 0)


# Faults planted in the study of the shortcut, which its claims have to see

READERS = ("vit-shortcut", "vit-scenes")
METHODS = ("attnlrp", "generic_attention")
PARTS = ("digit", "badge")


def looked_at(name):
    return on_pictures.pointed(models.load(name), samples.marked_pictures(12, 1056, "backgrounds"), METHODS, PARTS)


@pytest.fixture(scope="module")
def points():
    return {name: looked_at(name) for name in READERS}


def revealed(points, capsys, part="badge"):
    """Say whether each method points at the badge more often in the model that reads it."""
    reads, other = (points[name].set_index("method")[part] for name in READERS)
    tests = {name: (reads[name].to_numpy() - other[name].to_numpy()).tolist() for name in METHODS}
    for name, one in stats.gains(tests, 0).items():
        claims.tested(name, one.interval.mean, one.p)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_maps_reveal_the_shortcut_and_swapped_models_or_masks_are_seen(points, capsys):
    assert revealed(points, capsys) == ["holds"] * 2
    turned = dict(zip(READERS, reversed(points.values()), strict=True))
    assert revealed(turned, capsys) == ["does not hold"] * 2
    assert revealed(points, capsys, "digit") == ["does not hold"] * 2


def test_a_shortcut_in_shuffled_weights_is_seen(points, capsys, monkeypatch):
    model = models.load(READERS[0])
    monkeypatch.setattr(models, "load", lambda _: model)
    with sanity.randomised(model, sanity.layers(model), 0):
        assert "holds" not in revealed(points | {READERS[0]: looked_at(READERS[0])}, capsys)


def opposite(maps):
    return [replace(one, scores=one.scores.max() - one.scores) for one in maps]


@pytest.mark.parametrize("change", [lambda maps: [*maps[1:], maps[0]], opposite], ids=["another picture's", "opposite"])
def test_maps_of_another_picture_and_turned_maps_are_seen(change, capsys, monkeypatch):
    real = on_pictures.scoring.maps_of

    def maps_of(*given):
        return {name: change(own) for name, own in real(*given).items()}

    monkeypatch.setattr(on_pictures.scoring, "maps_of", maps_of)
    assert "holds" not in revealed({name: looked_at(name) for name in READERS}, capsys)
