"""Rules on whole models: nothing is changed but gradients, relevance is conserved, the model is left as it was."""

import pytest
import timm
import tiny
import torch
from torch import nn
from transformers import BertForSequenceClassification

from xai_utils.capture.lrp import MODIFIED, RELEVANCE, lrp_rules, relevance_rules
from xai_utils.models import state_sha256

COVERED = tuple(name for name in tiny.ALL if name != "gpt2")  # by every preset; GPT-2 by those of gradients
BY_GRADIENTS = [("gpt2", preset) for preset in MODIFIED]
EACH = pytest.mark.parametrize("name", COVERED)


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def answer(built, given):
    output = built(**given)
    return output if isinstance(output, torch.Tensor) else output.logits


def gradient(built, name):
    """Return the plain gradient of one logit by every parameter."""
    built.zero_grad()
    tiny.score(built, tiny.inputs(name)).backward()
    return [p.grad.clone() for p in built.parameters() if p.grad is not None]


def without_bias(name):
    """Set every bias and every embedding that no relevance should go to to zero."""
    built = tiny.module(name)
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            if "bias" in key:
                parameter.zero_()
    return built.requires_grad_(False)


def depths(built, name, preset, **options):
    """Return the relevance at every depth and the score, summed over the batch."""
    with lrp_rules(built, preset, **options) as trace:
        score = tiny.score(built, tiny.inputs(name))
        found = torch.autograd.grad(score, trace.hidden)
        return torch.stack([(h * g).sum() for h, g in zip(trace.hidden, found, strict=True)]).detach(), score.detach()


@pytest.mark.parametrize(
    ("name", "preset"), [*((name, preset) for name in COVERED for preset in MODIFIED + RELEVANCE), *BY_GRADIENTS]
)
def test_logits_are_the_same_and_the_model_is_left_as_it_was(name, preset):
    built, given = tiny.module(name), tiny.inputs(name)
    before, digest, plain = answer(built, given), state_sha256(built), gradient(built, name)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in built.modules()]
    with (lrp_rules if preset in MODIFIED else relevance_rules)(built, preset):
        same(answer(built, given), before, 1e-6 if name in ("vit", "deit") else 1e-10)  # their eager softmax is float32
    assert torch.equal(answer(built, given), before) and state_sha256(built) == digest
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in built.modules()] == hooks
    assert all(torch.equal(a, b) for a, b in zip(gradient(built, name), plain, strict=True))


@pytest.mark.parametrize("name", ["bert", "timm-vit", "distilbert", "vit", "timm-distilled"])
def test_cp_conserves_relevance_where_there_is_no_bias(name):
    found, score = depths(without_bias(name), name, "cp")
    assert ((found - score).abs() / score.abs()).max() < 1e-6  # activations are stabilised by 1e-10


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_attnlrp_lets_softmax_absorb_and_gamma_conserves(name):
    built = without_bias(name)
    found, score = depths(built, name, "attnlrp")
    assert ((found - score).abs() / score.abs()).max() > 1e-3
    sharp, _ = depths(built, name, "cp", gamma=0.2)
    assert ((sharp - score).abs() / score.abs()).max() < 1e-3
    absorbed, _ = depths(built, name, "cp", epsilon=0.5)
    assert (absorbed - score).abs().max() > 1e-3 * score.abs()


@EACH
def test_transformer_attribution_conserves_at_every_depth_and_orig_grows(name):
    built = tiny.module(name).requires_grad_(False)
    sums = {}
    for preset in RELEVANCE:
        with relevance_rules(built, preset) as trace:
            logits = answer(built, tiny.inputs(name))
            one = torch.zeros_like(logits)
            one[:, 1] = 1
            sums[preset] = torch.stack([r.sum((1, 2)) for r in torch.autograd.grad(logits, trace.hidden, one)])
    for preset, miss in (("transformer_attribution", 1e-7), ("proportional", 1e-4)):  # large parts cancel in the latter
        same(sums[preset], torch.ones(tiny.BLOCKS + 1, 2, dtype=torch.float64), miss)
    assert (sums["orig"][-1] - 1).abs().min() > 0.5 and (sums["orig"] - 1).abs().max() > 1


def test_an_error_inside_switches_the_rules_off():
    built = tiny.module("bert")
    plain = gradient(built, "bert")
    with pytest.raises(ZeroDivisionError), lrp_rules(built, "cp"):
        answer(built, tiny.inputs("bert"))
        raise ZeroDivisionError
    with pytest.raises(AttributeError), lrp_rules(built, "cp"):
        built(input_ids="no tensor")
    assert all(torch.equal(a, b) for a, b in zip(gradient(built, "bert"), plain, strict=True))
    x = torch.ones(3, requires_grad=True)
    assert torch.sin(x).requires_grad  # the rules refuse it while they are on


def test_other_models_and_code_around_are_untouched():
    built, other = tiny.module("bert"), tiny.module("bert", seed=1)
    plain = gradient(other, "bert")
    with lrp_rules(built, "cp"):
        answer(built, tiny.inputs("bert")).exp().sum()
        assert all(torch.equal(a, b) for a, b in zip(gradient(other, "bert"), plain, strict=True))


def test_without_gradients_the_block_is_harmless():
    built, given = tiny.module("timm-vit"), tiny.inputs("timm-vit")
    with torch.no_grad(), lrp_rules(built, "attnlrp"):
        assert not answer(built, given).requires_grad


def gated():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.sigmoid()

    built = timm.create_model("vit_tiny_patch16_224", **tiny.TIMM).double().eval()
    built.blocks[1].mlp.act = Gate()
    return built


@pytest.mark.parametrize(
    ("build", "preset", "error", "message"),
    [
        (lambda: tiny.module("swin"), "attnlrp", TypeError, r"windows \(Swin\)"),
        (lambda: tiny.module("resnet"), "cp", TypeError, "no attention block"),
        (gated, "cp", TypeError, "no relevance rule for torch's 'sigmoid'"),
        (lambda: tiny.module("bert"), "lrp", ValueError, "preset is 'lrp', expected one of: cp, attnlrp"),
        (lambda: tiny.module("bert").train(), "cp", ValueError, "training mode"),
    ],
)
def test_what_has_no_rule_is_refused(build, preset, error, message):
    built = build()
    name = next((n for n in ("swin", "resnet", "bert") if n in type(built).__name__.lower()), "timm-vit")
    with pytest.raises(error, match=message), lrp_rules(built, preset):
        answer(built, tiny.inputs(name))


def test_relevance_itself_has_no_rule_for_the_linear_maps_of_gpt2():
    built = tiny.module("gpt2")
    with pytest.raises(TypeError, match="no relevance rule for torch's 'addmm'"), relevance_rules(built):
        answer(built, tiny.inputs("gpt2"))


def test_bad_options_are_refused():
    built = tiny.module("bert")
    for option in ("epsilon", "gamma", "gamma_patches"):
        with (
            pytest.raises(ValueError, match=f"{option} is -1, expected 0 or more"),
            lrp_rules(built, "cp", **{option: -1}),
        ):
            pass
    with pytest.raises(ValueError, match="preset is 'cp', expected one of: transformer_attribution, proportional"):
        with relevance_rules(built, "cp"):
            pass
    assert isinstance(built, BertForSequenceClassification)
