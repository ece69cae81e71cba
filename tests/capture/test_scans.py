"""Captured scans give back the mixer's own output; nothing is left behind; refusals."""

from dataclasses import replace

import pytest
import tiny
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from xai_utils import methods, models, samples
from xai_utils.capture.scans import capture_scans, capture_vim
from xai_utils.maths import hidden_attention
from xai_utils.maths.selective_scan import selective_scan

SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "use_cache": False}
IDS = torch.tensor([[3, 7, 1, 9, 4, 2, 8], [5, 5, 2, 6, 1, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
LEFT = torch.tensor([[1] * 7, [0, 0, *[1] * 5]])


def built(kind):
    torch.manual_seed(0)
    if kind == "mamba":
        model = hf.MambaModel(hf.MambaConfig(**SMALL))
    else:
        model = hf.Mamba2Model(hf.Mamba2Config(**SMALL, head_dim=4, num_heads=8, n_groups=2, chunk_size=4))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("mask", [None, MASK, LEFT], ids=["no mask", "right", "left"])
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_the_maps_times_their_inputs_are_the_mixers_own_output(kind, mask):
    model = built(kind)
    with torch.no_grad():
        before = model(IDS, attention_mask=mask)[0]
        with capture_scans(model) as trace:
            torch.testing.assert_close(model(IDS, attention_mask=mask)[0], before, rtol=0, atol=0)
    real = torch.ones(2, 7) if mask is None else mask
    assert len(trace.scans) == 2 and len(trace.streams) == 3 and trace.memory() > 0
    for (scan,), (output,) in zip(trace.scans, trace.outputs, strict=True):
        if kind == "mamba":
            found = torch.einsum("bdij,bdj->bdi", hidden_attention.of_scan(scan, "all", folded=True, mask=mask), scan.u)
        else:
            maps = hidden_attention.hidden_attention(
                scan.delta, scan.A, scan.B, scan.C, "all", hidden_attention.Around(scan.D), mask
            )
            found = torch.einsum("bhij,bhpj->bhpi", maps, scan.u.unflatten(1, (8, 4))).flatten(1, 2)
        miss = ((found - output) * real[:, None]).abs().max()
        assert miss <= 1e-6 * max(1.0, float(output.abs().max()))


def test_convolution_and_activation_are_captured():
    model = built("mamba")
    for layer in model.layers:
        layer.mixer.conv1d.bias.zero_()
    with torch.no_grad(), capture_scans(model) as trace:
        inputs = []
        hook = model.layers[0].mixer.in_proj.register_forward_hook(
            lambda _m, _a, out: inputs.append(out.mT.chunk(2, 1)[0])
        )
        model(IDS)
        hook.remove()
    whole = hidden_attention.of_scan(trace.scans[0][0], "all", True, trace.kernels[0], trace.slopes[0])
    found = torch.einsum("bdij,bdj->bdi", whole, inputs[0])
    torch.testing.assert_close(found, trace.outputs[0][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_gradients_sit_on_the_bare_output_of_the_scans(kind):
    model = built(kind)
    with capture_scans(model) as trace:
        model(IDS)[0][:, -1, 0].sum().backward()
    gradients = trace.scan_gradients()
    assert trace.stream_gradient(0).any() and gradients[0][0].shape == trace.scans[0][0].u.shape
    scale = torch.nn.functional.silu(trace.scans[1][0].gate) if kind == "mamba" else 1
    torch.testing.assert_close(gradients[1][0], trace.outputs[1][0].grad * scale)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_padding_changes_nothing_for_real_tokens():
    model = built("mamba")
    with torch.no_grad(), capture_scans(model) as trace:
        model(IDS, attention_mask=MASK)
        padded = hidden_attention.of_scan(trace.scans[1][0], mask=trace.mask)[1]
        model(IDS[1:, :5])
        alone = hidden_attention.of_scan(trace.scans[1][0])[0]
    torch.testing.assert_close(padded[:5, :5], alone)
    assert not padded[5:].any() and not padded[:, 5:].any()


def test_one_token_is_read_by_itself():
    model = built("mamba")
    with torch.no_grad(), capture_scans(model) as trace:
        model(IDS[:, :1])
    assert hidden_attention.of_scan(trace.scans[0][0]).shape == (2, 1, 1)


def test_what_cannot_be_captured_is_refused():
    model = built("mamba")
    with pytest.raises(TypeError, match="BertModel has no selective scan"), capture_scans(_bert()):
        pass
    with pytest.raises(ValueError, match="training mode"), capture_scans(built("mamba").train()):
        pass
    with pytest.raises(ValueError, match=r"torch.float16.*model.float\(\)"), capture_scans(built("mamba").half()):
        pass
    cache = model(IDS, use_cache=True).cache_params
    with pytest.raises(ValueError, match="goes on from a cache"), capture_scans(model):
        model(IDS[:, :1], cache_params=cache)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _bert():
    return hf.BertModel(
        hf.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).eval()


# Vision Mamba


def test_scans_of_vision_mamba_are_recorded_and_give_the_output_of_their_step():
    model, given = tiny.module("vim"), tiny.inputs("vim")
    plain = model(**given)
    with capture_vim(model) as trace:
        assert torch.equal(model(**given), plain)
    assert [scan.backward for pair in trace.scans for scan in pair] == [False, True] * tiny.BLOCKS
    assert [scan.layer for pair in trace.scans for scan in pair] == [0, 0, 1, 1, 2, 2]
    for pair, outputs in zip(trace.scans, trace.outputs, strict=True):
        for scan, output in zip(pair, outputs, strict=True):
            bare = selective_scan(scan.u, scan.delta, scan.A, scan.B, scan.C, scan.D, scan.backward)
            torch.testing.assert_close(
                output, (bare * torch.nn.functional.silu(scan.gate)).detach(), rtol=0, atol=1e-12
            )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_second_pass_replaces_the_first():
    model = tiny.module("vim")
    with capture_vim(model) as trace:
        for seed in (0, 1):
            model(**tiny.inputs("vim", seed=seed))
    assert len(trace.scans) == tiny.BLOCKS and len(trace.streams) == tiny.BLOCKS + 1


def test_the_gradient_of_a_scan_is_that_of_a_push_at_its_bare_output():
    model, given = tiny.module("vim").requires_grad_(False), tiny.inputs("vim", batch=1)
    with capture_vim(model) as trace:
        tiny.score(model, given).backward()
    for backward in (False, True):
        gradient, scan = trace.scan_gradients()[1][backward], trace.scans[1][backward]
        push = torch.zeros_like(gradient)
        push[0, 5, 7] = 1e-5
        step = model.layers[1].mixer.scan_b if backward else model.layers[1].mixer.scan
        gated = push * torch.nn.functional.silu(scan.gate.detach())
        scores = []
        for sign in (1, -1):
            hook = step.register_forward_hook(lambda _m, _a, out, sign=sign, gated=gated: out + sign * gated)
            scores.append(tiny.score(model, given))
            hook.remove()
        assert abs((scores[0] - scores[1]) / 2e-5 - gradient[0, 5, 7]) < 1e-7


def test_what_cannot_be_recorded_is_refused():
    model = tiny.module("vim")
    with pytest.raises(TypeError, match="no Vision Mamba"), capture_vim(tiny.module("timm-vit")):
        pass
    with pytest.raises(ValueError, match="eval"), capture_vim(model.train()):
        pass
    with pytest.raises(ValueError, match="float32"), capture_vim(model.eval().half()):
        pass


def test_gradients_need_a_backward_pass():
    model, given = tiny.module("vim"), tiny.inputs("vim")
    with capture_vim(model) as trace:
        with pytest.raises(RuntimeError, match="nothing was captured"):
            trace.stream_gradient(0)
        with torch.no_grad():
            model(**given)
        with pytest.raises(RuntimeError, match="without gradients"):
            trace.scan_gradients()
        model(**given)
        with pytest.raises(RuntimeError, match="backward"):
            trace.scan_gradients()


# Checkpoints by the libraries' own loading code


@pytest.fixture
def folder(tmp_path):
    """Write a tiny Mamba as the published ones are laid out: a language model, its tokenizer beside it."""
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = hf.MambaConfig(vocab_size=len(models.load("mamba-recall").tokenizer), hidden_size=16, state_size=4,
                            num_hidden_layers=2, pad_token_id=0)  # fmt: skip
    hf.MambaForCausalLM(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=models.load("mamba-recall").tokenizer.backend_tokenizer,
                            pad_token="[PAD]").save_pretrained(tmp_path)  # fmt: skip
    return tmp_path


def test_a_published_language_model_is_looked_into_without_its_head(folder, monkeypatch):
    text = samples.text("A B * K C")  # the tokenizer adds the mark at the end
    monkeypatch.setitem(models.MODELS, "mamba-130m", replace(models.MODELS["mamba-130m"], source=str(folder)))
    model = models.load("mamba-130m")
    whole = hf.MambaForCausalLM.from_pretrained(folder).eval()
    assert type(model.module).__name__ == "MambaModel" and model.classes == () and model.kind == "text"
    state = {f"backbone.{key}": value for key, value in model.module.state_dict().items()}
    assert state and all(torch.equal(value, whole.state_dict()[key]) for key, value in state.items())
    for name in ("hidden_attention", "hidden_rollout", "unified_attention", "hidden_rollout_published", "rollout"):
        options = {"row": -1} if name == "rollout" else {}
        one = methods.explain(name, models.load(f"hf:{folder}"), text, **options)
        assert len(one.scores) == 6 and torch.equal(one.scores, methods.explain(name, model, text, **options).scores)
    with pytest.raises(TypeError, match="no classifier"):
        methods.explain("mamba_lrp", model, text)


def test_missing_weights_are_named_and_not_made_up(folder):
    state = load_file(folder / "model.safetensors")
    del state["backbone.layers.1.mixer.A_log"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for layers.1.mixer.A_log; they would be random"):
        models.load(f"hf:{folder}")
