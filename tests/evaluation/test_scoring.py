"""A shard of samples is scored: every method against slow literal versions, matched nulls, failures, refusals."""

import numpy as np
import pytest
import tiny
import torch
from scored import PLAIN, WORDS, by_key, judged

from xai_utils.evaluation import scoring
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
