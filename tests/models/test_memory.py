"""Batches within a budget, halved when memory runs out."""

import pytest
import tiny
import torch

from tests.bench.measure import left
from xai_utils import models, samples
from xai_utils.methods import explain
from xai_utils.models import memory


def doubled(items):
    return 2 * items


class Card:
    """A device that takes so many items and no more."""

    def __init__(self, room, error):
        self.room, self.error, self.sizes = room, error, []

    def __call__(self, items):
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise self.error
        return items.sum(1)


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("error", [CUDA, CPU, MemoryError()], ids=["GPU", "processor", "Python"])
@pytest.mark.parametrize("room", [1, 2, 5, 8, 100])
def test_a_chunk_is_halved_until_it_fits(error, room):
    items, card = torch.randn(21, 3), Card(room, error)
    assert torch.equal(memory.in_chunks(card, items, 16), items.sum(1))
    fitting = [size for size in card.sizes if size <= room]
    assert sum(fitting) == 21 and max(fitting) > min(room, 16) // 2
    assert len(card.sizes) - len(fitting) <= 4, "it does not fail again at a size that failed before"


def test_one_item_that_does_not_fit_is_an_error():
    with pytest.raises(MemoryError, match="single item"):
        memory.in_chunks(Card(0, CUDA), torch.randn(4, 3), 4)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"):
        memory.in_chunks(Card(0, RuntimeError("shapes do not match")), torch.randn(4, 3), 4)


def test_the_peak_is_what_lives_at_one_time():
    def chain(items):  # three steps; two tensors live at a time, the third step reuses what the first let go
        first = items + 1
        second = first * 2
        del first
        return second.exp()

    assert memory.peak(chain, torch.zeros(10, 100)) == 2 * 10 * 100 * 4
    assert memory.peak(lambda items: items.view(100, 10), torch.zeros(10, 100)) == 0, "a view is no memory"


def test_a_chunk_fills_the_budget():
    items = torch.zeros(64, 250)  # 1000 bytes an item
    assert memory.chunk_size(doubled, items, 10_000) == 10
    assert memory.chunk_size(doubled, items, 10_999) == 10
    assert memory.chunk_size(doubled, items, 1) == 1
    assert memory.chunk_size(doubled, items, 10**9) == 64
    table = torch.ones(1000)

    def with_constant(some):
        return some * table.repeat(2).sum()

    chunk = memory.chunk_size(with_constant, items, 40_000)
    assert 1 < chunk < 40 and memory.peak(with_constant, items[:chunk]) <= 40_000


def test_a_model_stays_within_the_budget():
    model = tiny.model("vit")
    pixels = tiny.inputs("vit", 12, dtype=torch.float32)["pixel_values"]
    with torch.inference_mode():
        chunk = memory.chunk_size(lambda some: model.logits({"pixel_values": some}), pixels, 2**16)
        assert 1 < chunk < 12
        assert memory.peak(lambda some: model.logits({"pixel_values": some}), pixels[:chunk]) <= 2**16
        whole = model.logits({"pixel_values": pixels})
        torch.testing.assert_close(memory.in_chunks(lambda s: model.logits({"pixel_values": s}), pixels, chunk), whole)


@pytest.mark.parametrize("wrong", [{"chunk": 0}, {"items": torch.zeros(0, 2)}])
def test_nothing_to_do_is_an_error(wrong):
    with pytest.raises(ValueError, match="expected at least 1"):
        memory.in_chunks(doubled, **{"items": torch.zeros(3, 2), "chunk": 2, **wrong})


@pytest.mark.parametrize("name", ["gradient_rollout", "attnlrp"])
def test_thirty_repeats_leave_nothing_behind(name):
    """If maps, gradients or hooks of a call were kept, 150 MB and more would be left."""
    model, text = models.load("minilm-sst2"), samples.text("the film is dull , and so is its plot , but " * 6)

    def again(times=30):
        for _ in range(times):
            explain(name, model, text, 0)

    again(2)
    found = left(again)
    assert found is None or found < 40
