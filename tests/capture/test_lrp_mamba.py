"""MambaLRP: the published relevance, conservation at every depth, every rule is needed, nothing is left behind."""

import json
from itertools import chain, combinations

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
import transformers as hf
from places import GOLDEN
from safetensors.torch import load_file

from xai_utils.capture.lrp_mamba import RULES, mamba_lrp
from xai_utils.models.vim import Vim

STORED = np.load(GOLDEN / "mamba.npz")


def small(build, configure, **more):
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    return build(configure(**sizes, **more)).eval()


def golden_model(unbiased):
    config = hf.MambaConfig(**json.loads(str(STORED["lrp/config_json"])), tie_word_embeddings=False, use_cache=False)
    model = hf.MambaForCausalLM(config)
    model.load_state_dict(load_file(GOLDEN / "mamba_hf.safetensors"))
    for name, parameter in model.named_parameters():
        if unbiased and name.endswith("bias"):
            parameter.data.zero_()
    return model.eval().double()


def relevance(model, ids, target, rules=RULES):
    with mamba_lrp(model, rules) as trace:
        logit = model(ids).logits[0, -1, target]
        logit.backward()
    return [(one * one.grad).sum(-1)[0].detach() for one in trace.streams], logit.detach()


@pytest.mark.parametrize("target", ["pred", "other"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_the_published_relevance(unbiased, target):
    model, ids = golden_model(unbiased), torch.from_numpy(STORED["lrp/input_ids"])
    found, _ = relevance(model, ids, int(STORED[f"lrp/target_{target}"]))
    tag = "mambalrp_zero_bias" if unbiased else "mambalrp"
    wanted = torch.from_numpy(STORED[f"lrp/f64/{tag}/{target}/R_tokens"])
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=2e-5)  # theirs divides by x + 1e-6 sign(x), ours does not


def test_relevance_is_conserved_at_every_depth_without_biases():
    model, ids = golden_model(True), torch.from_numpy(STORED["lrp/input_ids"])
    found, logit = relevance(model, ids, 3)
    for layer in found:
        torch.testing.assert_close(layer.sum(), logit.double(), rtol=1e-6, atol=1e-6)
    plain, _ = relevance(model, ids, 3, ())
    assert abs(plain[0].sum() - logit) > 0.1 * abs(logit)


SUBSETS = list(chain.from_iterable(combinations(RULES, size) for size in range(len(RULES) + 1)))


def held(x, name, rules):
    return x.detach() if name in rules else x


def silu(x, rules):
    return x * held(x.sigmoid(), "silu", rules)


def normed(x, norm, eps, rules):
    return x * held((x.pow(2).mean(-1, keepdim=True) + eps).rsqrt(), "norm", rules) * norm.weight


def scanned(x, z, rules, conv, x_proj, dt_proj, A, D):
    """One scan over ``(token, channel)``, written as the recurrence, from its convolution to its gate."""
    padded = F.pad(x, (0, 0, conv.kernel_size[0] - 1, 0)).unfold(0, conv.kernel_size[0], 1)
    u = silu((padded * conv.weight[:, 0]).sum(-1) + conv.bias, rules)
    low, B, C = (held(one, "scan", rules) for one in x_proj(u).split([dt_proj.in_features, A.shape[1], A.shape[1]], -1))
    delta, state, outputs = F.softplus(dt_proj(low)), torch.zeros_like(A), []
    for step, drive, b, c in zip(delta, u, B, C, strict=True):
        state = torch.exp(step[:, None] * A) * state + (step * drive)[:, None] * b
        outputs.append(state @ c + D * drive)
    product = torch.stack(outputs) * silu(z, rules)
    return (product + product.detach()) / 2 if "gate" in rules else product


def by_hand_mamba(model, x, rules, target):
    for block in model.backbone.layers:
        own = block.mixer
        u, z = own.in_proj(normed(x, block.norm, block.norm.variance_epsilon, rules)).chunk(2, -1)
        y = scanned(u, z, rules, own.conv1d, own.x_proj, own.dt_proj, -own.A_log.exp(), own.D)
        x = x + own.out_proj(y)
    last = model.backbone.norm_f
    return model.lm_head(normed(x, last, last.variance_epsilon, rules))[-1, target]


def by_hand_vim(model, x, rules, target):
    for block in model.layers:
        own = block.mixer
        u, z = own.in_proj(normed(x, block.norm, 1e-5, rules)).chunk(2, -1)
        there = scanned(u, z, rules, own.conv1d, own.x_proj, own.dt_proj, -own.A_log.exp(), own.D)
        back = (own.conv1d_b, own.x_proj_b, own.dt_proj_b, -own.A_b_log.exp(), own.D_b)
        x = x + own.out_proj((there + scanned(u.flip(0), z.flip(0), rules, *back).flip(0)) / 2)
    return model.head(normed(x, model.norm_f, 1e-5, rules)[model.class_position])[target]


def small_vim():
    torch.manual_seed(0)
    model = Vim(img_size=16, patch_size=4, embed_dim=16, depth=2, num_classes=3, d_state=4).eval().double()
    for parameter in model.parameters():
        parameter.data = parameter.data * 3 if parameter.ndim > 1 else parameter.data
    return model, torch.randn(1, 3, 16, 16, dtype=torch.float64)


@pytest.mark.parametrize("rules", SUBSETS, ids="+".join)
@pytest.mark.parametrize("kind", ["mamba", "vim"])
def test_every_choice_of_rules_is_what_constants_in_the_recurrence_give(kind, rules):
    if kind == "mamba":
        model, ids = golden_model(False), torch.from_numpy(STORED["lrp/input_ids"])
        run, write, tolerance = lambda: model(ids).logits[0, -1, 1], by_hand_mamba, 1e-6
    else:
        model, pixels = small_vim()
        run, write, tolerance = lambda: model(pixels)[0, 1], by_hand_vim, 1e-11
    with mamba_lrp(model, rules) as trace:
        logit = run()
        (found,) = torch.autograd.grad(logit, trace.streams[0])
    tokens = trace.streams[0][0].detach().clone().requires_grad_()
    right = write(model, tokens, rules, 1)
    torch.testing.assert_close(right, logit, rtol=tolerance, atol=tolerance, check_dtype=False)
    (wanted,) = torch.autograd.grad(right, tokens)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=tolerance * float(wanted.abs().max()), check_dtype=False)


