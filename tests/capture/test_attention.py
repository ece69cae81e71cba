"""Capture on tiny models of every family: what is recorded, against what it is checked, and that no trace is left."""

import copy
from collections.abc import Iterator

import pytest
import tiny
import torch
import transformers as hf
from timm.layers import Attention
from torch import nn

from xai_utils.capture import capture_attention
from xai_utils.capture.attention import capture_states
from xai_utils.models.encoding import encode

EACH = pytest.mark.parametrize("name", tiny.ALL)
TEXTS = pytest.mark.parametrize("name", tiny.TEXT)
WITH_VALUES = pytest.mark.parametrize("name", [name for name in tiny.ALL if name != "gpt2"])
HF_TOLERANCE = 1e-6  # some transformers models take the softmax in single precision, whatever the model's type


def same(left, right, atol=HF_TOLERANCE):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def captured(model, inputs, index=1, **options):
    """Run forwards and backwards inside a block and return the trace with its stacks."""
    with capture_attention(model, **options) as trace:
        tiny.score(model, inputs, index).backward()
        return trace, trace.stack(), trace.stack_grad()


def state(model: nn.Module) -> dict:
    """Describe everything about a model that capture touches, or might."""
    hooks = [f"_{way}{kind}" for way in ("forward", "backward") for kind in ("_hooks", "_pre_hooks")]
    hooks += ["_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called"]
    about: dict = {"implementation": getattr(getattr(model, "config", None), "_attn_implementation", None)}
    for name, module in model.named_modules():
        about[name] = (
            module.training,
            getattr(module, "fused_attn", None),
            sorted(key for key in vars(module) if not key.startswith("__")),
            [tuple(getattr(module, kind)) for kind in hooks],
        )
    about["gradients"] = {name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}
    about["weights"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return about


def assert_same_state(before: dict, after: dict) -> None:
    weights = before.pop("weights"), after.pop("weights")
    assert before == after
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


class _Keep(nn.Module):
    """Stand where dropout stands and keep what passes."""

    def forward(self, attention):
        self.kept = attention
        return attention


def oracle(model: nn.Module, inputs: dict, index: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Take maps and gradients from a copy without capture: the library's own output, and ``torch.autograd.grad``."""
    model = copy.deepcopy(model).requires_grad_()
    if hasattr(model, "config"):
        model.set_attn_implementation("eager")
        output = model(**inputs, output_attentions=True)
        logits, maps = output.logits, output.attentions
    else:
        blocks = [module for module in model.modules() if isinstance(module, Attention)]
        for block in blocks:
            block.fused_attn, block.attn_drop = False, _Keep()
        logits, maps = model(**inputs), tuple(block.attn_drop.kept for block in blocks)
    gradients = torch.autograd.grad(logits[:, index].sum(), maps)
    return torch.stack(maps).detach(), torch.stack(gradients)


# What is recorded


@pytest.mark.parametrize("name", [*tiny.ALL, "swin"])
def test_every_block_shows_a_probability_map(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    with capture_attention(model, tiny.ATTENTIONS[name]) as trace:
        tiny.score(model, inputs)
    assert len(trace.attention) == tiny.ATTENTIONS[name] and trace.layers == list(range(tiny.ATTENTIONS[name]))
    for attention in trace.attention:
        assert attention.ndim == 4 and (attention >= 0).all() and attention.std() > 0.01
        same(attention.sum(-1), torch.ones_like(attention[..., 0]))


@pytest.mark.parametrize("name", [*tiny.ALL, "swin"])
def test_logits_do_not_change(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    plain = [tiny.score(model, inputs, index) for index in range(3)]
    with capture_attention(model, hidden=name != "swin", values=name not in ("swin", "gpt2")):
        same([tiny.score(model, inputs, index) for index in range(3)], plain)


@EACH
def test_maps_and_gradients_equal_autograd_on_an_eager_copy(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    _, maps, gradients = captured(model, inputs)
    wanted_maps, wanted_gradients = oracle(model, inputs)
    assert maps.shape == wanted_maps.shape and gradients.abs().amax((1, 2, 3, 4)).min() > 1e-3
    same(maps, wanted_maps, atol=1e-12)
    same(gradients, wanted_gradients, atol=1e-12)


@EACH
def test_frozen_models_have_the_same_gradients(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    _, maps, gradients = captured(model, inputs)
    frozen = tiny.module(name).requires_grad_(False)
    trace, again, frozen_gradients = captured(frozen, inputs, hidden=True)
    assert torch.equal(maps, again)
    same(gradients, frozen_gradients, atol=1e-13)
    assert trace.hidden_grad(0).abs().amax((0, 2)).min() > 0
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in frozen.parameters())


@EACH
def test_hidden_states_chain_from_the_embedding_to_the_end(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    with capture_attention(model, hidden=True) as trace:
        tiny.score(model, inputs).backward()
        hidden, gradients = [state.detach() for state in trace.hidden], [trace.hidden_grad(i) for i in range(4)]
    assert len(hidden) == tiny.BLOCKS + 1
    if hasattr(model, "config"):
        wanted = list(model(**inputs, output_hidden_states=True).hidden_states)
        if name == "gpt2":  # the library's last state is behind the final LayerNorm
            hidden[-1] = model.transformer.ln_f(hidden[-1])
    else:
        wanted = model.forward_intermediates(inputs["x"], output_fmt="NLC", return_prefix_tokens=True)[1]
        wanted = [embedded(model, inputs["x"]), *(torch.cat([prefix, rest], 1) for rest, prefix in wanted)]
    same(hidden, [state.detach() for state in wanted], atol=1e-6)
    assert all(gradient.shape == hidden[0].shape and gradient.any() for gradient in gradients)


def embedded(model, pixels):
    """Return what a timm transformer gives its first block."""
    found = []
    handle = model.blocks.register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    model(pixels)
    handle.remove()
    return found[0]


def test_hidden_gradient_is_that_of_the_embedding_output():
    model, inputs = tiny.module("bert"), tiny.inputs("bert")
    with capture_attention(model, hidden=True) as trace:
        tiny.score(model, inputs).backward()
        first = trace.hidden_grad(0)
    states = model.bert.embeddings(inputs["input_ids"]).detach().requires_grad_()
    handle = model.bert.embeddings.register_forward_hook(lambda *_: states)
    (wanted,) = torch.autograd.grad(tiny.score(model, inputs), states)
    handle.remove()
    same(first, wanted, atol=1e-12)


def attention_block(model, layer):
    """Return the module that ends in the output projection, and that projection's bias."""
    if hasattr(model, "blocks"):
        attention = model.blocks[layer].attn
        return attention, attention.proj.bias
    base = model.base_model
    block = (base.layers if hasattr(base, "layers") else base.transformer.layer if hasattr(base, "transformer") else
             base.encoder.layer)[layer].attention  # fmt: skip
    if hasattr(block, "self"):  # BERT family: the projection has the skip connection and a LayerNorm behind it
        return block.output.dense, block.output.dense.bias
    projection = block.o_proj if hasattr(block, "o_proj") else block.out_lin
    return block, projection.bias


@WITH_VALUES
def test_attention_times_values_is_what_the_block_puts_out(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    outputs, biases = [], []
    with capture_attention(model, values=True) as trace:
        handles = []
        for layer in range(tiny.BLOCKS):
            block, bias = attention_block(model, layer)
            biases.append(bias)
            handles.append(
                block.register_forward_hook(
                    lambda _m, _a, out: outputs.append(out[0] if isinstance(out, tuple) else out)
                )
            )
        tiny.score(model, inputs)
        for handle in handles:
            handle.remove()
    assert len(trace.values) == tiny.BLOCKS and trace.values[0].shape == (2, tiny.HEADS, *outputs[0].shape[1:])
    for attention, values, bias, output in zip(trace.attention, trace.values, biases, outputs, strict=True):
        same(torch.einsum("bhqk,bhkw->bqw", attention, values) + bias, output)


# One pass after another, one sample beside another


@EACH
def test_a_batch_gives_what_a_loop_gives(name):
    model, inputs = tiny.module(name), tiny.inputs(name, batch=3)
    _, maps, gradients = captured(model, inputs)
    for i in range(3):
        _, one_map, one_gradient = captured(model, {key: value[i : i + 1] for key, value in inputs.items()})
        same(maps[:, i], one_map[:, 0], atol=2e-7)
        same(gradients[:, i], one_gradient[:, 0], atol=2e-6)


@TEXTS
def test_padding_changes_nothing(name):
    model = tiny.model(name)
    together = encode(model, tiny.SENTENCES[:2])
    assert together.length(0) > together.length(1)
    _, maps, gradients = captured(model.module, together.inputs)
    for i, sentence in enumerate(tiny.SENTENCES[:2]):
        alone, n = encode(model, [sentence]), together.length(i)
        _, one_map, one_gradient = captured(model.module, alone.inputs)
        same(maps[:, i, :, :n, :n], one_map[:, 0])
        same(gradients[:, i, :, :n, :n], one_gradient[:, 0])
        assert (maps[:, i, :, :n, n:] == 0).all()


@EACH
def test_a_second_pass_knows_nothing_of_the_first(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    options = {"hidden": True, "values": name != "gpt2"}

    def read(trace, given):
        tiny.score(model, given).backward()
        return [
            trace.stack(),
            trace.stack_grad(),
            trace.hidden_grad(),
            *(kept.detach() for kept in trace.hidden + trace.values),
        ]

    with capture_attention(model, **options) as trace:
        first, other, again = (read(trace, given) for given in (inputs, tiny.inputs(name, seed=5), inputs))
    with capture_attention(model, **options) as trace:
        later = read(trace, inputs)
    assert len(first) == len(other) == len(again) == len(later)
    for one, different, *equal in zip(first, other, again, later, strict=True):
        assert all(torch.equal(one, two) for two in equal) and not torch.equal(one, different)


@EACH
def test_blocks_may_be_nested(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    before = state(model)
    _, maps, gradients = captured(model, inputs)
    for parameter in model.parameters():
        parameter.grad = None
    model.requires_grad_(False)
    with capture_attention(model) as outer:
        with capture_attention(model, layers=[0]) as inner:
            tiny.score(model, inputs).backward()
            assert torch.equal(inner.stack(), maps[:1]) and torch.equal(inner.stack_grad(), outer.stack_grad()[:1])
        same(outer.stack_grad(), gradients, atol=1e-13)
        tiny.score(model, inputs).backward()
        assert torch.equal(outer.stack(), maps) and len(inner.attention) == 1
    model.requires_grad_(True)
    assert_same_state(before, state(model))


@EACH
def test_chosen_layers_are_those_of_the_whole(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    whole, maps, gradients = captured(model, inputs)
    trace, chosen, chosen_gradients = captured(model, inputs, layers=[-1, 0])
    assert (
        trace.layers == [0, 2]
        and torch.equal(chosen, maps[[0, 2]])
        and torch.equal(chosen_gradients, gradients[[0, 2]])
    )
    assert whole.memory() == maps.numel() * maps.element_size() and trace.memory() * 3 == whole.memory() * 2


@WITH_VALUES
def test_memory_counts_hidden_states_and_values(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    with capture_attention(model, layers=[1], hidden=True, values=True) as trace:
        tiny.score(model, inputs)
    (_, heads, tokens, width) = trace.values[0].shape
    assert len(trace.attention) == len(trace.values) == 1 and heads == tiny.HEADS and width == tiny.WIDTH
    bytes_each = 8 * 2 * tokens
    assert trace.memory() == bytes_each * (heads * tokens + heads * width + (tiny.BLOCKS + 1) * width)


def test_values_of_chosen_layers_are_those_of_the_whole():
    model, inputs = tiny.module("bert"), tiny.inputs("bert")
    with torch.no_grad(), capture_attention(model, values=True) as whole:
        tiny.score(model, inputs)
    with torch.no_grad(), capture_attention(model, layers=[2, 1], values=True) as some:
        tiny.score(model, inputs)
    assert all(torch.equal(one, other) for one, other in zip(some.values, whole.values[1:], strict=True))


# No trace is left


class _Unlucky(Exception):
    pass


def _finish(model, inputs):
    with capture_attention(model, hidden=True) as trace:
        tiny.score(model, inputs)
        assert trace.attention


def _fail_inside(model, inputs):
    with pytest.raises(_Unlucky), capture_attention(model, hidden=True):
        tiny.score(model, inputs)
        raise _Unlucky


def _fail_in_the_model(model, inputs):
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)), capture_attention(model):
        model(**{key: value[:, :1, ..., :1] if value.ndim > 2 else value - 100 for key, value in inputs.items()})


def _fail_at_the_door(model, _inputs):
    for wrong, error in (({"blocks": 4}, RuntimeError), ({"layers": [9]}, ValueError)):
        with pytest.raises(error), capture_attention(model, **wrong):
            pass


@pytest.mark.parametrize("use", [_finish, _fail_inside, _fail_in_the_model, _fail_at_the_door])
@EACH
def test_the_model_is_as_before(name, use):
    model, inputs = tiny.module(name), tiny.inputs(name)
    plain = tiny.score(model, inputs)
    before = state(model)
    use(model, inputs)
    assert_same_state(before, state(model))
    assert torch.equal(tiny.score(model, inputs), plain)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_implementation_of_before_comes_back(implementation):
    model = tiny.module("bert")
    model.set_attn_implementation(implementation)
    with capture_attention(model):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("fused", [True, False])
def test_fused_attention_of_each_block_comes_back(fused):
    model = tiny.module("timm-vit")
    model.blocks[1].attn.fused_attn = fused
    flags = [block.attn.fused_attn for block in model.blocks]
    with capture_attention(model):
        assert not any(block.attn.fused_attn for block in model.blocks)
    assert [block.attn.fused_attn for block in model.blocks] == flags


def test_setting_up_halfway_is_undone():
    model = tiny.module("gpt2")  # its values cannot be captured, which shows only after hooks are in place
    before = state(model)
    with pytest.raises(TypeError, match="values cannot be captured"), capture_attention(model, values=True):
        pass
    assert_same_state(before, state(model))


def gradients_of(model, inputs) -> Iterator[torch.Tensor]:
    model.zero_grad()
    tiny.score(model, inputs).backward()
    yield from (parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit", "timm-vit"])
def test_other_models_are_not_touched(name):
    other, inputs = tiny.module(name, seed=1), tiny.inputs(name)
    before, described = list(gradients_of(other, inputs)), state(other)
    model = tiny.module(name)
    with capture_attention(model, hidden=True):
        tiny.score(model, inputs).backward()
        assert_same_state(described | {}, state(other))
        inside = list(gradients_of(other, inputs))
    after = list(gradients_of(other, inputs))
    assert len(before) > 10
    for kept in (inside, after):
        assert all(torch.equal(one, two) for one, two in zip(before, kept, strict=True))


# What is refused


@EACH
def test_training_mode_is_refused(name):
    model = tiny.module(name).train()
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"), capture_attention(model):
        pass


def test_a_convolutional_network_is_refused():
    with (
        pytest.raises(TypeError, match=r"ResNet has no attention block.*Grad-CAM"),
        capture_attention(tiny.module("resnet")),
    ):
        pass


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_a_wrong_number_of_blocks_is_refused(name):
    with (
        pytest.raises(RuntimeError, match="expected 4 attention blocks, found 3 in"),
        capture_attention(tiny.module(name), 4),
    ):
        pass


@pytest.mark.parametrize("layers", [[3], [-4], [0, 7]])
def test_a_layer_that_does_not_exist_is_refused(layers):
    with pytest.raises(ValueError, match=r"no layer \[-?\d\]: the model has 3, numbered 0 to 2"):
        with capture_attention(tiny.module("bert"), layers=layers):
            pass


def test_windows_are_not_stacked():
    model = tiny.module("swin")
    with capture_attention(model) as trace:
        tiny.score(model, tiny.inputs("swin")).backward()
    with pytest.raises(ValueError, match=r"captured 3 maps of shapes .*\(Swin\) need a method of their own"):
        trace.stack()


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_a_skipped_block_is_noticed(name):
    model = tiny.module(name)
    layers = model.bert.encoder.layer if name == "bert" else model.blocks
    with capture_attention(model) as trace:
        layers[1].forward = lambda states, *_, **__: states
        with pytest.raises(RuntimeError, match="2 of 3 attention blocks showed their map"):
            tiny.score(model, tiny.inputs(name))
    assert trace.seen == 2


@pytest.mark.parametrize("name", ["bert", "timm-vit"])
def test_gradients_need_a_backward_pass(name):
    model, inputs = tiny.module(name), tiny.inputs(name)
    with capture_attention(model, hidden=True) as trace:
        tiny.score(model, inputs)
        for read in (trace.stack_grad, trace.hidden_grad):
            with pytest.raises(RuntimeError, match=r"no gradient yet: call score\.backward\(\)"):
                read()
        for switch in (torch.no_grad, torch.inference_mode):
            with switch():
                tiny.score(model, inputs)
                for read in (trace.stack_grad, trace.hidden_grad):
                    with pytest.raises(RuntimeError, match="made without gradients; leave no_grad"):
                        read()
            assert len(trace.attention) == 3


def test_a_trace_without_a_pass_says_so():
    with capture_attention(tiny.module("bert"), hidden=True) as trace:
        for read in (trace.stack, trace.stack_grad, trace.hidden_grad):
            with pytest.raises(RuntimeError, match="nothing was captured yet"):
                read()


def test_states_alone_are_those_that_are_kept_beside_attention():
    model, inputs = tiny.module("bert"), tiny.inputs("bert")
    with capture_states(model) as alone, capture_attention(model, hidden=True) as beside:
        tiny.score(model, inputs).backward()
    assert len(alone.hidden) == tiny.BLOCKS + 1 and not alone.attention
    same([state.detach() for state in alone.hidden], [state.detach() for state in beside.hidden])
    with pytest.raises(ValueError, match="in training mode"), capture_states(tiny.module("bert").train()):
        pass


def test_an_encoder_with_a_decoder_has_no_map_of_one_text():
    settings = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 9,
                "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}  # fmt: skip
    module = hf.BartForSequenceClassification(hf.BartConfig(**settings)).eval()
    with pytest.raises(TypeError, match="has an encoder and a decoder"), capture_attention(module):
        pass
