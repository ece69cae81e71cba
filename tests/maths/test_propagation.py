"""Rules of relevance, one layer at a time: conservation, literal oracles, published numbers, guards."""

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from places import GOLDEN
from strategies import attention, normal

from xai_utils.maths import propagation


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "relevance.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file if name.startswith(("rule/", "lxt/"))}


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def near(left, right, share=1e-6):
    """Compare with a published number that was stabilised by 1e-9 (or 1e-6), as a share of its largest entry."""
    assert (left - right).abs().max() <= share * right.abs().max()


def test_positive_linear_is_the_literal_sharing():
    x, weight, relevance = normal(7), normal(5, 7, seed=1), normal(5, seed=2)
    near(propagation.positive_linear(relevance, x, weight), oracles.positive_linear(relevance, x, weight))


def test_positive_linear_conserves_and_the_published_one_does_not():
    x, weight, relevance = normal(3, 40), normal(30, 40, seed=1), normal(3, 30, seed=2)
    same(propagation.positive_linear(relevance, x, weight).sum(-1), relevance.sum(-1), 1e-6)
    apart = propagation.positive_linear_apart(relevance, x, weight)
    same(apart.sum(-1), 2 * relevance.sum(-1), 1e-6)


def test_golden_linear(golden):
    x, weight, relevance = (golden[f"rule/linear/{k}"] for k in ("x", "weight", "R"))
    near(propagation.positive_linear(relevance, x, weight), golden["rule/linear/ours_alpha1"])
    near(propagation.positive_linear_apart(relevance, x, weight), golden["rule/linear/orig_alpha1"])
    dead = golden["rule/linear_dead/weight"]
    found = propagation.positive_linear(relevance, x, dead)
    near(found, golden["rule/linear_dead/ours_alpha1"])
    fed = (x[..., None, :] * dead > 0).any(-1)  # an output without any positive contribution hands on nothing
    assert not fed.all()
    same(found.sum(-1), (relevance * fed).sum(-1), 1e-6)


def test_golden_pixels(golden):
    x, weight, relevance = (golden[f"rule/conv/{k}"] for k in ("x", "weight", "R"))
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    patches, *bounds = (propagation.cut_patches(one.expand_as(x), 4) for one in (x, low, high))
    same(F.linear(patches, weight.flatten(1)).movedim(-1, 1), F.conv2d(x, weight, stride=4))
    shared = propagation.bounded_pixels(relevance.movedim(1, -1), patches, weight.flatten(1), *bounds)
    found = propagation.join_patches(shared, 4)
    near(found, golden["rule/conv/ours"], 1e-5)
    same(found.sum(), relevance.sum(), 1e-6)


def test_products_and_sums_are_the_literal_sharing():
    left, right, relevance = normal(3, 4), normal(4, 5, seed=1), normal(3, 5, seed=2)
    for found, slow in zip(
        propagation.product(relevance, left @ right, left, right),
        oracles.product_relevance(relevance, left, right), strict=True,
    ):  # fmt: skip
        near(found, slow)
    left, right, relevance = normal(3, 4, 5), normal(3, 4, 5, seed=1), normal(3, 4, 5, seed=2)
    found = propagation.rescaled_addition(relevance, left, right)
    for sample in range(3):
        slow = oracles.rescaled_addition(relevance[sample], left[sample], right[sample])
        for one, other in zip(found, slow, strict=True):
            near(one[sample], other)
    same((found[0] + found[1]).sum((1, 2)), relevance.sum((1, 2)))


def test_golden_products_and_sums(golden):
    part = {k.removeprefix("rule/"): v for k, v in golden.items()}
    query, key = propagation.product(
        part["einsum_qk/R"], part["einsum_qk/z"], part["einsum_qk/q"], part["einsum_qk/k"].mT
    )
    near(2 * query, part["einsum_qk/Rq_unhalved"])
    near(2 * key.mT, part["einsum_qk/Rk_unhalved"])
    maps, values = propagation.product(
        part["einsum_av/R"], part["einsum_av/z"], part["einsum_av/attn"], part["einsum_av/v"]
    )
    near(2 * maps, part["einsum_av/RA_unhalved"])
    near(2 * values, part["einsum_av/Rv_unhalved"])
    given = part["add/R"], part["add/x1"], part["add/x2"]
    for i in (0, 1):
        near(propagation.rescaled_addition(*given)[i], part[f"add/ours_R{i + 1}"])
        near(propagation.addition(*given)[i], part[f"add/orig_R{i + 1}"])


