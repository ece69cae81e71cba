"""What a row says it suits is what it can explain: every method on a tiny model of every family."""

from copy import deepcopy
from dataclasses import replace

import decoders
import numpy as np
import pytest
import tiny
import torch
import torchvision

from xai_utils import methods, models
from xai_utils.methods import METHODS, suits
from xai_utils.methods.attention import attcat
from xai_utils.metrics.agreement import spearman
from xai_utils.models import Preprocessing

FAMILIES = ("bert", "roberta", "distilbert", "timm-vit", "timm-distilled", "resnet", "vim", "closed")
EMPTY = "every score is zero"  # of this input: no fault of the pair


def torchvision_vit(dtype=torch.float64):
    torch.manual_seed(0)
    built = torchvision.models.VisionTransformer(
        image_size=tiny.SIDE, patch_size=tiny.PATCH, num_layers=3, num_heads=4, hidden_dim=24, mlp_dim=40, num_classes=5
    )
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.to(dtype).eval()


def pixels(count=2, dtype=torch.float64):
    noise = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, tiny.SIDE, tiny.SIDE, generator=noise, dtype=torch.float64).to(dtype)


def of(family):
    return tiny.attention_classifier() if family == "closed" else tiny.model(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_method_explains_what_it_suits_and_refuses_the_rest_by_its_reason(family):
    model, sample = of(family), tiny.samples("bert" if family == "closed" else family)[0]
    for name, method in METHODS.items():
        reason = method.suits(model)
        if reason:
            assert reason.endswith(".") and len(reason) > 20
            with pytest.raises(TypeError, match="cannot explain"):
                methods.explain(name, model, sample)
            continue
        try:
            found = methods.explain(name, model, sample, 1 if method.asks else None)
        except ValueError as error:
            assert EMPTY in str(error) or "has no stage" in str(error), f"{name} on {family}: {error}"
        else:
            assert len(found.scores) == len(found.labels) and found.method == name
    assert methods.methods_for(model) == tuple(name for name in METHODS if not METHODS[name].suits(model))


def test_reasons_name_another_way():
    assert "mamba_attribution" in suits.weighs(tiny.model("vim"))
    assert "attention_gradcam" in suits.convolves(tiny.model("bert"))
    assert "Grad-CAM" in suits.attends(tiny.model("resnet"))
    assert "closed_attention" in suits.attends(tiny.attention_classifier())
    bare = models.Model("bare", tiny.module("bert").bert, (), 3, 0, tiny.tokenizer(), None, "")
    assert "minilm-sst2" in suits.answers(bare)


def test_two_methods_of_one_model_never_share_a_name():
    names = list(METHODS)
    assert len(names) == len(set(names))
    formulas = [(one.score or one.passes or one.maps) for one in METHODS.values()]
    told = [(getattr(one, "func", one), getattr(one, "args", ())) for one in formulas]
    assert len(told) == len(set(told)), "one formula under two names"


# Tensors of one's own


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_torchvision_vit_is_explained_from_tensors_in_its_own_precision(dtype):
    module = torchvision_vit(dtype)
    model, given = models.wrap(module, prefix=1, name="vit"), {"x": pixels(dtype=dtype)}
    before = module(given["x"])
    for name in methods.methods_for(model):
        if name in ("full_lrp", "attention_gradcam"):
            continue
        one, other = methods.explain(name, model, given, [1, 2] if METHODS[name].asks else None)
        alone = methods.explain(name, model, {"x": given["x"][1:]}, 2 if METHODS[name].asks else None)[0]
        if name != "random":  # whose noise hangs on the number of a nameless sample
            torch.testing.assert_close(
                other.scores, alone.scores, rtol=1e-3, atol=1e-10 if dtype.itemsize == 8 else 1e-5
            )
        assert one.grid == tiny.GRID and len(one.scores) == 16
    assert torch.equal(module(given["x"]), before) and "forward" not in vars(module.encoder.layers[0].self_attention)


def test_attention_of_torchvision_is_torchs_own():
    module, given = torchvision_vit(), pixels()
    model = models.wrap(module, prefix=1)
    seen = methods.observe(model, {"x": given}, 1)
    layer = module.encoder.layers[0]
    tokens = torch.cat([module.class_token.expand(2, -1, -1), module._process_input(given)], 1)
    entering = layer.ln_1(tokens + module.encoder.pos_embedding)
    _, maps = layer.self_attention(entering, entering, entering, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(seen.attention[0], maps.detach())
    torch.testing.assert_close(seen.logits, module(given).detach())
    assert seen.gradient.abs().sum(dim=(1, 2, 3, 4)).min() > 0


def test_relevance_of_pixels_follows_the_precision_of_the_model():
    how = Preprocessing(tiny.SIDE, tiny.SIDE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    for dtype in (torch.float64, torch.float32):
        model = models.wrap(tiny.module("timm-vit", dtype=dtype), preprocessing=how, prefix=1)
        own = methods.explain("full_lrp", model, {"x": pixels(dtype=dtype).clamp(-1, 1)}, 1)
        named = methods.explain("full_lrp", model, tiny.samples("timm-vit")[0], 1)
        assert own[0].scores.dtype == named.scores.dtype == torch.float64  # these rules run in double by themselves
        assert np.isclose(float(named.scores.sum()), named.details["relevance_by_depth"][0], rtol=0.5)


def test_ids_of_ones_own_are_what_the_tokenizer_gives():
    model = tiny.model("bert")
    batch = models.encode(model, tiny.SENTENCES)
    own = methods.explain("gradient_x_input", model, dict(batch.inputs), 1)
    for found, named in zip(own, methods.explain("gradient_x_input", model, tiny.SENTENCES, 1), strict=True):
        torch.testing.assert_close(found.scores, named.scores)
        assert found.labels == named.labels
    left_out = methods.explain("leave_one_out", model, dict(batch.inputs), 1)
    named = methods.explain("leave_one_out", model, tiny.SENTENCES, 1)
    torch.testing.assert_close(left_out[1].scores, named[1].scores)
    nameless = models.wrap(tiny.module("bert"), name="nameless")
    assert nameless.kind == "text"
    assert methods.explain("rollout", nameless, dict(batch.inputs))[1].labels[0] == str(model.tokenizer.cls_token_id)


IDS = torch.tensor([[1, 5, 6, 2], [1, 5, 2, 0]])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "at least one; got none"),
        ({"input_ids": IDS[:0]}, "at least one"),
        ({"input_ids": IDS, "attention_mask": IDS[:1]}, "one number of samples"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0]])}, "padding behind"),
        ({"input_ids": IDS[0]}, "expected both"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        methods.explain("rollout", tiny.model("bert"), given)


def test_pixels_that_do_not_fit_are_refused():
    model = models.wrap(torchvision_vit(), prefix=1, name="vit")
    for wrong, said in (
        (pixels(dtype=torch.float32), r"x is torch.float32 .* takes torch.float64"),
        (pixels()[0], "sample, channel, row"),
        (pixels() / 0, "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=said):
            methods.explain("rollout", model, {"x": wrong})
    with pytest.raises(ValueError, match=r"training mode.*call \.eval"):
        models.wrap(torchvision_vit().train())


# AttCAT for classifiers


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_attcat_of_a_classifier_is_its_sum_over_layers(name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    seen = methods.observe(model, [sample], 1)
    view, total = seen.view(0), 0
    for layer in range(tiny.BLOCKS):
        share = (view.states[layer] * view.state_gradients[layer]).sum(-1)
        total = total + view.attention[layer].mean(0)[0] * share
    torch.testing.assert_close(attcat(view)[0], total)
    torch.testing.assert_close(methods.attribute("attcat", seen).scores, total[tiny.PREFIX.get(name, 0) :])
    received = attcat(view, "received")[0]
    assert (received - total).abs().max() > 1e-4
    with pytest.raises(ValueError, match="weight is 'loud'"):
        attcat(view, "loud")


HALF = ("bert", "timm-vit", "resnet", "llama", "gpt2-lm", "mamba")


def in_precision(family, dtype):
    model = decoders.causal(family.removesuffix("-lm")) if family in ("llama", "gpt2-lm", "mamba") else of(family)
    return replace(model, module=deepcopy(model.module).to(dtype))


@pytest.mark.parametrize("family", HALF)
def test_in_half_precision_a_method_ranks_as_in_single_or_says_that_it_needs_more(family):
    single, half = (in_precision(family, dtype) for dtype in (torch.float32, torch.bfloat16))
    some = tiny.samples("bert" if single.kind == "text" else family, 3)
    refused = set(methods.methods_for(single)) - set(methods.methods_for(half))
    for name in refused:
        with pytest.raises(
            TypeError, match=rf"{name} cannot explain .*needs more digits than bfloat16.*dtype='float32'"
        ):
            methods.explain(name, half, some, 1 if METHODS[name].asks else None)
    assert refused == {name for name in methods.methods_for(single) if family == "mamba" or not METHODS[name].half}
    for name in methods.methods_for(half):
        if METHODS[name].family in ("null", "closed form"):
            continue
        try:
            exact = methods.explain(name, single, some, 1 if METHODS[name].asks else None)
        except ValueError as error:
            assert EMPTY in str(error), error
            continue
        rough = methods.explain(name, half, some, 1 if METHODS[name].asks else None)
        agreed = [float(spearman(one.scores, other.scores)) for one, other in zip(exact, rough, strict=True)
                  if np.ptp(one.scores.numpy()) > 1e-3 * float(one.scores.abs().max())]  # fmt: skip
        assert not agreed or np.median(agreed) > 0.9, f"{name}: {agreed}"
        assert all(one.scores.dtype in (torch.float32, torch.float64) for one in rough)
