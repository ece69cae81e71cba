"""The selective scan against its definition, step by step."""

import pytest
import torch
from torch.autograd import gradcheck

from xai_utils.maths import selective_scan as scan
from xai_utils.maths.selective_scan import selective_scan


def drawn(batch=2, channels=3, states=4, tokens=9, seed=0, dtype=torch.float64):
    noise = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=noise, dtype=dtype)

    u, delta = normal(batch, channels, tokens), normal(batch, channels, tokens).abs()
    A, B, C = -normal(channels, states).exp(), normal(batch, states, tokens), normal(batch, states, tokens)
    return [u, delta, A, B, C, normal(channels)]


def by_definition(u, delta, A, B, C, D=None):
    state, outputs = 0, []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = (step * A).exp() * state + step * B[:, None, :, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    output = torch.stack(outputs, 2)
    return output if D is None else output + D[:, None] * u


def gradients(function, given, weights):
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    return torch.autograd.grad((function(*leaves) * weights).sum(), leaves)


@pytest.mark.parametrize("tokens", [1, 2, 5, 64, 131])
@pytest.mark.parametrize("skip", [False, True])
def test_the_scan_and_its_gradients_are_those_of_the_definition(tokens, skip):
    given = drawn(tokens=tokens)[: 6 if skip else 5]
    weights = torch.randn(given[0].shape, dtype=torch.float64)
    torch.testing.assert_close(selective_scan(*given), by_definition(*given), rtol=1e-12, atol=1e-12)
    pairs = zip(gradients(selective_scan, given, weights), gradients(by_definition, given, weights), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("values", [1, 200])
def test_chunks_do_not_show(monkeypatch, values):
    given = drawn(tokens=23)
    weights = torch.randn(given[0].shape, dtype=torch.float64)
    whole, slopes = selective_scan(*given), gradients(selective_scan, given, weights)
    monkeypatch.setattr(scan, "CHUNK_VALUES", values)
    torch.testing.assert_close(selective_scan(*given), whole, rtol=1e-13, atol=1e-13)
    for ours, theirs in zip(gradients(selective_scan, given, weights), slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_backward_scan_is_a_scan_of_the_flipped_sequence():
    given = drawn()
    flipped = [tensor.flip(-1) if tensor.ndim == 3 else tensor for tensor in given]
    found = selective_scan(*given, backward=True)
    torch.testing.assert_close(found, by_definition(*flipped).flip(-1), rtol=1e-12, atol=1e-12)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_VALUES", 1)
    given = [tensor.requires_grad_() for tensor in drawn(tokens=6)]
    assert gradcheck(selective_scan, given)


def test_frozen_weights_leave_the_other_gradients_alone():
    given = drawn()
    u, delta = given[0].requires_grad_(), given[1].requires_grad_()
    weights = torch.randn(u.shape, dtype=torch.float64)
    found = torch.autograd.grad((selective_scan(u, delta, *given[2:]) * weights).sum(), [u, delta])
    for ours, theirs in zip(found, gradients(by_definition, given, weights)[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_strong_decay_over_long_time_stays_finite_in_float32():
    u, delta, A, B, C, D = drawn(tokens=2000, dtype=torch.float32)
    given = [u, delta * 100, A * 100, B, C, D]  # products of decays are far below the least float32
    found = selective_scan(*given)
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(slope).all() for slope in gradients(selective_scan, given, torch.ones_like(u)))
    exact = by_definition(*[tensor.double() for tensor in given])
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_no_decay_is_a_running_sum():
    u, delta, A, B, C, _ = drawn()
    found = selective_scan(u, torch.ones_like(delta), torch.zeros_like(A), torch.ones_like(B), torch.ones_like(C))
    torch.testing.assert_close(found, A.shape[1] * u.cumsum(2))


def test_views_are_taken_and_inputs_left_alone():
    given = drawn()
    copies = [tensor.clone() for tensor in given]
    flipped = [t.flip(-1) if t.ndim == 3 else t for t in given]
    views = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in flipped]
    torch.testing.assert_close(selective_scan(*views), by_definition(*flipped))
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        selective_scan(*drawn(dtype=torch.float32)[:4], drawn(dtype=torch.float32)[4].to(dtype))


@pytest.mark.parametrize("place", range(1, 6))
def test_shapes_that_do_not_belong_together_are_named(place):
    given = drawn()
    given[place] = given[place][..., :-1]
    with pytest.raises(ValueError, match=r"has shape .* expected"):
        selective_scan(*given)


def test_a_single_sequence_is_refused():
    with pytest.raises(ValueError, match=r"u\[None\]"):
        selective_scan(*[t[0] if t.ndim == 3 else t for t in drawn()])
