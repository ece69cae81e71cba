"""Against people's marks: numbers of eraserbenchmark, properties, refusals."""

import numpy as np
import pytest
import torch
from places import GOLDEN

from xai_utils.metrics import rankings, words

STORED = np.load(GOLDEN / "metrics.npz")
TEXTS = range(3)


def test_token_scores_are_erasers():
    each = [words.token_prf(STORED[f"rat{i}_pred"], STORED[f"rat{i}_truth"]) for i in TEXTS]
    for i, found in zip(TEXTS, each, strict=True):
        np.testing.assert_allclose(found, STORED[f"rat{i}_token_prf"], atol=1e-12)
    np.testing.assert_allclose(np.mean(each, 0), STORED["rat_token_macro"], atol=1e-12)


def test_auprc_is_erasers_trapezoid():
    each = [words.auprc(STORED[f"rat{i}_scores"], STORED[f"rat{i}_truth"]) for i in TEXTS]
    for i, found in zip(TEXTS, each, strict=True):
        assert found == pytest.approx(STORED[f"rat{i}_auprc_ap_roc"][0], abs=1e-12)
    assert np.mean(each) == pytest.approx(float(STORED["rat_auprc"]), abs=1e-12)


def test_overlap_of_spans_is_erasers():
    for row, threshold in enumerate(STORED["rat_iou_thresholds"]):
        each = [
            words.iou_prf(words.spans(STORED[f"rat{i}_pred"]), words.spans(STORED[f"rat{i}_truth"]), threshold)
            for i in TEXTS
        ]
        precision, recall = (float(np.mean([one[k] for one in each])) for k in (0, 1))
        np.testing.assert_allclose([precision, recall], STORED["rat_iou_macro"][row, :2], atol=1e-12)
        both = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert both == pytest.approx(STORED["rat_iou_macro"][row, 2], abs=1e-12)  # F1 of means, not a mean of F1s


def test_spans_are_the_runs():
    for i in TEXTS:
        assert np.array_equal(words.spans(STORED[f"rat{i}_truth"]), STORED[f"rat{i}_truth_spans"])
    assert words.spans([True, True, False, True]) == ((0, 2), (3, 4)) and words.spans([False]) == ()


def test_a_map_that_is_the_truth_gets_one_and_its_opposite_nothing():
    truth = np.array([False, True, True, False, False])
    assert words.auprc(truth.astype(float), truth) == 1
    marked = rankings.top_share(torch.from_numpy(truth.astype(float)), 0.4, 0)
    assert words.token_prf(marked, truth) == (1, 1, 1)
    assert words.iou_prf(words.spans(marked), words.spans(truth)) == (1, 1, 1)
    assert words.token_prf(~truth, truth)[2] == 0 and words.iou_prf((), ((1, 3),)) == (0, 0, 0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: words.auprc([1.0, np.nan], [True, False]), "finite"),
        (lambda: words.auprc([1.0, 2.0], [True, True]), "some true and some false"),
        (lambda: words.iou_prf((), (), 0.0), "threshold"),
        (lambda: words.token_prf([True], [True, False]), "shapes"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
