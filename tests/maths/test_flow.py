"""Attention flow: known structure, then a slow solver, then the published code's numbers, then refusals."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

from xai_utils.maths import flow as module
from xai_utils.maths.flow import flow, flow_bound, flow_shares
from xai_utils.maths.rollout import mix

STORED = GOLDEN / "flow.npz"
EVERY_PAIR, NO_PAIR = 0, 2**62  # sizes from which the proofs without a solver are tried


def maps(layers, tokens, sharpness=1.0, sink=0.0, seed=0, residual=0.5):
    noise = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(layers, tokens, tokens, generator=noise, dtype=torch.float64)
    logits[..., 0] += sink
    return mix(logits.softmax(-1), residual)


def patchwork(layers, tokens, seed):
    """Mix layers of very different kinds, so that their order and the width of single pipes decide."""
    noise = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(tokens, generator=noise) for _ in range(2)]
    moved = [torch.eye(tokens, dtype=torch.float64)[order] for order in orders]
    even = torch.full((tokens, tokens), 1 / tokens, dtype=torch.float64)
    mild = torch.randn(tokens, tokens, generator=noise, dtype=torch.float64).softmax(-1)
    half = torch.zeros_like(even)  # two groups of tokens that do not read each other
    half[: tokens // 2, : tokens // 2] = half[tokens // 2 :, tokens // 2 :] = 1
    kinds = torch.stack([even, mild, half / half.sum(-1, keepdim=True), *moved])
    drawn = torch.randint(len(kinds), (2, layers), generator=noise)
    share = torch.rand(layers, 1, 1, generator=noise, dtype=torch.float64).mul(2).clamp(max=1)
    return share * kinds[drawn[0]] + (1 - share) * kinds[drawn[1]]


@st.composite
def stacks(draw, min_layers=1, max_layers=5, max_tokens=5):
    layers, tokens = draw(st.integers(min_layers, max_layers)), draw(st.integers(1, max_tokens))
    sharpness = draw(st.sampled_from([0.0, 1.0, 5.0, 80.0]))  # uniform ... nearly one-hot
    sink, residual = draw(st.sampled_from([0.0, 8.0])), draw(st.sampled_from([0.5, 0.0, 0.9]))
    return maps(layers, tokens, sharpness, sink, draw(st.integers(0, 2**31 - 1)), residual)


def oracle(steps, layer=-1, queries=None, inputs=None):
    """Solve every pair with networkx on the graph of all layers."""
    network = nx.DiGraph()
    for level, query, key in steps.nonzero().tolist():
        network.add_edge((level + 1, query), (level, key), capacity=float(steps[level, query, key]))
    network.add_nodes_from((0, token) for token in range(steps.shape[-1]))
    level, everything = layer % len(steps) + 1, range(steps.shape[-1])
    values = [
        [nx.maximum_flow_value(network, (level, query), (0, key)) for key in (inputs or everything)]
        for query in (queries or everything)
    ]
    return torch.tensor(values, dtype=torch.float64)


def flow_from_size(size, *args, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_PIPES", size)
        return flow(*args, **kwargs)


def proved(steps, queries):
    """Count the pairs of :func:`flow` that a solver did not see."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_PIPES", EVERY_PAIR)
        patch.setattr(module, "_solver", lambda graph: lambda source, sink: asked.append(sink) or 0.0)
        flow(steps, queries=queries)
    return len(queries) * steps.shape[-1] - len(asked)


def same(left, right, atol=1e-9):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


# Properties


@settings(deadline=None)
@given(steps=stacks())
def test_flow_stays_below_both_bounds(steps):
    for layer in range(len(steps)):
        amount = flow(steps, layer)
        assert (amount >= 0).all() and (amount <= flow_bound(steps) + 1e-12).all()


@settings(deadline=None)
@given(steps=stacks())
def test_flow_is_at_least_the_widest_single_path(steps):
    widest = steps[0]
    for step in steps[1:]:
        widest = torch.minimum(step[:, :, None], widest[None]).amax(1)
    assert (flow(steps) >= widest - 1e-12).all()


