"""A shard of samples is scored: every method against slow literal versions, matched nulls, failures, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from scored import PLAIN, WORDS, by_key, judged

from xai_utils import methods
from xai_utils.evaluation import probe, scoring
from xai_utils.evaluation.judged import chance
from xai_utils.models.encoding import encode
from xai_utils.samples import Picture


def pictures(model, count=3):
    """Return pictures of noise in which the predicted class covers one quarter."""
    plain = tiny.samples("timm-vit", count)
    with torch.no_grad():
        best = model.logits(encode(model, plain).inputs).argmax(1)
    mask = np.zeros((tiny.SIDE, tiny.SIDE), dtype=bool)
    mask[: tiny.SIDE // 2, : tiny.SIDE // 2] = True
    return [Picture(one.image, one.name, {model.classes[c]: mask}) for one, c in zip(plain, best.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["timm-vit", "resnet", "bert", "attention"])
def test_every_method_of_the_line_up_is_scored(known, name):
    model = known[name]
    some = pictures(model) if model.kind == "vision" else [judged(model, WORDS), PLAIN]
    for method in scoring.methods_for(name):
        try:
            rows = scoring.score_shard(name, method, some, tuple(scoring.METRICS), 0)
        except ValueError as error:
            assert "gradcam" in method and "zero" in str(error)
            continue
        assert all(np.isfinite(row["value"]) for row in rows), method
        assert set(rows[0]) == {"sample", "metric", "operator", "value", "seconds"}
        ways = {row["operator"] for row in rows} - {""}
        assert len(ways) == 3, (method, ways)


def test_shards_do_not_depend_on_their_neighbours(known):
    model = known["timm-vit"]
    some = pictures(model)
    together = by_key(scoring.score_shard("timm-vit", "random", some, ("delta_af", "mass"), 3))
    alone = {}
    for one in some:
        alone |= by_key(scoring.score_shard("timm-vit", "random", [one], ("delta_af", "mass"), 3))
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_constant_map_is_scored_by_a_random_order_and_not_by_place(known):
    some = pictures(known["timm-vit"])
    one, other = (
        by_key(scoring.score_shard("timm-vit", "uniform", some, ("delta_af", "mass", "average_precision", "hit"), seed))
        for seed in (0, 1)
    )
    assert any(one[key] != other[key] for key in one if key[1] == "delta_af")
    assert all(value == pytest.approx(0.25) for key, value in one.items() if key[1] in ("mass", "hit"))
    tokens = tiny.model("timm-vit").module.patch_embed.num_patches
    guess = chance(tokens, tokens // 4)
    assert all(value == pytest.approx(guess) for key, value in one.items() if key[1] == "average_precision")


def test_the_settings_of_every_method_are_those_of_its_name(known):
    found = scoring.settings("timm-vit")
    assert list(found) == scoring.methods_for("timm-vit")
    assert found["integrated_gradients"] == "tolerance 0.02, steps 16, most_steps 256"
    assert "residual 0.5" in found["rollout"] and found["random"] == ""


def test_a_swapped_label_and_a_wrong_answer_leave_no_truth(known):
    model = known["bert"]
    right = judged(model, WORDS)
    wrong = replace(right, label=1 - right.label)
    scored = [
        scoring.score_shard("bert", "attention", [one], ("average_precision", "delta_af"), 0) for one in (right, wrong)
    ]
    assert [{row["metric"] for row in rows} for rows in scored] == [{"average_precision", "delta_af"}, {"delta_af"}]


def test_maps_that_change_places_lose_what_they_find(known, monkeypatch):
    some = [replace(one, name=f"s{i}") for i, one in enumerate(pictures(known["timm-vit"], 4))]
    turned = [replace(one, masks={key: mask[::-1, ::-1].copy() for key, mask in one.masks.items()}) for one in some[2:]]
    some = some[:2] + turned
    perfect = probe.probe(known["timm-vit"], tuple(some), 0).truth

    def marked(order):
        def explain(model, method, samples, targets, seed):
            maps = methods.explain("uniform", model, samples)
            return [replace(one, scores=perfect[i]) for one, i in zip(maps, order, strict=True)]

        monkeypatch.setattr(scoring, "_explain", explain)
        rows = scoring.score_shard("timm-vit", "uniform", some, ("average_precision",), 0)
        return np.mean([row["value"] for row in rows if row["metric"] == "average_precision"])

    assert marked([0, 1, 2, 3]) == 1 and marked([3, 2, 1, 0]) < 0.5


def test_a_map_that_fails_does_not_take_the_others_with_it(known, monkeypatch):
    real = scoring._explain

    def fails_on_second(model, method, samples, targets, seed):
        if any(one.name == "second" for one in samples):
            raise ValueError("every score is zero")
        return real(model, method, samples, targets, seed)

    monkeypatch.setattr(scoring, "_explain", fails_on_second)
    rows = scoring.score_shard("bert", "attention", [judged(known["bert"], WORDS), PLAIN], ("delta_af", "fails"), 0)
    assert [row["value"] for row in rows if row["metric"] == "fails"] == [0.0, 1.0]
    assert {row["sample"] for row in rows if row["metric"] == "delta_af"} == {"first"}
    with pytest.raises(ValueError, match="every score is zero"):
        scoring.score_shard("bert", "attention", [PLAIN], ("delta_af",), 0)


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_many_maps_from_one_pass_are_each_as_alone(known, name, monkeypatch):
    model, some = known[name], tiny.samples(name, 3)
    monkeypatch.setattr(scoring, "BATCH", 2)
    names = ("attention", "gradient_x_input", "rollout", "integrated_gradients", "random")
    real = methods.METHODS["rollout"]

    def picky(view, **options):
        if view.attention.shape[-1] == len(encode(model, [some[1]]).labels[0]) + model.prefix and name == "bert":
            raise ValueError("no answer")
        return real.score(view, **options)

    monkeypatch.setitem(methods.METHODS, "rollout", replace(real, score=picky))
    found = scoring.maps_of(model, names, some, [0, 1, 0], 7)
    assert list(found) == list(names)
    for method, own in found.items():
        alone = scoring.attributions(model, method, some, [0, 1, 0], 7)[0]
        assert [one is None for one in own] == [one is None for one in alone]
        for one, other in zip(own, alone, strict=True):
            assert one is None or torch.allclose(one.scores, other.scores, atol=1e-10)
    assert (None in found["rollout"]) == (name == "bert") and None not in found["attention"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: scoring.score_shard("bert", "attention", [], ("fails",), 0), "no sample"),
        (lambda: scoring.score_shard("bert", "magic", [PLAIN], ("fails",), 0), "magic"),
        (lambda: scoring.score_shard("bert", "attention", [PLAIN], ("magic",), 0), "magic"),
        (lambda: scoring.score_shard("timm-vit", "attention", [PLAIN], ("fails",), 0), "pictures"),
        (lambda: scoring.score_shard("bert", "gradcam", [PLAIN], ("fails",), 0), "gradcam"),
    ],
)
def test_bad_input_is_refused(known, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_metric_of_many_maps_is_what_a_shard_gives(known):
    model, some = known["bert"], [judged(known["bert"], WORDS), PLAIN]
    targets = probe.probe(model, tuple(some), 0).targets
    maps = {name: methods.explain(name, model, some, list(targets)) for name in ("gradient_x_input", "attnlrp")}
    table = scoring.by_every_metric(model, some, maps, 0, shard=1)
    names = [one.name for one in some]
    assert list(table.index) == names and set(table.columns.get_level_values("map")) == set(maps)
    for method in maps:
        for row in scoring.score_shard("bert", method, some, ("deletion", "average_precision", "hit"), 0):
            called = f"{row['metric']} ({row['operator']})" if row["operator"] else row["metric"]
            assert table.loc[row["sample"], (method, called)] == pytest.approx(row["value"], abs=1e-5)
    assert np.isnan(table.loc[PLAIN.name, ("attnlrp", "hit")]), "nothing is known of it"
    with pytest.raises(ValueError, match="1 maps of 'x' are given for 2 samples"):
        scoring.by_every_metric(model, some, {"x": maps["attnlrp"][:1]}, 0)
