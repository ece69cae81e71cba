"""A shard of samples is scored: every method against slow literal versions, matched nulls, failures, refusals."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils import methods, models
from xai_utils.evaluation import probe, scoring
from xai_utils.models import removal
from xai_utils.models.encoding import encode
from xai_utils.samples import Picture, Text

WORDS = Text("the film is not dull , but slow .", "first", 0, "plain", ((16, 20), (26, 30)))
PLAIN = Text("a warm plot and two friends", "second")


@pytest.fixture
def known(monkeypatch):
    """Let tiny models be found by name, and nothing be remembered of the ones before."""
    made = {name: tiny.model(name) for name in ("bert", "timm-vit", "resnet")}
    made["attention"] = tiny.attention_classifier()
    monkeypatch.setattr(models, "shared", lambda name, device="cpu": made[name])
    probe._memory.clear()
    return made


def pictures(model, count=3):
    """Return pictures of noise in which the predicted class covers one quarter."""
    plain = tiny.samples("timm-vit", count)
    with torch.no_grad():
        best = model.logits(encode(model, plain).inputs).argmax(1)
    mask = np.zeros((tiny.SIDE, tiny.SIDE), dtype=bool)
    mask[: tiny.SIDE // 2, : tiny.SIDE // 2] = True
    return [Picture(one.image, one.name, {model.classes[c]: mask}) for one, c in zip(plain, best.tolist(), strict=True)]


def judged(model, text):
    """Return the text with the label that the model gives it."""
    with torch.no_grad():
        label = int(model.logits(encode(model, [text]).inputs).argmax())
    return Text(text.text, text.name, label, text.kind, text.rationale)


def by_key(rows):
    return {(row["sample"], row["metric"], row["operator"]): row["value"] for row in rows}


def test_removal_rows_are_what_a_loop_over_masks_gives(known):
    model, seed = known["bert"], 5
    texts = [judged(model, WORDS), PLAIN]
    found = by_key(scoring.score_shard("bert", "gradient_x_input", texts, tuple(scoring.METRICS), seed))
    for text in texts:
        attribution = scoring.attributions(model, "gradient_x_input", [text], [_target(model, text)], seed)[0][0]
        words = list(range(1, len(attribution.scores) - 1))
        order = sorted(words, key=lambda i: -float(attribution.scores[i]))
        for operator in ("mask", "delete", "unknown"):
            score = removal.scorer(model, text, _target(model, text), operator)
            curves = {
                way: [float(score(_keep(attribution.scores, some[: round(f * len(some))])[None])) for f in QUARTERS]
                for way, some in (("morf", order), ("lerf", order[::-1]))
            }
            area = {way: np.trapezoid(values, QUARTERS) for way, values in curves.items()}
            key = (text.name, operator)
            assert found[key[0], "deletion", operator] == pytest.approx(area["morf"], abs=1e-9)
            assert found[key[0], "delta_af", operator] == pytest.approx(area["lerf"] - area["morf"], abs=1e-9)
            morf = curves["morf"]
            assert found[key[0], "comprehensiveness", operator] == pytest.approx(morf[0] - morf[1], abs=1e-9)
            assert found[key[0], "sufficiency", operator] == pytest.approx(morf[0] - curves["lerf"][3], abs=1e-9)
            assert found[key[0], "aopc", operator] == pytest.approx(morf[0] - np.mean(morf[1:4]), abs=1e-9)
            logs = np.mean(np.log(np.array(morf[1:4]) / morf[0]))
            assert found[key[0], "log_odds", operator] == pytest.approx(logs, abs=1e-9)


QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _target(model, text):
    with torch.no_grad():
        return int(model.logits(encode(model, [text]).inputs).argmax())


def _keep(scores, gone):
    return torch.ones(len(scores), dtype=torch.bool).index_fill(0, torch.tensor(gone, dtype=torch.long), False)


def test_truth_is_given_only_where_it_is_known(known):
    model = known["bert"]
    right, wrong = judged(model, WORDS), judged(model, WORDS)
    wrong = Text(wrong.text, "wrong", (wrong.label + 1) % 3, wrong.kind, wrong.rationale)
    rows = scoring.score_shard("bert", "attention", [right, wrong, PLAIN], tuple(scoring.METRICS), 0)
    with_truth = {row["sample"] for row in rows if scoring.METRICS[row["metric"]].needs_truth}
    assert with_truth == {"first"} and {row["sample"] for row in rows} == {"first", "wrong", "second"}
    assert {row["metric"] for row in rows if row["sample"] == "first"} == {
        name for name, one in scoring.METRICS.items() if "text" in one.kinds
    }


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
        by_key(scoring.score_shard("timm-vit", "uniform", some, ("delta_af", "mass", "average_precision"), seed))
        for seed in (0, 1)
    )
    assert any(one[key] != other[key] for key in one if key[1] == "delta_af")
    assert all(value == pytest.approx(0.25) for key, value in one.items() if key[1] in ("mass", "average_precision"))


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


def test_leave_one_out_is_a_loop_over_tokens(known):
    model, text = known["bert"], judged(known["bert"], WORDS)
    found = methods.explain("leave_one_out", model, text, 1, operator="unknown")
    score = removal.scorer(model, text, 1, "unknown", "logit")
    whole = float(score(_keep(found.scores, [])[None]))
    for i in range(1, len(found.scores) - 1):
        assert float(found.scores[i]) == pytest.approx(whole - float(score(_keep(found.scores, [i])[None])), abs=1e-9)
    assert found.scores[0] == found.scores[-1] == 0


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