def test_samples_of_a_batch_do_not_meet_in_a_sum_as_they_do_in_the_original(golden):
    given = [golden[f"rule/add_batch2/{k}"] for k in ("R", "x1", "x2")]
    found = propagation.rescaled_addition(*given)
    for i in (0, 1):
        near(found[i], golden[f"rule/add_batch2/per_sample_R{i + 1}"])
    assert (found[0] - golden["rule/add_batch2/ours_R1_batchcoupled"]).abs().max() > 0.01


def test_division_is_guarded_where_the_original_divides_by_nothing(golden):
    a, b = golden["rule/safe_divide/a"], golden["rule/safe_divide/b"]
    found = propagation.divide(a, b)
    assert found.isfinite().all() and not found[b == 0].any()
    clear = b.abs() > 1e-3
    torch.testing.assert_close(found[clear], golden["rule/safe_divide/out"][clear], rtol=1e-6, atol=0)
    left = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    for part in propagation.rescaled_addition(torch.ones_like(left), left, -left):
        assert part.isfinite().all()


def test_a_mean_shares_in_proportion():
    x, relevance = normal(2, 5, 3).abs(), normal(2, 1, 3)
    found = propagation.mean(relevance, x, 1)
    same(found.sum(1, keepdim=True), relevance, 1e-6)
    same(found[:, 0] / found[:, 1], x[:, 0] / x[:, 1])


# Modified gradients: relevance is activation times gradient


def test_golden_layer_norm(golden):
    x, weight, y, relevance = (golden[f"lxt/layer_norm/{k}"] for k in ("x", "weight", "y", "R"))
    scale = 1 / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    found = x * propagation.constant_scale(relevance / (y + 1e-6), weight, scale)
    near(found, golden["lxt/layer_norm/R_in"], 1e-9)


def test_golden_attention_halves_every_product(golden):
    q, k, v, relevance = (golden[f"lxt/attn/{name}"] for name in ("q", "k", "v", "R"))
    logits = (q @ k.mT).requires_grad_()
    maps = logits.softmax(-1)
    by_map, by_value = propagation.halved_product(relevance / (maps @ v), maps.detach(), v)
    (by_logit,) = torch.autograd.grad(maps, logits, by_map)
    by_query, by_key = propagation.halved_product(by_logit, q, k.mT)
    for name, one, gradient in (("q", q, by_query), ("k", k, by_key.mT), ("v", v, by_value)):
        near(one * gradient, golden[f"lxt/attn/R_{name}"], 1e-5)


def test_activation_keeps_its_relevance():
    x, relevance = normal(50), normal(50, seed=1)
    for function in (F.gelu, torch.tanh, F.silu):
        y = function(x)
        same(x * propagation.proportional(relevance / y, y, x), relevance, 1e-7)


def test_golden_epsilon(golden):
    x, weight, bias, y, relevance = (golden[f"lxt/linear/{k}"] for k in ("x", "W", "b", "y", "R"))
    near(x * propagation.epsilon_linear(relevance / y, y, weight, 0.0), golden["lxt/linear/R_in_eps1e-6"], 1e-4)
    found = x * propagation.epsilon_linear(relevance / y, y, weight, 0.25)
    share = relevance / (y + 0.25 * torch.where(y < 0, -1.0, 1.0))  # the published one adds it whatever the sign
    same(found, x * (share @ weight))
    assert found.sum().abs() < (x * propagation.epsilon_linear(relevance / y, y, weight, 0.0)).sum().abs() + 100
    assert bias.any()


@pytest.mark.parametrize("gamma", [0.0, 0.25, 10.0])
def test_gamma_favours_what_agrees_with_the_output_and_conserves(gamma):
    x, weight = normal(4, 6), normal(3, 6, seed=1)
    output, gradient = x @ weight.T, normal(4, 3, seed=2)
    found = x * propagation.gamma_linear(gradient, output, x, weight, None, gamma)
    same(found.sum(-1), (gradient * output).sum(-1), 1e-4)
    if not gamma:
        same(found, x * (gradient @ weight), 1e-4)
    for sample in range(4):
        handed = torch.zeros(6, dtype=torch.float64)
        for out in range(3):
            parts = x[sample] * weight[out]
            parts = parts * torch.where(parts * output[sample, out] > 0, 1 + gamma, 1.0)
            handed += parts / parts.sum() * gradient[sample, out] * output[sample, out]
        same(found[sample], handed, 1e-4)


def test_attention_of_one_head_is_untouched_by_others():
    maps, values, relevance = attention(2, 3, 5, 5), normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1)
    whole = propagation.product(relevance, maps @ values, maps, values)
    alone = propagation.product(relevance[1, 2], maps[1, 2] @ values[1, 2], maps[1, 2], values[1, 2])
    for one, other in zip(whole, alone, strict=True):
        same(one[1, 2], other)
