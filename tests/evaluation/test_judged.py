"""One table for many maps: what is known of a sample, perfect and blind maps, references, removal, refusals."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from xai_utils import claims, evaluation, methods, metrics, models, samples
from xai_utils.evaluation import judged
from xai_utils.models import removal
from xai_utils.result import Attribution
from xai_utils.samples import Picture, Text

TEXTS = [
    Text("the film is not dull , but slow .", "first", 1, rationale=((12, 20),)),
    Text("a warm plot", "second", 0, rationale=((2, 6),)),
    Text("two funny friends and the very warm film", "third", 1, rationale=((4, 9), (31, 35))),
]
ASKED = {"rollout": ("rollout", {}), "steep": ("rollout", {"residual": 0.9}), "gradient": ("gradient_norm", {})}


def pictures(count=3):
    found = []
    for i, one in enumerate(tiny.samples("timm-vit", count)):
        masks = {"moon": np.zeros((tiny.SIDE, tiny.SIDE), dtype=bool), "star": np.zeros((tiny.SIDE, tiny.SIDE), bool)}
        masks["moon"][: tiny.PATCH, tiny.PATCH * i : tiny.PATCH * (i + 1)] = True
        masks["star"][-tiny.PATCH :, : tiny.PATCH] = True
        found.append(replace(one, masks=masks))
    return found


BOTH = pytest.mark.parametrize(("name", "some"), [("bert", TEXTS), ("timm-vit", pictures())], ids=["texts", "pictures"])


@BOTH
def test_maps_that_share_a_pass_are_those_of_the_methods_alone(name, some, monkeypatch):
    asked = {**ASKED, "attnlrp": ("attnlrp", {}), "filtered": ("diffusion_rollout", {"filter": "heat"})}
    asked |= {"z+": ("transformer_attribution", {"start": 1}), "full": ("full_lrp", {})}
    model, passes, observe = tiny.model(name), [], judged.observe
    monkeypatch.setattr(
        judged, "observe", lambda *given, **more: passes.append(len(given[1])) or observe(*given, **more)
    )
    found = judged.explained(model, some, asked, target=1, batch_size=2)
    assert list(found) == list(asked) and passes == [2, 1]
    for label, (method, options) in asked.items():
        alone = methods.explain(method, model, some, 1, **options)
        for one, other in zip(found[label], alone, strict=True):
            torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-6)
            assert (one.target, one.labels) == (other.target, other.labels)


@pytest.mark.parametrize("target", [None, "fair", [2, 0, 1]])
def test_every_sample_is_asked_its_own_question(target):
    found = judged.explained(tiny.model("bert"), TEXTS, {"x": ("gradient_x_input", {})}, target, batch_size=2)["x"]
    alone = methods.explain("gradient_x_input", tiny.model("bert"), TEXTS, target)
    assert [one.target for one in found] == [one.target for one in alone]
    assert judged.explained(tiny.model("bert"), [], ASKED) == {"rollout": [], "steep": [], "gradient": []}


def test_evidence_is_the_rationale_without_specials_or_what_the_masks_cover():
    first, second, _ = judged.evidence(tiny.model("bert"), TEXTS)
    assert first.tokens == 11 and first.places.tolist() == list(range(1, 10))
    assert first.inside.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0] and second.inside.tolist() == [0, 1, 0]
    (own,) = judged.evidence(tiny.model("timm-vit"), pictures()[1:2])
    assert own.inside.nonzero()[:, 0].tolist() == [1, 12] and own.tokens == len(own.places) == 16


@BOTH
def test_a_perfect_map_has_every_mark_and_a_blind_one_none(name, some):
    known = judged.evidence(tiny.model(name), some)
    perfect = [torch.zeros(own.tokens).index_copy(0, own.places, own.inside.float()) for own in known]
    uniform = [torch.ones(own.tokens) for own in known]
    loud = [one.clone() for one in perfect]
    if name == "bert":
        for one in loud:
            one[[0, -1]] = 9.0
    maps = {"perfect": perfect, "uniform": uniform, "loud specials": loud}
    table = judged.judge(tiny.model(name), some, maps, ("mass", "lift", "pointing", "precision"))
    assert table.index.tolist() == [one.name for one in some] and table.columns.names == ["map", "measure"]
    shares = [float(own.inside[own.words].mean()) for own in known]
    assert (table["perfect"][["mass", "pointing"]] == 1).all(axis=None)
    np.testing.assert_allclose(table["perfect", "lift"], 1 / np.array(shares))
    chances = [judged.chance(int(own.words.sum()), int(own.inside.sum())) for own in known]
    np.testing.assert_allclose(table["perfect", "precision"], 1 - np.array(chances))
    np.testing.assert_allclose(table["uniform", "mass"], shares)
    np.testing.assert_allclose(table["uniform", "lift"], 1)
    pd.testing.assert_frame_equal(table["loud specials"], table["perfect"])


def test_punctuation_is_ranked_only_by_measures_that_say_so():
    text = Text("a bad film.", name="t", label=0, rationale=((2, 5),))
    (own,) = judged.evidence(tiny.model("bert"), [text])
    assert own.words.tolist() == [True, True, True, False]
    stop = [torch.zeros(own.tokens).index_fill(0, own.places[[1]], 1.0).index_fill(0, own.places[[3]], 2.0)]
    table = judged.judge(tiny.model("bert"), [text], {"stop": stop}, ("pointing", "pointing with punctuation"))
    assert table["stop"].iloc[0].tolist() == [1.0, 0.0]


@BOTH
def test_a_reference_ranks_the_words_of_the_samples_that_it_covers(name, some):
    maps = judged.explained(tiny.model(name), some, ASKED)
    references = {"itself": maps["rollout"], "against": [-one.scores for one in maps["rollout"][:2]]}
    table = judged.judge(tiny.model(name), some, maps, (), references)
    assert list(table["rollout"]) == ["itself", "against"]
    np.testing.assert_allclose(table["rollout", "itself"], 1)
    np.testing.assert_allclose(table["rollout", "against"], [-1, -1, np.nan])
    assert table["gradient", "itself"].between(-1, 1, inclusive="neither").all()


@BOTH
@pytest.mark.parametrize("operator", [None, "other"])
def test_areas_are_those_of_every_map_and_sample_by_itself(name, some, operator):
    model = tiny.model(name)
    operator = operator and removal.operators_for(model)[1]
    maps, fractions = judged.explained(model, some, ASKED), (0, 0.3, 0.6, 1)
    table = judged.areas(model, some, maps, fractions, operator)
    for label, own in maps.items():
        for sample, one in zip(some, own, strict=True):
            (known,) = judged.evidence(model, [sample])
            order = known.places[one.scores[known.places].argsort(descending=True, stable=True)]
            score = removal.scorer(model, sample, operator=operator)
            for way, insert in (("deletion", False), ("insertion", True)):
                curve = metrics.removal_curve(score, order, known.tokens, fractions, insert)
                assert table.loc[sample.name, (label, way)] == pytest.approx(float(metrics.area(curve, fractions)))
    if operator is None:
        both = judged.judge(model, some, maps, ("insertion", "pointing", "deletion"), fractions=fractions)
        assert list(both["steep"]) == ["insertion", "pointing", "deletion"]
        pd.testing.assert_frame_equal(both.drop(columns="pointing", level=1)[table.columns], table)


def test_a_blurred_map_keeps_specials_and_a_squared_one_its_ranking():
    maps = judged.explained(tiny.model("bert"), TEXTS, ASKED)["gradient"]
    found = judged.controls(tiny.model("bert"), TEXTS, maps)
    for one, blurred, squared in zip(maps, found["blur"], found["power"], strict=True):
        assert blurred[[0, -1]].tolist() == one.scores[[0, -1]].tolist()
        inner = one.scores[1:-1]
        assert blurred[1:-1].std() < inner.std() and blurred[1:-1].sum() == pytest.approx(float(inner.sum()), rel=0.3)
        assert squared.argsort().tolist() == one.scores.argsort().tolist()
    point = replace(methods.explain("rollout", tiny.model("timm-vit"), pictures()[0]), scores=torch.eye(16)[5])
    (blurred,) = judged.controls(tiny.model("timm-vit"), pictures()[:1], [point])["blur"]
    assert blurred.argmax() == 5 and blurred[6] == pytest.approx(float(blurred[9])) and blurred[6] > blurred[10] > 0


@pytest.mark.parametrize(("tokens", "marked"), [(2, 1), (5, 2), (6, 5)])
def test_chance_is_the_mean_over_all_rankings(tokens, marked):
    truth = torch.arange(tokens) < marked
    every = [metrics.average_precision(torch.tensor(one), truth + 0.0) for one in permutations(range(tokens))]
    assert judged.chance(tokens, marked) == pytest.approx(np.mean(every))
    with pytest.raises(ValueError, match="some, and not all"):
        judged.chance(tokens, tokens)


def test_the_label_is_explained_and_its_words_are_looked_for():
    found = judged.gained(tiny.model("bert"), TEXTS, {"x": ("gradient_x_input", {}), "lrp": ("attnlrp", {})})
    for label, name in (("x", "gradient_x_input"), ("lrp", "attnlrp")):
        own = methods.explain(name, tiny.model("bert"), TEXTS, [one.label for one in TEXTS])
        for one, known, value in zip(own, judged.evidence(tiny.model("bert"), TEXTS), found[label], strict=True):
            inside = known.inside[known.words]
            reached = metrics.average_precision(one.scores[known.places[known.words]], inside)
            assert value == pytest.approx(reached - judged.chance(len(inside), int(inside.sum())))
    with pytest.raises(ValueError, match="inside and tokens outside"):
        judged.gained(tiny.model("bert"), [replace(TEXTS[0], rationale=((0, 99),))], {"x": ("gradient_norm", {})})
    with pytest.raises(ValueError):
        judged.gained(tiny.model("bert"), [replace(TEXTS[0], label=None)], {"x": ("gradient_norm", {})})


def test_nothing_to_judge_is_an_empty_table_with_its_columns():
    maps = {"rollout": [], "gradient": []}
    table = judged.judge(tiny.model("timm-vit"), [], maps, ("mass", "deletion"), {"itself": []})
    assert table.empty and list(table["gradient"]) == ["mass", "deletion", "itself"]


def test_what_does_not_fit_is_refused():
    model, ones = tiny.model("bert"), [torch.ones(11)]
    with pytest.raises(ValueError, match="measure is 'beauty', expected one of: mass"):
        judged.judge(model, TEXTS, {}, ("beauty",))
    with pytest.raises(ValueError, match="rollout: 1 maps are given for 3 samples"):
        judged.judge(model, TEXTS, {"rollout": ones})
    with pytest.raises(ValueError, match=r"rollout: scores \(4,\) are given for a sample of 11 tokens"):
        judged.judge(model, TEXTS[:1], {"rollout": [torch.ones(4)]})
    with pytest.raises(ValueError, match="mass needs known evidence, but sample 0 has neither"):
        judged.judge(model, [replace(TEXTS[0], rationale=())], {"rollout": ones})
    with pytest.raises(ValueError, match="mass needs known evidence"):
        judged.judge(tiny.model("timm-vit"), [Picture(pictures()[0].image, "bare", {})], {"rollout": [torch.ones(16)]})


def test_the_sizes_of_signed_maps_are_the_other_choice():
    given = {"signed": ([-2.0, 1.0], True), "weights": ([2.0, 1.0], False)}
    maps = {
        name: [Attribution(torch.tensor(scores), ("a", "b"), "m", "model", signed=signed)]
        for name, (scores, signed) in given.items()
    }
    found = judged.sizes(maps)
    assert list(found) == ["signed (size)"] and found["signed (size)"][0].tolist() == [2, 1]
    assert maps["signed"][0].scores.tolist() == [-2, 1], "what is given stays as it is"


# Faults planted in the study of words, which its claims have to see


@pytest.fixture(scope="module")
def reviews():
    model, some = models.load("minilm-sst2"), samples.reviews(60)
    asked = {
        "rollout": ("rollout", {}),
        "tuned": ("rollout", {"residual": 0.9}),
        "heat": ("diffusion_rollout", {"filter": "heat"}),
        "random": ("random", {}),
    }
    return model, some, judged.explained(model, some, asked, [one.label for one in some])


def claimed(model, some, maps, capsys):
    """Say how two claims about marked words turn out: each ``holds``, ``does not hold`` or ``undecided``."""
    gain = judged.judge(model, some, maps, ["precision"]).xs("precision", axis=1, level="measure")
    tests = {
        "rollout ranks better than a random map": (gain.rollout - gain.random).to_numpy(),
        "a filter helps beside a tuned skip": (gain.heat - gain.tuned).to_numpy(),
    }
    for name, one in evaluation.paired.family((tests, None), seed=0, permutations=999).items():
        claims.tested(name, one.interval.mean, one.p)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_claims_about_words_turn_out_as_the_notebooks_say(reviews, capsys):
    assert claimed(*reviews, capsys) == ["holds", "does not hold"]


def test_swapped_names_of_maps_are_seen(reviews, capsys):
    model, some, maps = reviews
    swapped = {"rollout": "random", "random": "rollout", "heat": "tuned", "tuned": "heat"}
    assert claimed(model, some, {name: maps[other] for name, other in swapped.items()}, capsys) == [
        "does not hold",
        "holds",
    ]


def test_words_in_random_order_are_seen(reviews, capsys):
    model, some, maps = reviews
    noise = torch.Generator().manual_seed(0)
    mixed = {
        name: [replace(one, scores=one.scores[torch.randperm(len(one.scores), generator=noise)]) for one in own]
        for name, own in maps.items()
    }
    assert claimed(model, some, mixed, capsys) == ["undecided", "undecided"]
