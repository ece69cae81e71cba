"""Passes over batches: the published numbers on whole models, batches against loops, refusals."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from places import GOLDEN
from safetensors.torch import load_file
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from transformers import BertConfig, BertForSequenceClassification

from xai_utils import models
from xai_utils.capture.lrp import lrp_rules
from xai_utils.maths import class_maps
from xai_utils.methods import attribute, explain, relevance
from xai_utils.methods.observation import observe
from xai_utils.models import Model
from xai_utils.models.encoding import Batch, encode
from xai_utils.models.kinds import Preprocessing
from xai_utils.samples import Picture
from xai_utils.survey.families import FAMILIES, save

WHO = pytest.mark.parametrize("who", ["pred", "other"])
OWN = ("transformer_attribution", "full_lrp", "cp_lrp", "attnlrp")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "relevance.npz") as file:
        return {name: file[name] if file[name].dtype.kind == "U" else torch.from_numpy(file[name]) for name in file}


def near(found, expected, share=1e-5):
    """Compare with a number stabilised by 1e-9, as a share of its largest entry."""
    assert (found - expected).abs().max() <= share * expected.abs().max()


def weights(module, name, rename=lambda key: key):
    module.double().load_state_dict(
        {rename(k): value for k, value in load_file(GOLDEN / f"{name}.safetensors").items()}
    )
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vit(golden):
    module = weights(VisionTransformer(**json.loads(str(golden["vit/kwargs_json"]))), "vit_timm")
    # The range of pixels that the original takes: the smallest and greatest value of this picture.
    low, high = float(golden["vit/x"].min()), float(golden["vit/x"].max())
    scale = 1 / (high - low)
    model = Model("golden", module, tuple("abcdefghij"), 4, 1, None,
                  Preprocessing(32, 32, (-low * scale,) * 3, (scale,) * 3), "")  # fmt: skip
    return model, Batch({"x": golden["vit/x"]}, (tuple(str(i) for i in range(16)),), 1, (4, 4))


@WHO
def test_golden_vit(golden, vit, who):
    model, batch = vit
    target, stored = (
        [int(golden[f"vit/class_{who}"])],
        {k[len(f"vit/{who}/") :]: v for k, v in golden.items() if k.startswith(f"vit/{who}/")},
    )
    for aggregate, start, name in (
        ("attribution", 0, "transformer_attribution_start0"), ("attribution", 1, "transformer_attribution_start1"),
        ("rollout", 0, "rollout_start0"), ("rollout", 1, "rollout_start1"),
        ("last_layer", 0, "last_layer"), ("second_layer", 0, "second_layer"),
    ):  # fmt: skip
        ((scores, details),) = relevance.transformer_attribution(model, batch, target, aggregate, start)
        near(scores[1:], stored[name], 1e-6)
        assert details["start"] == start
    found = relevance.propagate(model, batch, target, pixels=True)
    near(torch.stack(found.attention)[:, 0], stored["RA"], 1e-6)
    near(found.hidden[:-1, 0], stored["R_block_in"].sum(-1))
    near(found.pixels[0], stored["full"])
    assert found.readers.tolist() == [[True] + [False] * 16]
    ((scores, _),) = relevance.full_lrp(model, batch, target)
    near(scores[1:].view(4, 4), stored["full"].view(4, 8, 4, 8).sum((1, 3)))


def test_golden_vit_orig_rules_grow(golden, vit):
    model, batch = vit  # whose last LayerNorm has 1e-6 in place of 1e-5
    found = relevance.propagate(model, batch, [int(golden["vit/class_pred"])], "orig")
    near(found.hidden[:-1].sum(-1)[:, 0], golden["vit/orig/R_block_in_sum"])
    near(found.hidden[-1].sum(-1)[0], golden["vit/orig/R_block_out_sum"][-1])


def test_golden_vit_in_single_precision(golden, vit):
    model, batch = vit
    single = Model(
        "single",
        VisionTransformer(**json.loads(str(golden["vit/kwargs_json"]))),
        model.classes,
        4,
        1,
        None,
        model.preprocessing,
        "",
    )
    single.module.load_state_dict(load_file(GOLDEN / "vit_timm.safetensors"))
    single.module.eval().requires_grad_(False)
    batch = Batch({"x": batch.inputs["x"].float()}, batch.labels, 1, batch.grid)
    for who in ("pred", "other"):
        ((scores, _),) = relevance.transformer_attribution(single, batch, [int(golden[f"vit/class_{who}"])])
        assert (scores[1:] - golden[f"vit/{who}/transformer_attribution_start0"]).abs().max() <= 1e-6


@WHO
def test_golden_generic_attention_and_attention_gradcam(golden, vit, who):
    model, batch = vit
    found = relevance.propagate(model, batch, [int(golden[f"vit/class_{who}"])])
    from xai_utils.capture import capture_attention

    with capture_attention(model.module) as trace:
        model.logits(batch.inputs)
    attention, gradient = trace.stack()[:, 0], torch.stack(found.gradient)[:, 0]
    for start in (0, 1):
        maps = class_maps.compose(class_maps.positive_mean(attention, gradient), start)
        near(maps[0, 1:], golden[f"vit/{who}/cls_map_start{start}"], 1e-10)
    cam = class_maps.attention_gradcam(attention[-1, :, 0, 1:], gradient[-1, :, 0, 1:])
    near(cam, golden[f"vit/{who}/cam_attn_unnormalised"], 1e-10)


@pytest.mark.parametrize("masked", ["full", "special"])
@pytest.mark.parametrize("target", range(3))
def test_golden_bert(golden, masked, target):
    module = weights(BertForSequenceClassification(BertConfig(**json.loads(str(golden["bert/config"])))), "bert_seqcls")
    model = Model("golden", module, tuple("abc"), 4, 0, object(), None, "")
    inputs = {"input_ids": golden["bert/input_ids"], "attention_mask": golden[f"bert/mask_{masked}"]}
    batch = Batch(inputs, (("word",) * 10,) * 3)
    runs = {
        "LRP_start0": relevance.transformer_attribution(model, batch, [target] * 3, normalise=True),
        "LRP_startlast": relevance.transformer_attribution(model, batch, [target] * 3, start=3, normalise=True),
        "LRP_last_layer": relevance.transformer_attribution(model, batch, [target] * 3, "last_layer"),
        "full_lrp": relevance.full_lrp(model, batch, [target] * 3),
    }
    for name, found in runs.items():
        for i, (scores, _) in enumerate(found):
            stored = golden[f"bert/s{i}_{masked}_c{target}_{name}"]
            near(scores[1 : len(stored)], stored[1:], 1e-5)  # the original overwrites the score of [CLS]


def test_golden_attnlrp_bert(golden):
    config = BertConfig(**json.loads(str(golden["lxt_bert/config_json"])))
    module = weights(BertForSequenceClassification(config), "bert_hf")
    for target in range(3):
        with lrp_rules(module, "attnlrp") as trace:
            logits = module(input_ids=golden["lxt_bert/input_ids"]).logits
            gradients = torch.autograd.grad(logits[0, target], trace.hidden)
        found = torch.stack([(h * g).sum(-1)[0] for h, g in zip(trace.hidden, gradients, strict=True)])
        near(found, golden[f"lxt_bert/class{target}/R_hidden_tokens"], 1e-9)


NAMES = {
    "class_token": "cls_token", "conv_proj": "patch_embed.proj", "encoder.pos_embedding": "pos_embed",
    "encoder.ln.": "norm.", "heads.head": "head", "encoder.layers.encoder_layer_": "blocks.", "ln_1": "norm1",
    "ln_2": "norm2", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2", "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
}  # fmt: skip


def as_timm(key):
    for theirs, timms in NAMES.items():
        key = key.replace(theirs, timms)
    return key


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [
        ("eps", {}, 1e-10),
        ("gamma_conv0.25_lin0.05", {"gamma": 0.05, "gamma_patches": 0.25, "spare": ("qkv", "proj")}, 1e-6),
        ("gamma_conv100.0_lin1.0", {"gamma": 1.0, "gamma_patches": 100.0, "spare": ("qkv", "proj")}, 1e-6),
    ],
)
def test_golden_cp_vit(golden, name, options, share):
    """The published library sees no linear layers in the attention of torchvision, hence ``spare``."""
    module = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, mlp_ratio=2, num_classes=10
    )
    module = weights(module, "vit_torchvision", as_timm)
    pixels = golden["lxt_vit/x"].clone().requires_grad_()
    with lrp_rules(module, "cp", **options) as trace:
        logits = module(pixels)
        by_pixel, by_token = torch.autograd.grad(
            logits[0, int(golden["lxt_vit/pred/class"])], [pixels, trace.hidden[0]]
        )
    near(logits.detach(), golden["lxt_vit/logits_plain"], 1e-12)
    stored = "lxt_vit/pred/R_pixel_" + ("cplrp_eps" if name == "eps" else name)
    near((pixels * by_pixel)[0].detach(), golden[stored], share)
    if name == "eps":
        near((trace.hidden[0] * by_token)[0].sum(-1).detach(), golden["lxt_vit/pred/R_tokens_cplrp_eps"], share)


@WHO
@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
def test_golden_gradcam(golden, who, layer):
    kwargs = json.loads(str(golden["resnet/kwargs_json"]))
    module = weights(
        ResNet(BasicBlock, layers=kwargs["layers"], channels=kwargs["channels"], num_classes=10), "resnet_timm"
    )
    model = Model("golden", module, tuple("abcdefghij"), 0, 0, None, Preprocessing(64, 64, (0.5,) * 3, (0.5,) * 3), "")
    stored = golden[f"resnet/gradcam/{layer}/{who}/raw_relu_map"]
    side = len(stored)
    batch = Batch({"x": golden["resnet/x"]}, (("patch",) * side**2,), 0, (side, side))
    ((scores, details),) = relevance.gradcam(model, batch, [int(golden[f"resnet/class_{who}"])], layer)
    near(scores.view(side, side), stored, 1e-10)
    assert details == {"layer": layer, "size": (side, side)}


@pytest.mark.parametrize(
    ("family", "stage"),
    [
        ("ResNet", "resnet.encoder.stages.1"),
        ("RegNet", "regnet.encoder.stages.1"),
        ("ConvNeXt", "convnext.encoder.stages.3"),
        ("EfficientNet", "efficientnet.encoder.top_activation"),
        ("PoolFormer", "norm"),
        ("timm ConvNeXt", "norm_pre"),
        ("timm MobileNetV2", "bn2"),
    ],
)
def test_the_last_stage_of_a_convolutional_network_needs_no_name(family, stage, tmp_path):
    model = models.load(save(FAMILIES[family], tmp_path), dtype="float64")
    noise = Picture(np.random.default_rng(1).random((3, 40, 48), dtype=np.float32), "noise", {})
    found, named = explain("gradcam", model, noise), explain("gradcam", model, noise, layer=stage)
    assert found.details["layer"] == stage and found.details["size"] > (1, 1)
    assert torch.equal(found.scores, named.scores)


def test_a_stage_of_one_place_and_a_mixer_of_patches_are_no_grad_cam(tmp_path):
    small = replace(FAMILIES["ConvNeXt"], shape={**FAMILIES["ConvNeXt"].shape, "image_size": 32})
    model = models.load(save(small, tmp_path / "small"))
    with pytest.raises(ValueError, match=r"have one place\. Take larger pictures, or an earlier stage by layer=NAME"):
        explain("gradcam", model, Picture(np.full((3, 32, 32), 0.5, np.float32), "grey", {}))
    mixer = MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=24, num_classes=3).eval()
    model = Model("mixer", mixer, ("a", "b", "c"), None, 0, None, Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3), "")
    with pytest.raises(TypeError, match="does not end in maps of rows and columns"):
        explain("gradcam", model, Picture(np.full((3, 32, 32), 0.5, np.float32), "grey", {}))


# Batches, classes, gradients


@pytest.mark.parametrize("padding", ["equal", "alone"])
def test_texts_of_a_model_that_reads_padding_are_no_batch(padding):
    model, some = replace(tiny.model("bert"), padding=padding), tiny.samples("bert")[:2]
    batch = encode(model, some)
    for call in (relevance.propagate, relevance.full_lrp, partial(relevance.modified_gradient, "cp")):
        with pytest.raises(ValueError, match=r"reads padding, so texts of .* tokens are no batch"):
            call(model, batch, [0, 1])
        assert call(model, encode(model, some[:1]), [0])


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "distilbert", "vit", "timm-vit", "timm-distilled", "timm-registers"]
)
@pytest.mark.parametrize("method", OWN)
def test_a_batch_with_a_class_for_each_gives_what_a_loop_gives(method, name):
    model, samples, classes = tiny.model(name), tiny.samples(name), [2, 0, 1]
    together = explain(method, model, samples, target=classes)
    for found, sample, target in zip(together, samples, classes, strict=True):
        alone = explain(method, model, sample, target)
        assert found.target == alone.target == target
        scale = 1e-9 if name in tiny.TEXT else 3e-4
        torch.testing.assert_close(found.scores, alone.scores, rtol=0, atol=scale * float(alone.scores.abs().max()))


@pytest.mark.parametrize("method", [*OWN, "generic_attention", "gradient_rollout"])
def test_switched_off_gradients_make_no_difference(method):
    model, sample = tiny.model("timm-vit"), tiny.samples("timm-vit")[0]
    expected = explain(method, model, sample, 1)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            torch.testing.assert_close(explain(method, model, sample, 1).scores, expected.scores, rtol=0, atol=0)


def test_two_heads_share_the_relevance_and_are_both_read():
    model = tiny.model("timm-distilled")
    batch = encode(model, tiny.samples("timm-distilled")[:1])
    found = relevance.propagate(model, batch, [1])
    assert found.readers[0].nonzero().flatten().tolist() == [0, 1]
    torch.testing.assert_close(
        found.hidden[-1, 0, :2], torch.tensor([0.5, 0.5], dtype=torch.float64), rtol=0, atol=1e-5
    )
    seen = observe(model, tiny.samples("timm-distilled")[:1], 1)
    maps = class_maps.compose(class_maps.positive_mean(seen.attention[:, 0], seen.gradient[:, 0]))
    torch.testing.assert_close(attribute("generic_attention", seen).scores, maps[:2, 2:].mean(0))


def test_relevance_by_depth_is_reported():
    found = explain("transformer_attribution", tiny.model("bert"), tiny.SENTENCES[0], 1)
    assert len(found.details["relevance_by_depth"]) == tiny.BLOCKS + 1
    assert max(abs(one - 1) for one in found.details["relevance_by_depth"]) < 1e-7
    logit = float(observe(tiny.model("bert"), [tiny.SENTENCES[0]], gradient=False).logits[0, 1])
    depths = explain("cp_lrp", tiny.model("bert"), tiny.SENTENCES[0], 1).details["relevance_by_depth"]
    assert len(depths) == tiny.BLOCKS + 1 and abs(logit) > 1e-3


@pytest.mark.parametrize("method", ["generic_attention", "transformer_attribution"])
def test_what_the_skip_counts_is_reported(method, monkeypatch):
    model, sample = tiny.model("bert"), tiny.SENTENCES[0]
    found = explain(method, model, sample, target=1)
    assert 0 < found.details["skip"] < 1
    inner = relevance.class_maps.positive_mean
    monkeypatch.setattr(relevance.class_maps, "positive_mean", lambda *pair: inner(*pair) * 1e-9)
    assert found.details["skip"] < explain(method, model, sample, target=1).details["skip"] > 1 - 1e-6


def test_levels_and_options_reach_the_rules():
    model, sample = tiny.model("timm-vit"), tiny.samples("timm-vit")[0]
    by_token = explain("cp_lrp", model, sample, 1)
    for options in ({"level": "pixels"}, {"gamma": 0.5}, {"epsilon": 0.5}):
        assert (explain("cp_lrp", model, sample, 1, **options).scores - by_token.scores).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("method", "name", "options", "error", "message"),
    [
        ("transformer_attribution", "bert", {"start": 3}, IndexError, "start is 3, but there are 3"),
        ("transformer_attribution", "bert", {"start": 3, "normalise": True}, IndexError, "start is 3, but there are 3"),
        ("transformer_attribution", "bert", {"aggregate": "sum"}, ValueError, "aggregate is 'sum', expected one of"),
        ("generic_attention", "bert", {"start": -4}, IndexError, "start is -4"),
        ("attention_gradcam", "bert", {"layer": 5}, IndexError, "layer is 5"),
        ("cp_lrp", "bert", {"level": "pixels"}, ValueError, "only pictures have pixels"),
        ("cp_lrp", "vit", {"level": "words"}, ValueError, "level is 'words', expected one of: tokens, pixels"),
        ("attnlrp", "gpt2", {"gamma": 0.1}, TypeError, "no rule for GPT-2's linear maps"),
        ("transformer_attribution", "swin", {}, TypeError, r"windows \(Swin\)"),
        ("gradcam", "timm-vit", {}, TypeError, "no convolutional network"),
        ("gradcam", "bert", {}, TypeError, "reads texts"),
        ("gradcam", "resnet", {"layer": "layer9"}, ValueError, "no stage 'layer9'; its parts are: conv1"),
        ("attnlrp", "bert", {"target": [1, 2]}, ValueError, "2 classes are given for 3 samples"),
        ("full_lrp", "bert", {"target": [1, 2, 3]}, IndexError, "class of tiny bert is 3, but there are 3"),
    ],
)
def test_bad_input_is_refused(method, name, options, error, message):
    with pytest.raises(error, match=message):
        explain(method, tiny.model(name), tiny.samples(name), **options)


@pytest.mark.parametrize("name", ["timm-vit", "timm-distilled"])
def test_every_first_layer_from_one_pass(name):
    model, some = tiny.model(name), tiny.samples(name)
    found = relevance.by_start(model, encode(model, some), [0, 1, 2])
    assert found.shape[:2] == (model.blocks, len(some))
    for start in range(model.blocks):
        alone = explain("transformer_attribution", model, some, [0, 1, 2], start=start)
        for one, scores in zip(alone, found[start, :, model.prefix :], strict=True):
            torch.testing.assert_close(scores, one.scores)