def test_no_two_choices_of_rules_are_the_same():
    model, ids = golden_model(False), torch.from_numpy(STORED["lrp/input_ids"])
    sums = [float(relevance(model, ids, 1, rules)[0][0].sum()) for rules in SUBSETS]
    assert np.diff(np.sort(sums)).min() > 1e-6 * np.ptp(sums)


@pytest.mark.parametrize("rule", ["silu", "scan", "gate", "norm"])
def test_every_rule_is_needed(rule):
    model, ids = golden_model(True), torch.from_numpy(STORED["lrp/input_ids"])
    found, logit = relevance(model, ids, 3, [one for one in RULES if one != rule])
    assert abs(found[0].sum() - logit) > 1e-3 * abs(logit)


def test_the_rules_leave_logits_and_later_gradients_alone():
    model, ids = golden_model(False), torch.from_numpy(STORED["lrp/input_ids"])
    plain = model(ids).logits
    before = torch.autograd.grad(plain[0, -1, 0], model.backbone.embeddings.weight)[0]
    _, logit = relevance(model, ids, 0)
    torch.testing.assert_close(logit, plain[0, -1, 0].detach(), rtol=0, atol=1e-6)
    after = torch.autograd.grad(model(ids).logits[0, -1, 0], model.backbone.embeddings.weight)[0]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_vision_mamba_conserves_too():
    torch.manual_seed(0)
    model = Vim(img_size=16, patch_size=4, embed_dim=16, depth=2, num_classes=3, d_state=4).eval().double()
    for name, parameter in model.named_parameters():
        parameter.data = torch.zeros_like(parameter) if name.endswith("bias") else parameter.data * 3
    with mamba_lrp(model) as trace:
        logit = model(torch.randn(1, 3, 16, 16, dtype=torch.float64))[0, 1]
        logit.backward()
    for stream in trace.streams:
        torch.testing.assert_close((stream * stream.grad).sum(), logit.detach(), rtol=1e-9, atol=1e-12)


def test_mamba_lrp_refuses():
    with (
        pytest.raises(TypeError, match="no rule for Mamba-2"),
        mamba_lrp(small(hf.Mamba2Model, hf.Mamba2Config, head_dim=4, num_heads=8, n_groups=2)),
    ):
        pass
    with pytest.raises(ValueError, match="rule is 'relu'"), mamba_lrp(small(hf.MambaModel, hf.MambaConfig), ("relu",)):
        pass
    with pytest.raises(TypeError, match="no selective scan"), mamba_lrp(tiny.module("bert")):
        pass


def test_without_rules_the_gradient_is_the_plain_one():
    model, ids = golden_model(False), torch.from_numpy(STORED["lrp/input_ids"])
    with mamba_lrp(model, ()) as trace:
        found = torch.autograd.grad(model(ids).logits[0, -1, 2], trace.streams[0])[0]
    weight = model.backbone.embeddings.weight
    plain = torch.autograd.grad(model(ids).logits[0, -1, 2], weight)[0]
    by_word = torch.zeros_like(weight).index_add(0, ids[0], found[0])
    torch.testing.assert_close(by_word, plain, rtol=0, atol=1e-12)


def test_an_error_inside_leaves_no_hook_and_no_rule():
    model, ids = golden_model(False), torch.from_numpy(STORED["lrp/input_ids"])
    with pytest.raises(ZeroDivisionError), mamba_lrp(model):
        model(ids)
        raise ZeroDivisionError
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
