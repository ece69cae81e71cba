"""Hidden attention: it reproduces the scan, a sum over all steps, the numbers of the published program; refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from strategies import normal, steady
from torch.nn import functional as F

from xai_utils.maths import hidden_attention
from xai_utils.maths.selective_scan import Scan, selective_scan

STORED = np.load(GOLDEN / "mamba.npz")
TOKENS = st.integers(1, 40)


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def golden(name):
    return torch.from_numpy(STORED[name])


def drawn(tokens, batch=2, channels=5, states=4, seed=0, strength=1.0):
    delta = strength * normal(batch, channels, tokens, seed=seed).exp()
    A = -normal(channels, states, seed=seed + 1).exp()
    return delta, A, normal(batch, states, tokens, seed=seed + 2), normal(batch, states, tokens, seed=seed + 3)


def drawn_heads(tokens, batch=2, heads=6, groups=2, states=4, seed=0):
    delta, A = normal(batch, heads, tokens, seed=seed).exp(), -normal(heads, seed=seed + 1).exp()
    return delta, A, normal(batch, groups, states, tokens, seed=seed + 2), normal(batch, groups, states, tokens, seed=4)


def literal(delta, A, B, C):
    """Multiply the decays step by step, one pair and one state at a time."""
    batch, channels, tokens = delta.shape
    out = torch.zeros(batch, channels, tokens, tokens, dtype=torch.float64)
    for i in range(tokens):
        for j in range(i + 1):
            left = torch.ones(batch, channels, A.shape[1], dtype=torch.float64)
            for k in range(j + 1, i + 1):
                left = left * (delta[:, :, k, None] * A).exp()
            out[:, :, i, j] = (C[:, None, :, i] * left * delta[:, :, j, None] * B[:, None, :, j]).sum(-1)
    return out


# Properties


@steady
@given(tokens=TOKENS, strength=st.sampled_from([1e-4, 1.0, 50.0, 1e4]), seed=st.integers(0, 99))
def test_it_reproduces_the_scan_however_strong_the_decay(tokens, strength, seed):
    scan, u = drawn(tokens, seed=seed, strength=strength), normal(2, 5, tokens, seed=9)
    y = selective_scan(u, *scan)
    found = torch.einsum("bdij,bdj->bdi", hidden_attention.hidden_attention(*scan, "all"), u)
    torch.testing.assert_close(found, y, rtol=1e-11, atol=1e-11 * float(y.abs().max()))


@steady
@given(tokens=st.integers(1, 14), elements=st.sampled_from([1, 300, 1 << 20]))
def test_slices_and_levels_do_not_show(tokens, elements):
    scan = drawn(tokens)
    every = literal(*scan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_attention, "ELEMENTS", elements)
        same(hidden_attention.hidden_attention(*scan, "all"), every)
        same(hidden_attention.hidden_attention(*scan), every.mean(1))
        same(hidden_attention.hidden_attention(*scan, "absolute"), every.abs().mean(1))
        same(hidden_attention.hidden_attention(*scan, "positive"), every.clamp(min=0).mean(1))
        for position in (0, tokens // 2, -1):
            same(hidden_attention.hidden_row(*scan, position), every[:, :, position])


@pytest.mark.parametrize("tokens", [1, 2, 3, 31])
@pytest.mark.parametrize("folded", [(), ("gate",), ("slope",), ("gate", "slope")])
def test_the_whole_block_is_folded_in(tokens, folded):
    scan, u = drawn(tokens), normal(2, 5, tokens, seed=9)
    kernel, skip, gate = normal(5, 4), normal(5, seed=1), normal(2, 5, tokens, seed=5)
    slope = normal(2, 5, tokens, seed=6)
    around = hidden_attention.Around(
        skip, gate if "gate" in folded else None, kernel, slope if "slope" in folded else None
    )
    x = F.conv1d(u, kernel[:, None], padding=3, groups=5)[..., :tokens] * (slope if "slope" in folded else 1)
    y = selective_scan(x, *scan, skip) * (gate if "gate" in folded else 1)
    every = hidden_attention.hidden_attention(*scan, "all", around)
    same(torch.einsum("bdij,bdj->bdi", every, u), y, 1e-11)
    same(hidden_attention.hidden_attention(*scan, "mean", around), every.mean(1))
    same(hidden_attention.hidden_attention(*scan, "absolute", around), every.abs().mean(1))


@steady
@given(tokens=TOKENS, seed=st.integers(0, 99))
def test_mamba_2_is_a_mamba_1_with_one_decay_a_head(tokens, seed):
    delta, A, B, C = drawn_heads(tokens, seed=seed)
    found = hidden_attention.hidden_attention(delta, A, B, C, "all")
    for head in range(6):
        one = (delta[:, [head]], A[[head], None].expand(1, 4), B[:, head // 3], C[:, head // 3])
        same(found[:, [head]], literal(*one) if tokens < 9 else hidden_attention.hidden_attention(*one, "all"), 1e-11)
    same(hidden_attention.hidden_attention(delta, A, B, C), found.mean(1))


@pytest.mark.parametrize("convolved", [False, True])
def test_gate_and_convolution_of_a_mamba_2_head_are_means_over_its_channels(convolved):
    delta, A, B, C = drawn_heads(7)
    gate, kernel = normal(2, 12, 7), normal(12, 4) if convolved else None
    found = hidden_attention.hidden_attention(delta, A, B, C, "all", hidden_attention.Around(normal(6), gate, kernel))
    for head in range(6):  # as two channels of a Mamba-1
        some = slice(2 * head, 2 * head + 2)
        one = delta[:, [head, head]], A[[head, head], None].expand(2, 4), B[:, head // 3], C[:, head // 3]
        around = hidden_attention.Around(
            normal(6)[[head, head]], gate[:, some], None if kernel is None else kernel[some]
        )
        same(found[:, head], hidden_attention.hidden_attention(*one, "mean", around))
    sizes = hidden_attention.hidden_attention(
        delta, A, B, C, "absolute", hidden_attention.Around(normal(6), gate, kernel)
    )
    same(sizes, found.abs().mean(1))


def test_padding_neither_reads_nor_is_read():
    scan, mask = drawn(6), torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0]])
    found, bare = hidden_attention.hidden_attention(*scan, mask=mask), hidden_attention.hidden_attention(*scan)
    same(found[0], bare[0])
    same(found[1, 2:5, 2:5], bare[1, 2:5, 2:5])
    assert found[1].count_nonzero() == 6  # 3 real tokens: 3 x 4 / 2 pairs
    assert hidden_attention.hidden_attention(*scan, "all", mask=mask)[1, :, :2].count_nonzero() == 0


def test_a_backward_scan_reads_later_tokens():
    delta, A, B, C = drawn(6)
    scan = Scan(normal(2, 5, 6), delta, A, B, C, normal(5), normal(2, 5, 6, seed=2), backward=True)
    found = hidden_attention.of_scan(scan, "all", folded=True)
    y = selective_scan(*(one.flip(-1) for one in (scan.u, delta)), A, B.flip(-1), C.flip(-1), scan.D).flip(-1)
    same(torch.einsum("bdij,bdj->bdi", found, scan.u), y * F.silu(scan.gate))
    assert not found.tril(-1).any() and found.triu(1).any()


def test_float32_is_as_exact_as_its_scan():
    scan = tuple(one.float() for one in drawn(197, channels=32, states=16, strength=0.05))
    found = torch.einsum(
        "bdij,bdj->bdi", hidden_attention.hidden_attention(*scan, "all"), u := normal(2, 32, 197).float()
    )
    exact = selective_scan(u.double(), *(one.double() for one in scan))
    assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_half_precision_is_computed_in_single():
    scan = tuple(one.half() for one in drawn(9, strength=0.1))
    found = hidden_attention.hidden_attention(*scan)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, hidden_attention.hidden_attention(*(one.float() for one in scan)))


def test_half_life():
    A = torch.tensor([[-1, -2], [-10, 0]], dtype=torch.float64)
    delta = torch.full((1, 2, 5), 0.1, dtype=torch.float64)
    wanted = math.log(2) * torch.tensor([[10, 5], [1, torch.inf]], dtype=torch.float64)
    torch.testing.assert_close(hidden_attention.half_life(delta, A)[0], wanted)
    assert hidden_attention.half_life(delta, A[:, 0]).shape == (1, 2)


# Golden numbers of the authors' code


def published(prefix=""):
    delta = F.softplus(golden(f"{prefix}delta") + golden(f"{prefix}delta_bias")[:, None])
    return delta, golden(f"{prefix}A"), golden(f"{prefix}B")[:, 0], golden(f"{prefix}C")[:, 0]


def test_the_published_matrix():
    every = hidden_attention.hidden_attention(*published(), "all")
    same(every, golden("attn_full_f64"))
    same(hidden_attention.hidden_attention(*published()), golden("attn_mean"))
    same(torch.einsum("bdij,bdj->bdi", every, golden("u")), golden("scan_ref_y_f64"))
    around = hidden_attention.Around(golden("D_skip"), F.silu(golden("z")))
    gated = hidden_attention.hidden_attention(*published(), "all", around)
    same(torch.einsum("bdij,bdj->bdi", gated, golden("u")), golden("scan_ref_yDz_f64"))


def test_the_true_row_of_the_class_token():
    same(hidden_attention.hidden_row(*published("row98/"), 98), golden("row98/true_row"))


def test_the_published_row_is_that_of_a_reader_whose_own_step_is_zero():
    delta, *given = published("row98/")
    delta = delta.clone()
    delta[..., 98] = 0
    same(hidden_attention.hidden_row(delta, *given, 98), golden("row98/orig"))


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s[0][0], *s[1:]), r"delta has shape \(5, 6\).*delta\[None\]"),
        (lambda s: (-s[0], *s[1:]), "apply bias and softplus first"),
        (lambda s: (s[0], -s[1], *s[2:]), r"pass -exp\(A_log\), not A_log"),
        (lambda s: (s[0], s[1], s[2].mT, s[3]), r"B has shape \(2, 6, 4\); expected \(2, 4, 6\)"),
        (lambda s: (s[0], s[1], s[2], s[3][:1]), "C has shape"),
        (lambda s: (s[0] * torch.nan, *s[1:]), "delta holds 60 of 60 values that are NaN"),
        (lambda s: (s[0][:, :, :0], s[1], s[2][:, :, :0], s[3][:, :, :0]), "nothing empty"),
        (lambda s: (s[0], s[1][:, 0], s[2], s[3]), r"B has shape \(2, 4, 6\); expected \(2, 1, -1, 6\)"),
    ],
)
def test_what_is_no_scan_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        hidden_attention.hidden_attention(*change(drawn(6)))


def test_options_that_do_not_fit_are_refused():
    scan = drawn(6)
    with pytest.raises(ValueError, match="channels is 'max', expected one of: mean"):
        hidden_attention.hidden_attention(*scan, "max")
    with pytest.raises(ValueError, match="mask has shape"):
        hidden_attention.hidden_attention(*scan, mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match="gate or slope has shape"):
        hidden_attention.hidden_attention(*scan, around=hidden_attention.Around(gate=torch.ones(2, 6, 5)))
    with pytest.raises(ValueError, match="a single row is for Mamba-1"):
        hidden_attention.hidden_row(*drawn_heads(6), 0)
    with pytest.raises(IndexError, match="position is 6"):
        hidden_attention.hidden_row(*scan, 6)
