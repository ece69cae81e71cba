"""Time methods: rollout against the pass it explains, a batch against a loop, gradients against captum and zennit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from tests import tiny
from tests.bench.bench_capture import deit
from tests.bench.measure import DEVICE, Against, Row, in_turn, left, peak, program
from xai_utils import models, samples
from xai_utils.methods import attribute, explain, integrated, observe, relevance
from xai_utils.models import Model, Preprocessing, encoding
from xai_utils.samples import Picture, Text
from xai_utils.widgets import attention as explore

CHEAP, LEFT = 0.05, 20  # of the pass that is explained; MB that repeats may leave behind
HALF = (0.5, 0.5, 0.5)


def vision_model() -> Model:
    """Wrap DeiT-tiny with random weights."""
    classes, preprocessing = tuple(map(str, range(1000))), Preprocessing(224, 224, HALF, HALF)
    return Model("deit", deit()[0], classes, 12, 1, None, preprocessing, "")


def text_model() -> Model:
    """Wrap a BERT of 4 layers and width 256 with random weights."""
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.model_max_length = 512
    config = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=4, hidden_size=256, num_attention_heads=4, intermediate_size=1024
    )
    module = BertForSequenceClassification(config).eval().requires_grad_(False).to(DEVICE)
    return Model("bert", module, ("negative", "positive"), 4, 0, tokenizer, None, "")


def pictures(count: int) -> list[Picture]:
    """Draw noise."""
    noise = np.random.default_rng(0)
    return [Picture(noise.random((3, 224, 224), dtype=np.float32), str(i), {}) for i in range(count)]


def sentences(count: int, tokens: int) -> list[Text]:
    """Draw sentences of exactly so many tokens."""
    noise = np.random.default_rng(0)
    return [Text(" ".join(noise.choice(tiny.WORDS, tokens - 2))) for _ in range(count)]


def rollouts(quick: bool, repeats: int) -> Iterator[Row]:
    """Compare rollout with the forward pass that it explains: by itself, and with that pass."""
    count, model = 8 if quick else 32, vision_model()
    some = pictures(count)
    batch = encoding.encode(model, some)
    seen = observe(model, some, gradient=False)

    def forward() -> None:
        with torch.inference_mode():
            model.logits(batch.inputs)

    works: dict[str, Callable[[], object]] = {
        "rollout": lambda: attribute("rollout", seen),
        "plain": forward,
        "pass": lambda: explain("rollout", model, some),
    }
    times = in_turn(works, repeats)
    case = f"rollout, {count} pictures, DeiT-tiny"
    yield Row(f"{case}, from its maps", times["rollout"], Against("forward pass", times["plain"], CHEAP))
    yield Row(
        f"{case}, pass included", times["pass"], Against("forward pass", times["plain"]), None, peak(works["pass"])
    )


def batches(quick: bool) -> Iterator[Row]:
    """Compare one call for many samples with one call for each."""
    model, count = vision_model(), 4 if quick else 16
    some = pictures(count)
    for name in ("rollout", "gradient_rollout"):
        works: dict[str, Callable[[], object]] = {
            "ours": lambda name=name: explain(name, model, some, 0),  # type: ignore[misc]
            "loop": lambda name=name: [explain(name, model, sample, 0) for sample in some],  # type: ignore[misc]
        }
        times = in_turn(works, 2)
        yield Row(f"{name}, {count} pictures in one call", times["ours"], Against("one call each", times["loop"]))


def captum_integrates(model: Model, ids: Tensor, mask: Tensor, baseline: Tensor) -> Callable[[], object]:
    """Return captum's integrated gradients as it is called by default: all steps of all sentences at once."""
    from captum.attr import LayerIntegratedGradients

    module: Any = model.module
    method = LayerIntegratedGradients(lambda i, m: module(input_ids=i, attention_mask=m).logits,
                                      module.get_input_embeddings())  # fmt: skip
    return lambda: method.attribute(ids, baseline, target=1, additional_forward_args=mask, n_steps=50).sum(-1)


