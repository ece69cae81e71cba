"""Changing states while a model runs: changed in every place that is named, and as before afterwards."""

from functools import partial

import pytest
import tiny
import torch

from xai_utils.capture import capture_attention, intervene
from xai_utils.capture.attention import blocks_of
from xai_utils.maths import densray

KINDS = pytest.mark.parametrize("name", ["bert", "distilbert", "vit", "timm-vit"])


def directions(dtype, seed=0):
    noise = torch.Generator().manual_seed(seed)
    drawn = torch.randn(tiny.BLOCKS + 1, tiny.WIDTH, generator=noise, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1).to(dtype)


def removed(vectors, places=None):
    """Return for every named place the removal of its direction."""
    chosen = range(len(vectors)) if places is None else places
    return {place: partial(densray.remove, vector=vectors[place]) for place in chosen}


def states(model, given):
    """Return what enters each block and leaves the last one, of one pass."""
    with torch.no_grad(), capture_attention(model.module, hidden=True) as trace:
        model.logits(given)
    return trace.hidden


def inputs(name, model):
    return tiny.inputs(name, dtype=next(model.module.parameters()).dtype)


@KINDS
def test_no_state_has_the_direction_inside_and_the_model_is_itself_again(name):
    model = tiny.model(name)
    given, vectors = inputs(name, model), directions(next(model.module.parameters()).dtype)
    before = model.logits(given)
    with intervene.edited(model, removed(vectors)):
        inside, answer = states(model, given), model.logits(given)
    last = densray.project(inside[-1], vectors[-1])
    assert last.abs().max() < 1e-5 < densray.project(states(model, given)[-1], vectors[-1]).abs().max()
    assert (answer - before).abs().max() > 1e-4
    assert torch.equal(model.logits(given), before)
    assert not any(part._forward_pre_hooks for part in model.module.modules())


@KINDS
@pytest.mark.parametrize("layer", [0, 1, tiny.BLOCKS])
def test_only_the_named_layers_are_changed(name, layer):
    model = tiny.model(name)
    given, vectors = inputs(name, model), directions(next(model.module.parameters()).dtype, 1)
    before = states(model, given)
    with intervene.edited(model, removed(vectors, [layer])):
        inside = states(model, given)
    for depth in range(layer):
        torch.testing.assert_close(inside[depth], before[depth])
    assert all((inside[depth] - before[depth]).abs().max() > 1e-6 for depth in range(layer + 1, tiny.BLOCKS + 1))


def test_an_error_inside_takes_the_change_away():
    model = tiny.model("bert")
    given, vectors = inputs("bert", model), directions(torch.float64)
    before = model.logits(given)
    with pytest.raises(ZeroDivisionError), intervene.edited(model, removed(vectors)):
        raise ZeroDivisionError
    assert torch.equal(model.logits(given), before)


@pytest.mark.parametrize("place", [-1, tiny.BLOCKS + 1])
def test_a_place_that_is_not_there_is_refused(place):
    with pytest.raises(ValueError, match=f"no place {place} among {tiny.BLOCKS} blocks; expected 0 to {tiny.BLOCKS}"):
        with intervene.edited(tiny.model("bert"), {place: torch.neg}):
            pass


@pytest.mark.parametrize("name", [*tiny.TEXT, "vit", "timm-vit"])
def test_a_block_that_is_taken_out_hands_on_what_it_gets(name):
    model, seen = tiny.model(name), []
    given, answer = inputs(name, model), tiny.model(name).logits(inputs(name, tiny.model(name)))
    taken = blocks_of(model.module, tiny.BLOCKS)[1]
    keep = taken.register_forward_hook(lambda _m, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True)
    with keep, intervene.without_blocks(model, [1]):
        without = model.logits(given)
    (args, kwargs, out), *_ = seen
    assert torch.equal(out, args[0] if args else kwargs["hidden_states"])
    assert (without - answer).abs().max() > 1e-4 and torch.equal(model.logits(given), answer)
    with intervene.without_blocks(model, range(tiny.BLOCKS)):
        assert (model.logits(given) - answer).abs().max() > 1e-4
    assert torch.equal(model.logits(given), answer)


def test_blocks_are_back_after_an_error_and_must_exist():
    model = tiny.model("bert")
    given = inputs("bert", model)
    answer = model.logits(given)
    with pytest.raises(RuntimeError, match="stop"), intervene.without_blocks(model, [0, -1]):
        raise RuntimeError("stop")
    assert torch.equal(model.logits(given), answer)
    with pytest.raises(IndexError, match=f"block is {tiny.BLOCKS}"), intervene.without_blocks(model, [tiny.BLOCKS]):
        pass
