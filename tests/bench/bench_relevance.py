"""Time relevance passes: against a plain forward and backward pass, and against relevance one picture at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.bench.bench_capture import eager, graph_from_the_embedding, in_turn, row
from tests.bench.bench_methods import pictures, vision_model
from xai_utils.methods import relevance
from xai_utils.models import Model
from xai_utils.models.encoding import encode

TRANSFORMER_ATTRIBUTION, MODIFIED, ONE_BY_ONE = 4.0, 1.6, 1 / 3  # of a plain pass, twice; of the loop


def split_linear(layer: Any, x: Tensor) -> None:
    """Hand relevance through one linear layer as layer classes do: four products, each with a gradient of its own.

    Half of it is the inhibitor term, which the published code computes and weights by zero.
    """
    for weights in ((0, None), (None, 0)):
        first, second = x.clamp(min=0).requires_grad_(), x.clamp(max=0).requires_grad_()
        outputs = [
            nn.functional.linear(first, layer.weight.clamp(min=weights[0], max=weights[1])),
            nn.functional.linear(second, layer.weight.clamp(min=weights[1], max=weights[0])),
        ]
        share = 1 / (outputs[0] + outputs[1] + 1e-9)
        for part, output in zip((first, second), outputs, strict=True):
            part * torch.autograd.grad(output, part, share, retain_graph=True)[0]


def split_product(left: Tensor, right: Tensor) -> None:
    """Hand relevance through one matrix product by a gradient of its own."""
    left, right = left.detach().requires_grad_(), right.detach().requires_grad_()
    output = left @ right
    for part, gradient in zip(
        (left, right), torch.autograd.grad(output, (left, right), 1 / (output + 1e-9)), strict=True
    ):
        part * gradient / 2


def one_by_one(model: Model, samples: list[Any]) -> None:
    """Do the work of relprop on separate layer classes, picture by picture, skips and norms left out."""
    for sample in samples:
        relprop(model, sample)


def relprop(model: Model, sample: Any) -> None:
    """One forward pass, one plain backward pass, and the linear layers and products once more, layer by layer."""
    module: Any = model.module
    kept: dict[nn.Module, Tensor] = {}
    maps: list[Tensor] = []
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_hook(lambda m, a, _o: kept.update({m: a[0].detach()})) for layer in linear]
    for block in module.blocks:
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _m, _a, out: maps.append(out)))
    with eager(module), graph_from_the_embedding(module):
        logits = model.logits(encode(model, [sample]).inputs)
        torch.autograd.grad(logits[0, 0], maps)
    for handle in handles:
        handle.remove()
    for block, attention in zip(module.blocks, maps, strict=True):
        for layer in (block.mlp.fc2, block.mlp.fc1, block.attn.proj, block.attn.qkv):
            split_linear(layer, kept[layer])
        value = kept[block.attn.proj].unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        split_product(attention, value)
        split_product(value, value.mT)


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure a batch of DeiT-tiny's size."""
    count, repeats = (2, 1) if quick else (16, 3)
    model, samples = vision_model(), pictures(count)
    batch, targets = encode(model, samples), [0] * count

    def plain() -> None:
        with eager(model.module), graph_from_the_embedding(model.module):
            model.logits(batch.inputs)[:, 0].sum().backward()

    ours, loop = "transformer attribution, one batch", "relprop with separate layer classes, picture by picture"
    base = "eager forward + backward"
    works = {
        base: plain,
        ours: lambda: relevance.transformer_attribution(model, batch, targets),
        "CP-LRP": lambda: relevance.modified_gradient("cp", model, batch, targets),
        "AttnLRP": lambda: relevance.modified_gradient("attnlrp", model, batch, targets),
        loop: lambda: one_by_one(model, samples),
    }
    times, case = in_turn(works, repeats), f"relevance, {count} pictures, DeiT-tiny"
    return [
        row(case, ours, base, times, TRANSFORMER_ATTRIBUTION),
        row(case, "CP-LRP", base, times, MODIFIED),
        row(case, "AttnLRP", base, times, MODIFIED),
        row(case, ours, loop, times, ONE_BY_ONE),
    ]
