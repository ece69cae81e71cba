"""Time what capture adds to a pass: models of real size with random weights, from timm and from transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from tests.bench.measure import DEVICE, Against, Row, in_turn, named, peak
from xai_utils.capture import capture_attention

LIMIT = 1.3  # of a plain pass


def deit(quick: bool = False) -> tuple[nn.Module, dict[str, Tensor], str]:
    """Build DeiT-tiny with random weights, and a batch of pictures."""
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval().requires_grad_(False).to(DEVICE)
    batch = 2 if quick else 8
    return model, {"x": torch.randn(batch, 3, 224, 224).to(DEVICE)}, f"DeiT-tiny (timm), {batch} pictures"


def bert(quick: bool = False) -> tuple[nn.Module, dict[str, Tensor], str]:
    """Build a BERT of MiniLM's size with random weights, and a batch of sentences."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536)
    model = BertForSequenceClassification(config).eval().requires_grad_(False).to(DEVICE)
    batch, tokens = (2, 64) if quick else (8, 128)
    ids = torch.randint(1000, 20_000, (batch, tokens)).to(DEVICE)
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


def both_ways(model: nn.Module, given: dict[str, Tensor], case: str, repeats: int) -> Iterator[Row]:
    """Time forward passes, then forward and backward passes."""

    def plain() -> None:
        with torch.no_grad(), eager(model):
            score(model, given)

    def library() -> None:
        with torch.no_grad(), eager(model):
            model(**given, output_attentions=True)

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

    works = {"ours": captured, "plain": plain}
    if isinstance(model, PreTrainedModel):
        works["library"] = library
    times = in_turn(works, repeats)
    peer = Against(f"output_attentions of {named('transformers')}", times["library"]) if "library" in times else None
    one = Against("the same pass, maps thrown away", times["plain"], LIMIT)
    yield Row(f"maps of every layer, {case}", times["ours"], one, peer, peak(captured))
    times = in_turn({"ours": captured_backward, "plain": plain_backward}, repeats)
    both = Against("the same two passes", times["plain"], LIMIT)
    yield Row(f"maps and their gradients, {case}", times["ours"], both, None, peak(captured_backward))


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure both libraries."""
    for build in (deit, bert):
        yield from both_ways(*build(quick), 3 if quick else 9)
