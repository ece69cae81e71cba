"""Vision Mamba: published sizes and numbers, both directions, strict loading, refusals."""

import json
from argparse import Namespace

import numpy as np
import pytest
import tiny
import torch
from places import GOLDEN
from safetensors.torch import load_file

from xai_utils import models
from xai_utils.capture.scans import capture_vim
from xai_utils.models.vim import Vim, arguments_of, from_checkpoint, read

STORED = np.load(GOLDEN / "vim.npz")
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_classes": 3, "d_state": 4}


def golden(name):
    return torch.from_numpy(STORED[name])


def same(left, right, atol=1e-12):
    torch.testing.assert_close(left.detach(), right, rtol=0, atol=atol)


def published():
    """Build the model behind the golden numbers, in double precision."""
    state = load_file(GOLDEN / "vim.safetensors")
    return from_checkpoint(state, json.loads(str(STORED["kwargs_json"]))["img_size"]).double().eval()


@pytest.mark.parametrize(("width", "parameters"), [(192, 7_148_008), (384, 25_796_584), (768, 97_598_440)])
def test_the_published_sizes_have_the_published_number_of_parameters(width, parameters):
    with torch.device("meta"):
        model = Vim(embed_dim=width)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_forward_pass_is_the_published_one():
    model, x = published(), golden("x").double()
    same(model.tokens(x), golden("tokens"))
    with capture_vim(model) as trace:
        same(model(x), golden("logits"))
    same(torch.stack(trace.streams[1:])[:, 0], golden("hidden"))


@pytest.mark.parametrize("target", ["pred", "other"])
def test_gradients_at_tokens_and_streams_are_the_published_ones(target):
    model = published().requires_grad_(False)
    with capture_vim(model) as trace:
        model(golden("x").double())[0, int(STORED[f"class_{target}"])].backward()
    same(trace.stream_gradient(0)[0], golden(f"{target}/grad_tokens"))
    gradients = torch.stack([trace.stream_gradient(place) for place in range(1, len(trace.streams))])
    same(gradients[:, 0], golden(f"{target}/grad_hidden"))


def test_the_backward_direction_is_the_forward_one_on_the_flipped_sequence():
    mixer = tiny.module("vim").layers[0].mixer
    for name, own in mixer.named_parameters():
        if name not in ("in_proj.weight", "out_proj.weight") and "_b" not in name:
            first, _, rest = name.partition(".")
            other = "A_b_log" if name == "A_log" else f"{first}_b.{rest}" if rest else f"{first}_b"
            own.data.copy_(mixer.get_parameter(other).data)
    tokens = torch.randn(2, 9, tiny.WIDTH, dtype=torch.float64)
    same(mixer(tokens.flip(1)), mixer(tokens).flip(1).detach())


@pytest.mark.parametrize(("size", "stride", "side"), [(32, None, 4), (32, 4, 7), (48, 8, 6)])
def test_every_patch_reaches_the_class_token_in_the_middle(size, stride, side):
    torch.manual_seed(0)
    model = Vim(**{**SMALL, "img_size": size}, stride=stride).double()
    assert model.patch_embed.grid_size == (side, side) and model.class_position == side * side // 2
    tokens = model.tokens(torch.randn(1, 3, size, size, dtype=torch.float64)).detach().requires_grad_()
    model.forward_head(model.forward_tokens(tokens))[0, 0].backward()
    assert (tokens.grad[0].abs().amax(-1) > 0).all()


def test_chosen_patches_keep_their_positions():
    model, pixels = tiny.module("vim"), torch.randn(2, 3, tiny.SIDE, tiny.SIDE, dtype=torch.float64)
    whole, seen = model.tokens(pixels), torch.tensor([[0, 3, 4, 15], [1, 2, 9, 14]])
    some, at = model.tokens(pixels, seen), model.class_position
    for row, kept, chosen in zip(whole, some, seen, strict=True):
        patches = torch.cat([row[:at], row[at + 1 :]])[chosen]
        same(kept, torch.cat([patches[:2], row[at : at + 1], patches[2:]]).detach())


def test_another_picture_size_is_refused():
    with pytest.raises(ValueError, match="resize"):
        Vim(**SMALL)(torch.zeros(1, 3, 40, 40))


def test_missing_extra_and_misshapen_tensors_are_named():
    state = Vim(**SMALL).state_dict()
    del state["layers.1.mixer.D_b"]
    state["surplus.weight"] = torch.zeros(2)
    state["head.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"does not fit this Vision Mamba") as caught:
        from_checkpoint(state, 32)
    assert all(name in str(caught.value) for name in ("layers.1.mixer.D_b", "surplus.weight", "head.bias"))


def test_something_else_is_no_checkpoint():
    with pytest.raises(ValueError, match=r"lacks .*pos_embed"):
        arguments_of({"weight": torch.zeros(3)})


# Published checkpoints


@pytest.mark.parametrize("stride", [None, 4])
def test_a_checkpoint_says_how_its_model_is_built(stride, tmp_path):
    model = Vim(**{**SMALL, "stride": stride, "dt_rank": 3}).eval()
    torch.save({"model": model.state_dict(), "args": Namespace(lr=0.1), "epoch": 3}, tmp_path / "one.pth")
    again = from_checkpoint(read(tmp_path / "one.pth"), 32).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(x), again(x))


@pytest.mark.parametrize(("content", "said"), [({"state": {}}, "no entry 'model'"), ([1], "no entry 'model'")])
def test_a_file_without_weights_is_refused(content, said, tmp_path):
    torch.save(content, tmp_path / "one.pth")
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "one.pth")


class Arbitrary:
    """Something that only code could restore."""


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"model": Arbitrary()}, tmp_path / "one.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        read(tmp_path / "one.pth")


def test_a_published_model_comes_from_a_folder_of_the_hub(tmp_path, monkeypatch):
    with torch.device("meta"):
        shapes = Vim(depth=1, embed_dim=16, d_state=2).state_dict()
    state = {name: torch.zeros(shape.shape) for name, shape in shapes.items()}
    torch.save({"model": state}, tmp_path / "any_name.pth")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    model = models.load("vim_tiny")
    assert len(model.classes) == 1000 and model.prefix == 1 and model.preprocessing.resize == 256
    own = {**state, "head.weight": state["head.weight"][:3], "head.bias": state["head.bias"][:3]}
    torch.save({"model": own}, tmp_path / "any_name.pth")
    assert models.load("vim_tiny").classes == ("class 0", "class 1", "class 2")
    (tmp_path / "second.pth").touch()
    with pytest.raises(ValueError, match="exactly one"):
        models.load("vim_tiny")