@settings(deadline=None)
@given(steps=stacks())
def test_flow_is_at_least_the_rollout_through_each_last_pipe(steps):
    walk = torch.eye(steps.shape[-1], dtype=steps.dtype)
    for step in steps[1:]:
        walk = step @ walk
    assert (flow(steps) >= torch.minimum(walk[:, :, None], steps[0][None]).sum(1) - 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(steps=stacks(), data=st.data(), size=st.sampled_from([EVERY_PAIR, NO_PAIR]))
def test_renaming_tokens_renames_the_flow(steps, data, size):
    order = torch.tensor(data.draw(st.permutations(range(steps.shape[-1]))))
    renamed = flow_from_size(size, steps[:, order][:, :, order])
    same(renamed, flow_from_size(size, steps)[order][:, order])


@pytest.mark.parametrize(("layers", "tokens"), [(1, 5), (2, 5), (3, 4), (6, 7)])
def test_uniform_attention_treats_all_other_tokens_alike(layers, tokens):
    amount = flow(mix(torch.full((layers, tokens, tokens), 1 / tokens, dtype=torch.float64)))
    off = amount[~torch.eye(tokens, dtype=torch.bool)]
    same(amount.diagonal(), amount[0, 0].expand(tokens))
    same(off, off[0].expand_as(off))
    assert (off <= amount[0, 0] + 1e-12).all()


@settings(deadline=None)
@given(steps=stacks(min_layers=2))
def test_layers_above_the_source_do_not_matter(steps):
    assert torch.equal(flow(steps, layer=-2), flow(steps[:-1]))


def test_the_order_of_layers_matters():
    steps = maps(5, 6, sharpness=4.0)
    assert (flow(steps) - flow(steps.flip(0))).abs().max() > 0.1
    assert (flow(steps) - flow(steps.mT / steps.mT.sum(-1, keepdim=True))).abs().max() > 0.1


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_chosen_pairs_are_those_of_the_whole(layer):
    steps, queries, inputs = maps(4, 6, sharpness=4.0), [5, -6, 2], [-1, 3]
    same(flow(steps, layer, queries, inputs), flow(steps, layer)[queries][:, inputs], atol=1e-14)
    same(flow_from_size(EVERY_PAIR, steps, layer, queries, inputs), flow(steps, layer)[queries][:, inputs])


@pytest.mark.parametrize("seed", range(8))
def test_flow_follows_groups_of_tokens_through_every_layer(seed):
    noise = torch.Generator().manual_seed(seed)
    moves = [torch.randperm(3, generator=noise) for _ in range(12)]
    for level in (0, 6, 7):  # here the three tokens of a group share what they read, elsewhere groups only move
        moves[level] = torch.arange(3)
    groups = torch.eye(3, dtype=torch.float64)[torch.stack(moves)]
    alone, mixed = torch.eye(3, dtype=torch.float64), torch.full((3, 3), 1 / 3, dtype=torch.float64)
    steps = torch.stack([torch.kron(g, mixed if k in (0, 6, 7) else alone) for k, g in enumerate(groups)])
    place = 0
    for move in reversed(moves):
        place = int(move[place])
    wanted = torch.zeros(3, 3, dtype=torch.float64)
    wanted[place] = 1
    same(flow_from_size(EVERY_PAIR, steps, queries=[1])[0], wanted.flatten(), atol=1e-12)
    assert proved(steps, [1]) == 3


@pytest.mark.parametrize("size", [EVERY_PAIR, NO_PAIR])
def test_an_input_that_nobody_reads_receives_nothing(size):
    steps = maps(4, 5, residual=0.0)
    steps[..., 2] = 0
    amount = flow_from_size(size, steps / steps.sum(-1, keepdim=True))
    assert (amount[:, 2] == 0).all() and (amount[:, [0, 1, 3, 4]] > 0).all()


def test_deep_flow_through_even_maps_no_longer_depends_on_its_source():
    steps = maps(12, 24)
    same(flow(steps, queries=[0, 7]), flow_bound(steps).expand(2, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_input_is_kept_and_runs_are_equal(dtype):
    steps = maps(4, 6, sharpness=4.0).to(dtype)
    for layer in range(4):
        assert flow(steps, layer).dtype == dtype and torch.equal(flow(steps, layer), flow(steps, layer))
        same(flow(steps, layer).double(), flow(steps.double(), layer), atol=1e-6)


def test_shares_divide_rows_by_their_sums():
    amount = flow(maps(3, 5))
    same(flow_shares(amount).sum(-1), torch.ones(5, dtype=torch.float64), atol=1e-14)
    same(flow_shares(amount)[2] * amount[2].sum(), amount[2], atol=1e-14)


# A slow solver


@settings(max_examples=40, deadline=None)
@given(steps=stacks(max_tokens=4), size=st.sampled_from([EVERY_PAIR, NO_PAIR]))
def test_every_layer_equals_the_slow_solver(steps, size):
    for layer in range(len(steps)):
        same(flow_from_size(size, steps, layer), oracle(steps, layer))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("sharpness", [0.0, 3.0, 20.0])
def test_closed_forms_equal_the_slow_solver(layer, sharpness):
    steps = maps(3, 6, sharpness)
    same(flow(steps, layer), oracle(steps, layer), atol=1e-14)


KINDS = {
    "even": (0.1, 0.0),
    "mild": (1.0, 0.0),
    "peaked": (5.0, 0.0),
    "sink": (1.0, 8.0),
    "one-hot": (80.0, 0.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_proofs_equal_the_slow_solver_on_deep_maps(kind):
    steps = maps(9, 14, *KINDS[kind])
    inputs = [0, 3, 13]
    same(flow_from_size(EVERY_PAIR, steps, queries=[2], inputs=inputs), oracle(steps, -1, [2], inputs))


@pytest.mark.parametrize("layers", [3, 4, 5, 7, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_proofs_equal_the_solver_at_every_depth(kind, layers):
    for residual in (0.5, 0.1):
        steps, queries = maps(layers, 30, *KINDS[kind], seed=layers, residual=residual), [0, 17]
        left, right = (flow_from_size(size, steps, queries=queries) for size in (EVERY_PAIR, NO_PAIR))
        same(left, right, atol=2e-10)


@pytest.mark.parametrize("layers", range(3, 13))
def test_proofs_equal_the_solver_on_layers_of_many_kinds(layers):
    for seed in range(12):
        steps = patchwork(layers, (6, 9, 14, 20)[seed % 4], seed + 100 * layers)
        left, right = (flow_from_size(size, steps, queries=[0, 3, 5]) for size in (EVERY_PAIR, NO_PAIR))
        same(left, right, atol=2e-10)


def carried(layers, supply, demand):
    """Solve for the most that ``layers`` carry from ``supply`` above to ``demand`` below."""
    network = nx.DiGraph()
    for token, (given_above, wanted_below) in enumerate(zip(supply, demand, strict=True)):
        network.add_edge("above", (len(layers), token), capacity=float(given_above))
        network.add_edge((0, token), "below", capacity=float(wanted_below))
    for level, start, end in np.argwhere(layers > 0).tolist():
        network.add_edge((level + 1, start), (level, end), capacity=float(layers[level, start, end]))
    return nx.maximum_flow_value(network, "above", "below")


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", ["sink", "unequal layers"])
def test_parts_of_the_proof_claim_no_more_than_pipes_can_carry(kind, seed):
    noise = np.random.default_rng(seed)
    layers = noise.random((2 + seed % 2, 5, 5))
    if kind == "sink":
        layers *= [5, 1, 1, 1, 1]
        layers /= layers.sum(-1, keepdims=True)
    else:
        layers *= 10 ** noise.uniform(-1, 1, (len(layers), 1, 1))
    supply, demand = noise.random((2, 5, 6)) * np.logspace(-1, 0.3, 6)
    supply *= noise.random(supply.shape) < 0.8
    demand *= supply.sum(0) / demand.sum(0)
    missing = module._link(layers, supply, demand)
    mass, lost = module._carry(layers, supply)
    for given_above, wanted_below, gap, arrived, gone in zip(supply.T, demand.T, missing, mass.T, lost, strict=True):
        assert wanted_below.sum() - gap <= carried(layers, given_above, wanted_below) + 1e-12
        assert abs(given_above.sum() - gone - arrived.sum()) < 1e-12
        upwards = carried(layers.transpose(0, 2, 1)[::-1], given_above, arrived)
        assert abs(upwards - arrived.sum()) < 1e-12


def test_proofs_notice_rows_that_miss_one_by_rounding():
    steps = maps(8, 24)
    steps[-1, 1] = torch.eye(24, dtype=torch.float64)[5]  # all that token 1 reads is token 5 ...
    steps[-2, 5] *= 1 - 5e-5  # ... which hands on a little less than it gets
    amount = flow_from_size(EVERY_PAIR, steps, queries=[1])
    assert float(amount.max()) == pytest.approx(1 - 5e-5, abs=1e-10)
    same(amount, flow_from_size(NO_PAIR, steps, queries=[1]), atol=2e-10)


def test_proofs_spare_the_solver_where_attention_is_not_extreme():
    assert proved(maps(12, 64), [0, 1]) == 128
    assert proved(maps(12, 100, 2.0, 6.0), [0]) > 30
    narrow = maps(12, 64)
    narrow[1, :, 3] /= 4  # what cannot come in above input 3 lowers the bound
    narrow /= narrow.sum(-1, keepdim=True)
    assert flow(narrow, queries=[0])[0, 3] < flow_bound(narrow)[3] - 0.1 and proved(narrow, [0]) == 64
    assert proved(maps(12, 30, 1.0, 12.0), [0]) < 30  # strong sinks keep most inputs below the bound


# The published code


@pytest.fixture(scope="module")
def golden():
    with np.load(STORED) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


@pytest.mark.parametrize("size", [EVERY_PAIR, NO_PAIR])
@pytest.mark.parametrize("kind", ["mod", "peak"])
def test_flow_equals_the_published_numbers(golden, kind, size):
    for graph, wanted in (("aug", "flow_raw"), ("aug_nores", "flow_raw_nores")):
        steps = golden[f"{kind}_{graph}"]
        found = torch.stack([flow_from_size(size, steps, layer) for layer in range(len(steps))])
        same(found, golden[f"{kind}_{wanted}"], atol=1e-8)


@pytest.mark.parametrize("kind", ["mod", "peak"])
def test_shares_equal_the_published_numbers(golden, kind):
    steps = golden[f"{kind}_aug"]
    tokens = steps.shape[-1]
    for layer in range(len(steps)):
        shares = flow_shares(flow(steps, layer))
        here = slice((layer + 1) * tokens, (layer + 2) * tokens)
        # The published function solves down to the inputs but files the result under the layer just below.
        same(shares, golden[f"{kind}_compute_flows"][here, layer * tokens : (layer + 1) * tokens], atol=1e-8)
        same(shares.amax(0), golden[f"{kind}_flow_rel_max"][layer], atol=1e-8)


# Refusals


def spoilt(place, value):
    steps = maps(3, 4)
    steps[place] = value
    return steps


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        (maps(3, 4)[0], "needs maps"),
        (maps(3, 4)[:, :3], "as many queries"),
        (maps(3, 4)[:, None], "of one sample"),
        (spoilt((1, 2, 3), float("nan")), "NaN"),
        (spoilt((1, 2), torch.tensor([1.5, -0.5, 0.0, 0.0])), r"steps\[1\].*smallest entry is -0.5"),
        (2 * maps(3, 4), "rows miss 1 by up to 1"),
    ],
)
def test_what_is_not_a_stack_of_maps_is_refused(steps, what):
    for function in (flow, flow_bound):
        with pytest.raises(ValueError, match=what):
            function(steps)


@pytest.mark.parametrize("wrong", [{"layer": 3}, {"layer": -4}, {"queries": [0, 4]}, {"inputs": [-5]}])
def test_positions_outside_the_graph_are_refused(wrong):
    with pytest.raises(IndexError, match=next(iter(wrong))):
        flow(maps(3, 4), **wrong)


@pytest.mark.parametrize("name", ["queries", "inputs"])
def test_no_position_at_all_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is empty"):
        flow(maps(3, 4), **{name: []})


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match="row of zeros"):
        flow_shares(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="negative"):
        flow_shares(torch.tensor([[0.5, -0.5]]))
