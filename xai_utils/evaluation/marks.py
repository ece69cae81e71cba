"""Mark one map: against a known truth, by its shape, and by what it says of random removals."""

from __future__ import annotations

from torch import Tensor

from xai_utils import metrics
from xai_utils.evaluation.probe import Probe
from xai_utils.metrics import removal_curves, segmentation, words

RATIONALE_SHARE = 0.22  #: of a text's words that its hard rationale takes; the mean of the bundled reviews (216, 0.217)


def marks(asked: Probe, sample: int, scores: Tensor, kind: str, seed: int) -> dict[str, float]:
    """Return metric to value; what is not defined for this sample (no truth, no positive score) is left out.

    Args:
        asked: about the samples.
        sample: which one.
        scores: ``(rank,)`` float64, of the tokens that may go.
        kind: ``"text"`` or ``"vision"``.
        seed: of ties.
    """
    found = {"sparseness": removal_curves.sparseness(scores)} if scores.any() else {}
    if asked.drops[sample].any():
        found["infidelity"] = removal_curves.infidelity(scores, asked.gone[sample], asked.drops[sample])
    truth = asked.truth[sample]
    if truth is None:
        return found
    order = removal_curves.ranking(scores, seed)
    found["average_precision"] = metrics.average_precision(scores, truth)
    found["auprc"] = words.auprc(scores, truth > 0.5)
    found["hit"] = float(truth[order[0]] > 0)
    if (scores > 0).any():
        found["mass"], found["lift"] = metrics.mass_inside(scores, truth), metrics.lift(scores, truth)
    return found | (_text(scores, truth, seed) if kind == "text" else _vision(scores, truth, seed))


def _text(scores: Tensor, truth: Tensor, seed: int) -> dict[str, float]:
    marked, inside = words.top_share(scores, RATIONALE_SHARE, seed), truth.numpy() > 0.5
    overlap = words.iou_prf(words.spans(marked), words.spans(inside))
    return {"token_f1": words.token_prf(marked, inside)[2], "iou_f1": overlap[2]}


def _vision(scores: Tensor, truth: Tensor, seed: int) -> dict[str, float]:
    marked = segmentation.top_area(scores, float(truth.mean()), seed)
    return {
        "iou": segmentation.iou(marked, truth),
        "pixel_accuracy": segmentation.pixel_accuracy(segmentation.above_mean(scores), truth),
    }
