"""Time what capture adds to a pass: models of real size with random weights, from timm and from transformers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from xai_utils.capture import capture_attention

LIMIT = 1.3  # of a plain pass


def in_turn(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all in turn, once to warm up and then ``repeats`` times; return the median processor time of each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begun = time.process_time()
            work()
            if turn:
                times[name].append(time.process_time() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def row(case: str, ours: str, theirs: str, times: dict[str, float], target: float | None = None) -> dict[str, object]:
    """Make one line of the table; ``ours`` and ``theirs`` are names in ``times``."""
    return {
        "case": case, "ours": ours, "compared with": theirs, "seconds": times[ours], "theirs (s)": times[theirs],
        "ratio": times[ours] / times[theirs], "target": target,
    }  # fmt: skip


def deit(quick: bool = False) -> tuple[nn.Module, dict[str, Tensor], str]:
    """Build DeiT-tiny with random weights, and a batch of pictures."""
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval().requires_grad_(False)
    batch = 2 if quick else 8
    return model, {"x": torch.randn(batch, 3, 224, 224)}, f"DeiT-tiny (timm), {batch} pictures"


def bert(quick: bool = False) -> tuple[nn.Module, dict[str, Tensor], str]:
    """Build a BERT of MiniLM's size with random weights, and a batch of sentences."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536)
    model = BertForSequenceClassification(config).eval().requires_grad_(False)
    batch, tokens = (2, 64) if quick else (8, 128)
    ids = torch.randint(1000, 20_000, (batch, tokens))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, given, f"BERT of MiniLM's size (transformers), {batch} x {tokens} tokens"


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Switch to attention that is written out, as anyone must who wants the maps, and record nothing."""
    if isinstance(model, PreTrainedModel):
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        yield
        model.set_attn_implementation(before)
    else:
        for block in model.blocks:
            block.attn.fused_attn = False
        yield
        for block in model.blocks:
            block.attn.fused_attn = True


@contextmanager
def graph_from_the_embedding(model: nn.Module) -> Iterator[None]:
    """Let the gradients of a frozen model begin at its first embedding, where capture lets them begin."""
    first = next(module for module in model.modules() if isinstance(module, (nn.Embedding, nn.Conv2d)))
    handle = first.register_forward_hook(lambda _module, _args, output: output.detach().requires_grad_())
    yield
    handle.remove()


def score(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    """Return the sum of the first logit."""
    output = model(**given)
    return (output if isinstance(output, Tensor) else output.logits)[:, 0].sum()


def both_ways(model: nn.Module, given: dict[str, Tensor], case: str, repeats: int) -> list[dict[str, object]]:
    """Time forward passes, then forward and backward passes."""

    def fused() -> None:
        with torch.no_grad():
            score(model, given)

    def plain() -> None:
        with torch.no_grad(), eager(model):
            score(model, given)

    def captured() -> None:
        with torch.no_grad(), capture_attention(model) as trace:
            score(model, given)
            trace.stack()

    def plain_backward() -> None:
        with eager(model), graph_from_the_embedding(model):
            score(model, given).backward()

    def captured_backward() -> None:
        with capture_attention(model) as trace:
            score(model, given).backward()
            trace.stack(), trace.stack_grad()

    forward = in_turn({"capture": captured, "eager forward": plain, "fused forward": fused}, repeats)
    backward = {"capture": captured_backward, "eager forward + backward, frozen, from the embedding": plain_backward}
    times = in_turn(backward, repeats)
    return [
        row(f"forward, {case}", "capture", "eager forward", forward, LIMIT),
        row(f"forward, {case}", "capture", "fused forward", forward),
        row(f"forward and backward, {case}", *backward, times, LIMIT),
    ]


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure both libraries."""
    repeats = 3 if quick else 9
    return [line for build in (deit, bert) for line in both_ways(*build(quick), repeats)]
