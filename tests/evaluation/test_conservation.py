"""Sums of relevance at every depth, and what the company of other samples changes."""

import pytest
import tiny
import torch

from xai_utils import evaluation, methods
from xai_utils.evaluation import conservation
from xai_utils.maths.propagation import rescaled_addition
from xai_utils.models import encode


@pytest.mark.parametrize("name", ["timm-vit", "bert"])
def test_full_propagation_keeps_one_at_every_depth_and_the_first_rules_do_not(name):
    model, some = tiny.model(name), tiny.samples(name)
    kept = conservation.by_depth(model, some, "full_lrp")
    assert kept.shape == (3, model.blocks + 1)
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=0, atol=1e-3)
    lost = conservation.by_depth(model, some, "full_lrp", preset="orig")
    assert (lost - 1).abs().max() > 1


@pytest.mark.parametrize(("method", "preset"), [("cp_lrp", "cp"), ("attnlrp", "attnlrp")])
def test_modified_gradients_are_shares_of_the_predicted_logit(method, preset):
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit")
    found = conservation.by_depth(model, some, method)
    for row, one in zip(found, some, strict=True):
        batch = encode(model, [one])
        logit, target = model.logits(batch.inputs)[0].max(0)
        ((scores, details),) = methods.relevance.modified_gradient(preset, model, batch, [int(target)])
        assert float(row[0]) == pytest.approx(float(scores.sum() / logit), rel=1e-3)
        assert row.tolist() == pytest.approx(
            [value / float(logit) for value in details["relevance_by_depth"]], rel=1e-3
        )


def test_a_method_that_hands_nothing_down_is_refused():
    with pytest.raises(ValueError, match="rollout hands nothing down; try full_lrp"):
        conservation.by_depth(tiny.model("timm-vit"), tiny.samples("timm-vit"), "rollout")


@pytest.mark.parametrize("name", ["timm-vit", "bert"])
def test_company_changes_nothing_but_rounding(name):
    assert conservation.change_by_company(tiny.model(name), tiny.samples(name)) < 1e-4


def test_a_total_over_the_batch_would_be_seen(monkeypatch):
    def over_all(relevance, left, right):
        return tuple(part[0] for part in rescaled_addition(relevance[None], left[None], right[None]))

    monkeypatch.setattr("xai_utils.maths.propagation.rescaled_addition", over_all)
    assert conservation.change_by_company(tiny.model("timm-vit"), tiny.samples("timm-vit")) > 0.01


def test_coupling_is_the_change_of_either_sample():
    assert conservation.coupling(0) == evaluation.conservation.coupling(0) > 0.1
    sent, skip, branch = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    apart = torch.stack([rescaled_addition(*(one[i : i + 1] for one in (sent, skip, branch)))[0][0] for i in (0, 1)])
    whole = rescaled_addition(sent[None], skip[None], branch[None])[0][0]
    assert conservation.coupling(4) == pytest.approx(float((apart - whole).abs().max()), rel=1e-12)
