"""Time methods: rollout against the pass it explains, a batch against a loop, chunks against captum's default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from tests import tiny
from tests.bench.bench_capture import deit, in_turn, row
from xai_utils.maths import rollout
from xai_utils.methods import explain, integrated
from xai_utils.models import Model, Preprocessing
from xai_utils.models.encoding import encode
from xai_utils.samples import Picture, Text
from xai_utils.widgets import attention as explore

CHEAP = 0.05  # of the pass that is explained


def vision_model() -> Model:
    """Wrap DeiT-tiny with random weights."""
    module, _, _ = deit()
    preprocessing = Preprocessing(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Model("deit", module, tuple(map(str, range(1000))), 12, 1, None, preprocessing, "")


def text_model() -> Model:
    """Wrap a BERT of 4 layers and width 256 with random weights."""
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.model_max_length = 512
    config = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=4, hidden_size=256, num_attention_heads=4, intermediate_size=1024
    )
    module = BertForSequenceClassification(config).eval().requires_grad_(False)
    return Model("bert", module, ("negative", "positive"), 4, 0, tokenizer, None, "")


def pictures(count: int) -> list[Picture]:
    """Draw noise."""
    noise = np.random.default_rng(0)
    return [Picture(noise.random((3, 224, 224), dtype=np.float32), str(i), {}) for i in range(count)]


def sentences(count: int, tokens: int) -> list[Text]:
    """Draw sentences of exactly so many tokens."""
    noise = np.random.default_rng(0)
    return [Text(" ".join(noise.choice(tiny.WORDS, tokens - 2))) for _ in range(count)]


def rollout_rows(quick: bool, repeats: int) -> list[dict[str, object]]:
    """Compare rollout, given the maps, with the forward pass that would be explained."""
    count = 8 if quick else 32
    module, _, _ = deit()
    pixels = torch.randn(count, 3, 224, 224)
    noise = torch.Generator().manual_seed(0)
    maps = torch.randn(12, count, 3, 197, 197, generator=noise).softmax(-1)

    def forward() -> None:
        with torch.inference_mode():
            module(pixels)

    row_only, whole = "fuse and rollout_row", "fuse and rollout"
    times = in_turn(
        {
            "forward pass": forward,
            row_only: lambda: rollout.rollout_row(rollout.fuse(maps)),
            whole: lambda: rollout.rollout(rollout.fuse(maps)),
        },
        repeats,
    )
    case = f"rollout, {count} pictures, DeiT-tiny (12 layers, 3 heads, 197 tokens)"
    return [row(case, row_only, "forward pass", times, CHEAP), row(case, whole, "forward pass", times)]


def vit_explain_loop(model: Model, samples: list[Picture], discard: float) -> list[Tensor]:
    """Do what the widely copied script does, picture by picture: fuse, drop, add the skip, normalise, multiply."""
    module: Any = model.module
    found = []
    for sample in samples:
        kept: list[Tensor] = []
        handles = []
        for block in module.blocks:
            block.attn.fused_attn = False
            handles.append(block.attn.attn_drop.register_forward_hook(lambda _m, _a, out, to=kept: to.append(out)))
        with torch.no_grad():
            module(encode(model, [sample]).inputs["x"])
        result = torch.eye(kept[0].shape[-1])
        for attention in kept:
            fused = attention.mean(1)
            flat = fused.view(1, -1)
            _, lowest = flat.topk(int(flat.shape[-1] * discard), -1, False)
            flat[0, lowest[lowest != 0]] = 0
            mixed = (fused + torch.eye(fused.shape[-1])) / 2
            result = (mixed / mixed.sum(-1, keepdim=True)) @ result
        found.append(result[0, 0, 1:])
        for block, handle in zip(module.blocks, handles, strict=True):
            block.attn.fused_attn = True
            handle.remove()
    return found


def batch_rows(quick: bool, repeats: int) -> list[dict[str, object]]:
    """Compare one call for many samples with one call for each, and with the script."""
    model, count = vision_model(), 4 if quick else 16
    samples, discard = pictures(count), 0.9
    theirs = vit_explain_loop(model, samples[:2], discard)
    ours = explain("rollout", model, samples[:2], discard=discard)
    gap = max(float((one.scores - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
    if gap > 1e-5:
        raise AssertionError(f"the two rollouts differ by {gap:.2g}, so their times cannot be compared.")
    batched, loop, script = "explain, one call", "explain, picture by picture", "vit-explain's way, picture by picture"
    plain = {
        batched: lambda: explain("rollout", model, samples, discard=discard),
        loop: lambda: [explain("rollout", model, sample, discard=discard) for sample in samples],
        script: lambda: vit_explain_loop(model, samples, discard),
    }
    graded: dict[str, Callable[[], object]] = {
        batched: lambda: explain("gradient_rollout", model, samples, 0),
        loop: lambda: [explain("gradient_rollout", model, sample, 0) for sample in samples],
    }
    times, graded_times = in_turn(plain, repeats), in_turn(graded, repeats)
    return [
        row(f"rollout, {count} pictures, 90 % discarded", batched, loop, times),
        row(f"rollout, {count} pictures, 90 % discarded", batched, script, times),
        row(f"gradient rollout, {count} pictures", batched, loop, graded_times),
    ]


def integrated_rows(quick: bool, repeats: int) -> list[dict[str, object]]:
    """Compare chunks with captum's default, which sends all steps of all sentences through the model at once."""
    model, count, tokens = text_model(), 8, 32 if quick else 64
    batch = encode(model, sentences(count, tokens))
    targets = [1] * count
    baseline = integrated.without_words(model, batch.inputs["input_ids"])
    module: Any = model.module

    def default() -> Tensor:
        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            return module(input_ids=ids, attention_mask=mask).logits

        method = LayerIntegratedGradients(forward, module.get_input_embeddings())
        given = batch.inputs["input_ids"], baseline
        values = method.attribute(*given, target=1, additional_forward_args=batch.inputs["attention_mask"], n_steps=50)
        return values.sum(-1)

    same, adaptive, theirs = "50 steps in chunks of 32", "steps by completeness (2 %)", "captum's default, 50 steps"
    times = in_turn(
        {
            same: lambda: integrated.gradients(model, batch, targets, steps=50, most_steps=50),
            adaptive: lambda: integrated.gradients(model, batch, targets),
            theirs: default,
        },
        repeats,
    )
    case = f"integrated gradients, {count} sentences of {tokens} tokens, BERT (4 layers, width 256)"
    return [row(case, same, theirs, times), row(case, adaptive, theirs, times)]


def explorer_rows(repeats: int) -> list[dict[str, object]]:
    """Time one movement of the layer slider."""
    lines: list[dict[str, object]] = []
    for what, model, sample in (
        ("a sentence of 16 tokens", text_model(), sentences(1, 16)[0]),
        ("a picture of 196 patches", vision_model(), pictures(1)[0]),
    ):
        controls = explore.attention(model, sample).children[0].children
        by_name = {control.description: control for column in controls for control in column.children}
        for method in ("attention", "rollout"):
            by_name["method"].value = method
            slider = by_name["layer"]

            def move(slider: Any = slider) -> None:
                slider.value = 1 if slider.value == 2 else 2

            times = in_turn({"redraw": move}, 3 * repeats)
            lines.append({"case": f"explorer, {what}, {method}", "ours": "redraw", "seconds": times["redraw"]})
    return lines


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure everything."""
    repeats = 3 if quick else 7
    return [
        *rollout_rows(quick, repeats),
        *batch_rows(quick, 2),
        *integrated_rows(quick, 2),
        *explorer_rows(repeats),
    ]
