"""What is asked about samples whatever the method: targets, removals and truth, against slow loops."""

import numpy as np
import pytest
import torch
from scored import PLAIN, WORDS, by_key, judged, kept

from xai_utils.evaluation import scoring
from xai_utils.models import removal
from xai_utils.models.encoding import encode
from xai_utils.samples import Text


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
                way: [float(score(kept(attribution.scores, some[: round(f * len(some))])[None])) for f in QUARTERS]
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
