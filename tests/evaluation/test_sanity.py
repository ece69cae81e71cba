"""Destroying a model part by part, teaching it random labels, and shifting its input for nothing."""

import contextlib
import copy

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from xai_utils import methods, models, samples, stats
from xai_utils.evaluation import sanity
from xai_utils.models.encoding import encode

BOTH = pytest.mark.parametrize("name", ["bert", "timm-vit"])


def weights(model):
    return {key: value.clone() for key, value in model.module.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@BOTH
def test_parts_go_from_the_output_to_the_input_and_hold_every_weight_once(name):
    model = tiny.model(name)
    names = sanity.layers(model)
    held = [p for part in names for p in model.module.get_submodule(part).parameters()]
    loose = [p for key, p in model.module.named_parameters() if key in ("cls_token", "pos_embed")]
    assert len({id(p) for p in held}) == len(held) and len(held) + len(loose) == len(list(model.module.parameters()))
    blocks = [part for part in names if part.rsplit(".", 1)[-1].isdigit()]
    assert len(blocks) == tiny.BLOCKS and blocks == sorted(blocks, reverse=True)
    assert names[0] in ("classifier", "head") and names.index(blocks[-1]) < len(names) - 1


@BOTH
def test_shuffled_weights_keep_their_values_and_come_back(name):
    model = tiny.model(name)
    before, part = weights(model), sanity.layers(model)[0]
    with pytest.raises(RuntimeError, match="inside"), sanity.randomised(model, [part], 0):
        now = weights(model)
        differs = [key for key in before if not torch.equal(before[key], now[key])]
        assert differs and all(key.startswith(part) for key in differs)
        for key in before:
            assert torch.equal(before[key].flatten().sort().values, now[key].flatten().sort().values)
        raise RuntimeError("inside")
    assert unchanged(model, before)


def test_the_tests_go_from_the_classifier_to_everything():
    model = tiny.model("bert")
    names, found = sanity.layers(model), sanity.stages(model)
    assert list(found) == ["classifier", "upper half", "everything"]
    assert found["classifier"] == names[:1] and found["everything"] == names
    half = found["upper half"]
    assert half == names[: len(half)] and len(names) <= 2 * len(half) <= len(names) + 1


def left(rows, test):
    return [row["value"] for row in rows if row["metric"] == test]


def test_a_map_that_knows_no_model_survives_and_one_that_does_not(known):
    some = tiny.samples("timm-vit")
    before = weights(known["timm-vit"])
    for method, survives in (("centre", True), ("gradient_x_input", False)):
        rows = sanity.score_shard("timm-vit", method, some, ["everything", "classifier"], 0)
        last = left(rows, "everything")
        assert len(last) == len(some) * sanity.SHUFFLES and len(rows) == 2 * len(last)
        assert (np.mean(last) > 0.999) == survives and (survives or abs(np.mean(last)) < 0.6), (method, np.mean(last))
        assert len({(row["sample"], row["metric"], row["operator"]) for row in rows}) == len(rows)
    assert unchanged(known["timm-vit"], before)


def test_shuffles_differ_and_what_ignores_the_classifier_is_left_whole(known):
    some = tiny.samples("timm-vit", 6)
    rows = sanity.score_shard("timm-vit", "attention", some, sanity.METRICS, 0)
    for test in ("classifier", sanity.LABELS):
        assert left(rows, test) == pytest.approx([1.0] * len(some) * sanity.SHUFFLES)
    by = {
        row["operator"]: row["value"] for row in rows if row["metric"] == "everything" and row["sample"] == some[0].name
    }
    assert len(by) == len(set(by.values())) == sanity.SHUFFLES


def test_a_model_that_was_not_shuffled_is_seen(known, monkeypatch):
    """Were the weights left as they are, everything would be left of every map."""
    monkeypatch.setattr(sanity, "randomised", lambda *_: contextlib.nullcontext())
    rows = sanity.score_shard("timm-vit", "gradient_x_input", tiny.samples("timm-vit"), ["everything"], 0)
    assert left(rows, "everything") == pytest.approx([1.0] * len(rows))


def test_labels_that_are_not_learnt_test_nothing(known, monkeypatch):
    monkeypatch.setattr(sanity, "STRENGTH", 1e-9)
    with pytest.raises(ValueError, match="% of the random labels; take fewer samples a shard"):
        sanity.score_shard("timm-vit", "attention", tiny.samples("timm-vit", 8), [sanity.LABELS], 0)
    with pytest.raises(ValueError, match="3 samples for 5 classes"):
        sanity.score_shard("timm-vit", "attention", tiny.samples("timm-vit"), [sanity.LABELS], 0)
    with pytest.raises(ValueError, match="test is 'half'"):
        sanity.score_shard("timm-vit", "attention", tiny.samples("timm-vit"), ["half"], 0)


def test_a_shift_that_the_model_takes_away_changes_nothing_it_computes():
    torch.manual_seed(0)
    model = tiny.model("timm-vit")
    pixels = torch.randn(2, 3, tiny.SIDE, tiny.SIDE)
    before, kept = model.logits({"x": pixels}), weights(model)
    with sanity.shifted(model, 0.7):
        torch.testing.assert_close(model.logits({"x": pixels + 0.7}), before, rtol=0, atol=1e-4)
        assert not torch.allclose(model.logits({"x": pixels}), before, atol=1e-2)
    assert unchanged(model, kept)


def test_at_the_pixels_the_shift_moves_what_multiplies_by_the_input():
    model, pictures = models.load("vit-shortcut"), samples.marked_pictures(3)
    found = sanity.shift_at_pixels(model, pictures, [1, 2, 3], 0.1)
    assert list(found.index) == [one.name for one in pictures]
    assert found[["gradient", "integrated gradients, reference moved"]].to_numpy().max() < 1e-3
    assert found[["gradient x input", "integrated gradients"]].to_numpy().min() > 0.02
    assert found["another picture"].min() > 0.5
    assert max(sanity.shift(model, "gradient_x_input", pictures, [1, 2, 3], 0.1, 0)) < 1e-3, "tokens are restored"


def test_a_shift_that_is_not_taken_away_moves_the_gradient_too(monkeypatch):
    model = models.load("vit-shortcut")
    monkeypatch.setattr(sanity, "shifted", lambda *_: contextlib.nullcontext())
    assert sanity.shift_at_pixels(model, samples.marked_pictures(2), [1, 2], 0.1)["gradient"].min() > 0.02


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: sanity.randomised(m, ["nothing"], 0).__enter__(), ValueError, "nothing"),
        (lambda m: sanity.shifted(m, 1.0).__enter__(), TypeError, "convolution"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(tiny.model("bert"))


@BOTH
def test_the_classifier_learns_random_labels_and_comes_back(name):
    model, some = tiny.model(name), tiny.samples(name, 6)
    before, inputs = weights(model), encode(model, some).inputs
    with pytest.raises(RuntimeError, match="inside"), sanity.relabelled(model, inputs, 3) as learnt:
        now = weights(model)
        assert learnt == 1.0
        assert {key for key in before if not torch.equal(before[key], now[key])} == {
            f"{sanity.layers(model)[0]}.{part}" for part in ("weight", "bias")
        }
        raise RuntimeError("inside")
    assert unchanged(model, before)


def test_only_a_linear_classifier_is_relabelled():
    model = copy.deepcopy(tiny.model("timm-vit"))  # the shared one stays as it is
    model.module.head = torch.nn.Identity()
    with pytest.raises(TypeError, match="linear classifier"), sanity.relabelled(model, {}, 0):
        pass


def test_maps_of_shuffled_weights_are_marked_seed_by_seed():
    model, samples = tiny.model("bert"), tiny.samples("bert", 3)
    before, asked = weights(model), {"gradient": ("gradient_norm", {})}

    def mark(maps):
        return pd.DataFrame({(label, "sum"): [float(one.scores.sum()) for one in own] for label, own in maps.items()})

    found = sanity.shuffled(model, samples, asked, mark, 1, seeds=(3, 5))
    assert list(found) == [3, 5] and unchanged(model, before)
    assert len({table["gradient", "sum"].iloc[0] for table in found.values()}) == 2
    with sanity.randomised(model, sanity.layers(model), 5):
        again = mark({"gradient": methods.explain("gradient_norm", model, samples, 1)})
    assert np.allclose(found[5], again, rtol=1e-5)


def table(**columns):
    found = pd.DataFrame({tuple(name.split("_")): values for name, values in columns.items()})
    return found.rename_axis(columns=["map", "measure"])


def test_the_null_of_shuffled_weights_stands_beside_every_mark():
    own = table(a_hit=[1.0, 1, 0, 1], a_lift=[2.0, 3, 1, 4], b_hit=[0.0, 0, 0, 1], b_lift=[1.0, 1, 1, 1])
    null = {0: table(a_hit=[0.0] * 4, a_lift=[1.0] * 4), 1: table(a_hit=[1.0, 0, 0, 0], a_lift=[2.0] * 4)}
    found = sanity.beside_shuffled(own, null, 0)
    assert list(found.index) == [("hit", "a"), ("hit", "b"), ("lift", "a"), ("lift", "b")]
    assert found.loc[("hit", "a"), ["mean", "shuffled", "shuffled, least", "shuffled, most"]].tolist() == (
        [0.75, 0.125, 0, 0.25]
    )
    low, high = stats.rate_interval([True, True, False, True]).bounds
    assert found.loc[("hit", "a"), ["low", "high"]].tolist() == pytest.approx([low, high]), "a rate: Wilson"
    assert found.loc[("lift", "a"), "low"] == pytest.approx(stats.mean_interval([2, 3, 1, 4], 0).low)
    assert found.loc[("lift", "b"), "shuffled":].isna().all()
    clustered = sanity.beside_shuffled(own, null, 0, clusters=["x", "x", "y", "y"])
    assert clustered.loc[("lift", "a"), "low"] == pytest.approx(
        stats.mean_interval([2, 3, 1, 4], 0, clusters="xxyy").low
    )


def test_differences_to_shuffled_weights_are_paired():
    own, null = table(a_hit=[1.0, 0], a_lift=[2.0, 3], b_hit=[0.0, 1]), {4: table(a_hit=[0.0, 0], a_lift=[1.0, 1])}
    null[5] = table(a_hit=[1.0, 0], a_lift=[2.0, 1])
    found = sanity.above_shuffled(own, null, ["hit"])
    assert list(found) == [("a", "shuffled weights", "hit")]
    assert found["a", "shuffled weights", "hit"].tolist() == [0.5, 0]
    assert list(sanity.above_shuffled(own, null, ["hit", "lift"])) == [
        ("a", "shuffled weights", "hit"), ("a", "shuffled weights", "lift")
    ]  # fmt: skip
