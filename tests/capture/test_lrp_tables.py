"""Rules of single torch functions: values stay, relevance is conserved or taken as told, the rest is refused."""

import pytest
import torch
import torch.nn.functional as F
from strategies import normal
from torch import nn

from xai_utils.capture import lrp_tables
from xai_utils.capture.lrp import Rules

LOW, HIGH = torch.full((3, 1, 1), -6.0, dtype=torch.float64), torch.full((3, 1, 1), 6.0, dtype=torch.float64)
X, WEIGHT, RIGHT = normal(2, 5, 4), normal(6, 4, seed=1), normal(2, 4, 3, seed=2)
WIDE, OF_WIDE = normal(2, 5, 40, seed=10), normal(6, 40, seed=11)  # every output has positive contributions
PICTURE, KERNEL = normal(2, 3, 8, 8, seed=3), normal(5, 3, 4, 4, seed=4)
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}


def modified(preset="cp", epsilon=0.0, gamma=0.0, gamma_patches=0.0, spared=()):
    return lrp_tables.modified(preset, epsilon, gamma, gamma_patches, set(spared))


def back(table, function, *given, sent=None):
    """Return the value of a function under the rules and what comes back to each of its tensors."""
    leaves = [one.clone().requires_grad_() for one in given]
    with Rules(table):
        output = function(*leaves)
    sent = normal(*output.shape, seed=9) if sent is None else sent
    torch.testing.assert_close(output, function(*given), rtol=1e-12, atol=1e-12)
    return output.detach(), sent, torch.autograd.grad(output, leaves, sent, allow_unused=True)


def plain(function, *given, sent):
    leaves = [one.clone().requires_grad_() for one in given]
    return torch.autograd.grad(function(*leaves), leaves, sent)


def same(left, right, atol=1e-8):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


# Modified gradients: relevance is the product with the activation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_hands_on_all_its_relevance(name):
    output, sent, (found,) = back(modified(), ACTIVATIONS[name], X)
    same(X * found, output * sent)


def test_the_scale_of_a_layer_norm_is_a_constant():
    weight = normal(4, seed=5)
    output, sent, (found,) = back(modified(), lambda x: F.layer_norm(x, (4,), weight), X)
    same((X * found).sum(), (output * sent).sum())
    assert (found - plain(lambda x: F.layer_norm(x, (4,), weight), X, sent=sent)[0]).abs().max() > 0.01


def test_attention_is_a_constant_in_one_preset_and_each_factor_takes_half_in_the_other():
    assert lrp_tables.modified("cp", 0, 0, 0, set())["softmax"](X, -1)[1] is None
    sent = normal(2, 5, 3, seed=9)
    left, right = plain(torch.matmul, X, RIGHT, sent=sent)
    for preset, share in (("cp", 1.0), ("attnlrp", 0.5)):
        _, _, found = back(modified(preset), torch.matmul, X, RIGHT, sent=sent)
        same(found[0], share * left)
        same(found[1], share * right)
    _, _, (one,) = back(modified("attnlrp"), lambda x: x @ RIGHT, X, sent=sent)  # one activation: nothing to share
    same(one, left)


def test_gamma_conserves_and_epsilon_absorbs_and_spared_weights_keep_the_plain_gradient():
    sent, lost = normal(2, 5, 6, seed=9), {}
    for options in ({"gamma": 0.3}, {"epsilon": 0.5}, {}):
        output, _, (found,) = back(modified(**options), lambda x: F.linear(x, WEIGHT), X, sent=sent)
        lost[tuple(options)] = float(((output * sent).sum() - (X * found).sum()).abs())
        _, _, (spared,) = back(modified(**options, spared=[id(WEIGHT)]), lambda x: F.linear(x, WEIGHT), X, sent=sent)
        same(spared, sent @ WEIGHT)
    assert lost["gamma",] < 1e-4 and lost[()] < 1e-9 and lost["epsilon",] > 0.1


def test_the_patch_convolution_is_a_linear_map_of_its_patches():
    convolve = lambda x: F.conv2d(x, KERNEL, None, 4)  # noqa: E731
    output, sent, (found,) = back(modified(gamma_patches=0.3), convolve, PICTURE)
    same((PICTURE * found).sum(), (output * sent).sum(), 1e-3)
    _, _, (without,) = back(modified(), convolve, PICTURE, sent=sent)
    same(without, plain(convolve, PICTURE, sent=sent)[0])


# Relevance itself


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_relevance_passes_an_activation_as_it_is(name):
    _, sent, (found,) = back(lrp_tables.relevance("transformer_attribution", None), ACTIVATIONS[name], X)
    same(found, sent)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (lambda x: F.linear(x, OF_WIDE), (WIDE,)),
        (torch.add, (X, normal(2, 5, 4, seed=6))),
        (torch.matmul, (X, RIGHT)),
        (lambda x: x.mean(1), (X,)),
        (lambda x: x.mean(1, keepdim=True), (X,)),
        (lambda x: F.conv2d(x, KERNEL, None, 4), (PICTURE,)),
    ],
    ids=["linear", "add", "matmul", "mean", "mean kept", "pixels"],
)
def test_relevance_is_conserved(function, given):
    _, sent, found = back(lrp_tables.relevance("transformer_attribution", (LOW, HIGH)), function, *given)
    same(sum(one.sum() for one in found), sent.sum(), 1e-5)


def test_the_rules_published_as_orig_hand_on_up_to_twice():
    _, sent, (found,) = back(lrp_tables.relevance("orig", None), lambda x: F.linear(x, OF_WIDE), WIDE)
    same(found.sum(), 2 * sent.sum(), 1e-5)


def test_two_heads_share_evenly_and_a_mask_gets_nothing():
    table, mask = lrp_tables.relevance("transformer_attribution", None), torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    one, other = normal(2, 4), normal(2, 4, seed=1)
    _, sent, found = back(table, torch.add, one, other)
    same(found[0], sent / 2)
    same(found[1], sent / 2)
    _, sent, (scores,) = back(table, lambda x: x + mask, normal(1, 2, 3, 3))
    same(scores, sent)


# Refusals


@pytest.mark.parametrize(
    "table", [modified(), lrp_tables.relevance("transformer_attribution", None)], ids=["modified", "relevance"]
)
def test_a_gate_has_no_rule_and_a_constant_factor_has(table):
    with pytest.raises(TypeError, match="no relevance rule for a product of two activations"):
        back(table, torch.mul, X, normal(2, 5, 4, seed=7))
    back(table, lambda x: x * 3, X)


@pytest.mark.parametrize("how", [{"stride": 2}, {"stride": 4, "padding": 1}, {}])
def test_a_convolution_that_does_not_tile_is_refused(how):
    given = [how[name] for name in ("stride", "padding") if name in how]
    with pytest.raises(TypeError, match="does not tile"):
        back(modified(gamma_patches=0.1), lambda x: F.conv2d(x, KERNEL, None, *given), PICTURE)


def test_pixels_need_the_range_that_they_can_have():
    with pytest.raises(ValueError, match="pixels needs pixel_range"):
        back(lrp_tables.relevance("transformer_attribution", None), nn.Conv2d(3, 5, 4, 4).double(), PICTURE)