def integrated_texts(quick: bool, repeats: int) -> Iterator[Row]:
    """Compare integrated gradients of sentences with captum's."""
    model, count, tokens = text_model(), 8, 32 if quick else 64
    batch = encoding.encode(model, sentences(count, tokens))
    ids, mask, targets = batch.inputs["input_ids"], batch.inputs["attention_mask"], [1] * count
    baseline = integrated.without_words(model, ids)
    works: dict[str, Callable[[], object]] = {
        "same": lambda: integrated.gradients(model, batch, targets, steps=50, most_steps=50),
        "adaptive": lambda: integrated.gradients(model, batch, targets),
    }
    name = program("captum", works, lambda: captum_integrates(model, ids, mask, baseline))
    times = in_turn(works, repeats)
    peer, case = (
        Against(f"{name}, 50 steps", times.get(name), 1.0),
        f"integrated gradients, {count} texts of {tokens} tokens",
    )
    yield Row(f"{case}, 50 steps", times["same"], None, peer, peak(works["same"]))
    yield Row(f"{case}, steps until complete (2 %)", times["adaptive"], None, peer, peak(works["adaptive"]))


def zennit_integrates(model: Model, pixels: Tensor, steps: int) -> Callable[[], object]:
    """Return zennit's integrated gradients of class 0 of every picture."""
    from zennit.attribution import IntegratedGradients

    one_hot = torch.eye(len(model.classes), device=DEVICE)[[0]]

    def work() -> None:
        with IntegratedGradients(model.module, n_iter=steps) as attributor:
            for picture in pixels:
                attributor(picture[None].clone(), one_hot)

    return work


def captum_cams(model: Model, pixels: Tensor) -> Callable[[], object]:
    """Return captum's Grad-CAM of class 0."""
    from captum.attr import LayerGradCam

    module: Any = model.module
    method = LayerGradCam(module, module.layer4)
    return lambda: method.attribute(pixels.clone().requires_grad_(), target=0, relu_attributions=True)


def convolutional(quick: bool, repeats: int) -> Iterator[Row]:
    """Compare methods of the bundled ResNet with captum's and zennit's."""
    model, count, steps = models.load("resnet-scenes", DEVICE), 4 if quick else 16, 16
    some = list(samples.scene_pictures(count, 2, 5000))
    batch = encoding.encode(model, some)
    (pixels,) = batch.inputs.values()
    works: dict[str, Callable[[], object]] = {
        "cam": lambda: relevance.gradcam(model, batch, [0] * count),
        "ig": lambda: integrated.gradients(model, batch, [0] * count, steps=steps, most_steps=steps),
    }
    captum = program("captum", works, lambda: captum_cams(model, pixels))
    zennit = program("zennit", works, lambda: zennit_integrates(model, pixels, steps))
    times = in_turn(works, repeats)
    cam, ig = Against(captum, times.get(captum), 1.0), Against(zennit, times.get(zennit), 1.0)
    yield Row(f"Grad-CAM, {count} pictures, resnet-scenes", times["cam"], None, cam, peak(works["cam"]))
    case = f"integrated gradients, {count} pictures, {steps} steps, resnet-scenes"
    yield Row(case, times["ig"], None, ig, peak(works["ig"]))


def sliders(repeats: int) -> Iterator[Row]:
    """Time one movement of the layer slider."""
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

            yield Row(f"layer slider, {what}, {method}", in_turn({"ours": move}, 3 * repeats)["ours"])


def grown(quick: bool) -> Iterator[Row]:
    """Say how much memory is left behind by calling methods again and again; what one call keeps would be seen."""
    model, some = vision_model(), pictures(4)
    for name in ("rollout", "transformer_attribution"):
        explain(name, model, some, 0)
        times = 5 if quick else 30

        def again(name: str = name, times: int = times) -> None:
            for _ in range(times):
                explain(name, model, some, 0)

        yield Row(f"{name}, 4 pictures, {times} times: left behind", memory=left(again), most=LEFT)


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure everything."""
    yield from rollouts(quick, 3 if quick else 7)
    yield from batches(quick)
    yield from integrated_texts(quick, 2)
    yield from convolutional(quick, 2)
    yield from sliders(3 if quick else 7)
    yield from grown(quick)
