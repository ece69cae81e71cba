"""Maps through hidden attention: the published numbers, right and wrong, and what each must be by its meaning."""

import pytest
import tiny
import torch

from tests.capture import test_scans
from tests.models import test_vim
from xai_utils import models
from xai_utils.capture.scans import capture_scans, capture_vim
from xai_utils.maths import hidden_attention, hidden_maps, rollout
from xai_utils.methods import METHODS, explain
from xai_utils.methods.observation import class_first, observe
from xai_utils.models.encoding import encode

STARTS = pytest.mark.parametrize("start", [0, 1])
METHOD = ("hidden_attention", "hidden_rollout", "hidden_rollout_published", "mamba_attribution")


@pytest.fixture(scope="module")
def looked():
    model = test_vim.published().requires_grad_(False)
    with capture_vim(model) as trace:
        model(test_vim.golden("x").double())[0, int(test_vim.STORED["class_pred"])].backward()
    return trace


def same(left, name, atol=1e-12):
    right = test_vim.golden(name)
    torch.testing.assert_close(left.detach(), right, rtol=0, atol=atol)


def patches(rows, position):
    return class_first(rows, position, -1)[:, 1:]


# Published numbers


def test_layer_maps(looked):
    same(hidden_maps.layer_maps(looked.scans, "signed")[:, 0], "hidden_attn_mean")
    same(hidden_maps.layer_maps(looked.scans, "absolute")[:, 0], "hidden_attn_abs_mean")
    for backward, name in enumerate(("fwd", "bwd")):
        maps = torch.stack([hidden_attention.of_scan(pair[backward])[0] for pair in looked.scans])
        same(maps, f"hidden_attn_{name}_mean")
        channels = hidden_attention.of_scan(looked.scans[0][backward], "all")[0]
        same(channels[:4], f"hidden_attn_layer0_{name}_channels0_3")


def test_rows_of_the_class_token(looked):
    same(hidden_maps.class_rows(looked.scans, looked.class_position)[:, 0], "hma/xai_b_true_rows")


@STARTS
@pytest.mark.parametrize(("signs", "name"), [("absolute", "absmean"), ("clamped", "clamped")])
def test_the_right_rollout(looked, start, signs, name):
    maps = hidden_maps.layer_maps(looked.scans, signs)[start:]
    rows = torch.stack([hidden_maps.rolled(maps, position)[0] for position in range(maps.shape[-1])])
    same(rows, f"corrected/rollout_{name}_fullmatrix_start{start}")


@pytest.mark.parametrize("signs", hidden_maps.SIGNS)
@pytest.mark.parametrize("kind", ["vim", "mamba", "mamba2"])
def test_the_readers_row_alone_is_the_row_of_the_whole_map(kind, signs):
    model = tiny.module("vim") if kind == "vim" else test_scans.built(kind)
    given = tiny.inputs("vim") if kind == "vim" else {"input_ids": test_scans.IDS}
    with torch.no_grad(), capture_scans(model) as trace:
        model(**given)
    at = trace.class_position if kind == "vim" else test_scans.IDS.shape[1] - 1
    whole = hidden_maps.raw(hidden_maps.layer_maps(trace.scans, signs), at)
    row = hidden_maps.raw_row(hidden_maps.class_rows(trace.scans, at), signs)
    torch.testing.assert_close(row, whole, rtol=1e-5, atol=1e-6)


@STARTS
def test_the_published_forms(looked, start):
    at, rows = looked.class_position, hidden_maps.class_rows(looked.scans, looked.class_position)
    slopes = torch.stack([looked.stream_gradient(place) for place in range(1, len(looked.streams))])
    same(patches(hidden_maps.published_raw(rows, start), at), f"hma/raw_start{start}")
    found = hidden_maps.published_rollout(rows.mean(2), at, start)
    same(patches(found, at).clamp(min=0), f"hma/rollout_vectorised_start{start}")
    found = hidden_maps.published_attribution(rows, slopes, at, start)
    same(patches(found, at).clamp(min=0), f"hma/attr_start{start}")


# What the maps mean


@pytest.mark.parametrize("start", [0, 2])
def test_the_closed_form_is_the_broadcast_product(start):
    noise = torch.Generator().manual_seed(start)
    vectors = torch.rand(5, 2, 9, generator=noise, dtype=torch.float64) - 0.2
    joint = torch.eye(9, dtype=torch.float64).expand(2, 9, 9)
    for vector in vectors[start:]:
        step = vector[:, None] + torch.eye(9, dtype=torch.float64)  # (1, key) meets the identity, as published
        joint = step / step.sum(-1, keepdim=True) @ joint
    torch.testing.assert_close(hidden_maps.published_rollout(vectors, 4, start), joint[:, 4])


def test_the_closed_form_mixes_no_tokens_and_the_right_rollout_does():
    """Class token reads token 1 in the upper layer, token 1 reads token 2 in the lower one."""
    maps = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    maps[1, 0, 0, 1] = maps[0, 0, 1, 2] = 1
    assert hidden_maps.published_rollout(maps[:, :, 0], 0)[0, 2] == 0
    assert hidden_maps.rolled(maps, 0)[0, 2] == 0.25


def test_a_row_that_sums_to_minus_one_is_refused():
    with pytest.raises(ValueError, match="divides by zero"):
        hidden_maps.published_rollout(torch.tensor([[[-0.5, -0.5, 0.0]]]), 0)


def test_a_constant_layer_cannot_be_stretched():
    with pytest.raises(ValueError, match="constant"):
        hidden_maps.published_raw(torch.ones(2, 1, 3, 4), 0)


def test_a_weighted_map_is_gradient_times_weight_times_input():
    """Each entry: gradient at the query times weight times input at the key, averaged over channels."""
    model, given = tiny.module("vim").requires_grad_(False), tiny.inputs("vim")
    with capture_vim(model) as trace:
        tiny.score(model, given).backward()
    for pair, gradients in zip(trace.scans, trace.scan_gradients(), strict=True):
        for scan, gradient in zip(pair, gradients, strict=True):
            every = hidden_attention.of_scan(scan, "all")
            literal = (gradient[..., None] * every * scan.u[:, :, None].detach()).mean(1)
            torch.testing.assert_close(hidden_maps._weighted(scan, gradient), literal, rtol=1e-10, atol=1e-13)


def test_directions_are_shares_of_what_a_token_reads():
    model, given = tiny.module("vim"), tiny.inputs("vim")
    with torch.no_grad(), capture_vim(model) as trace:
        model(**given)
    shares = hidden_maps.direction_maps(trace.scans)
    assert (shares >= 0).all() and not shares[:, :, 0].triu(1).any() and not shares[:, :, 1].tril(-1).any()
    whole = rollout.renormalise(hidden_maps.layer_maps(trace.scans))
    torch.testing.assert_close(shares.mean(2), whole, rtol=1e-10, atol=1e-12)


def test_shares_of_one_direction_are_rows_of_the_map_with_sum_one():
    model = test_scans.built("mamba2")
    with torch.no_grad(), capture_scans(model) as trace:
        model(input_ids=test_scans.IDS)
    shares = hidden_maps.direction_maps(trace.scans)
    whole = rollout.renormalise(hidden_maps.layer_maps(trace.scans))
    torch.testing.assert_close(shares[:, :, 0], whole, rtol=1e-5, atol=1e-6)


def test_unknown_signs_are_refused():
    with pytest.raises(ValueError, match="signs"):
        hidden_maps.layer_maps([], "squared")
    with pytest.raises(ValueError, match="signs"):
        hidden_maps.raw_row(torch.ones(1, 1, 1, 1), "squared")


# Through the table of methods


@pytest.mark.parametrize("method", METHOD)
def test_a_batch_gives_what_a_loop_gives(method):
    model, pictures = tiny.model("vim"), tiny.samples("vim")
    loop = [explain(method, model, one, target=1) for one in pictures]
    for found, alone in zip(explain(method, model, pictures, target=1), loop, strict=True):
        assert len(found.scores) == 16 and found.grid == tiny.GRID
        assert found.target == (1 if METHODS[method].asks else None)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("method", "options"), [("hidden_attention", {"form": "published"}), (
    "mamba_attribution", {"form": "published", "start": 0}), ("hidden_rollout", {"signs": "clamped"})])  # fmt: skip
def test_options_change_the_map(method, options):
    model, one = tiny.model("vim"), tiny.samples("vim")[0]
    plain, other = explain(method, model, one), explain(method, model, one, **options)
    assert not torch.allclose(plain.scores, other.scores)


def test_the_attribution_knows_the_class():
    model, one = tiny.model("vim"), tiny.samples("vim")[0]
    first, second = (explain("mamba_attribution", model, one, target=i).scores for i in (0, 1))
    assert not torch.allclose(first, second)


def test_an_attention_model_is_refused():
    with pytest.raises(TypeError):
        explain("hidden_rollout", tiny.model("timm-vit"), tiny.samples("timm-vit")[0])


def test_the_row_of_the_class_token_comes_without_the_class_token():
    model, pictures = tiny.model("vim"), tiny.samples("vim", 1)
    batch = encode(model, pictures)
    with torch.no_grad(), capture_vim(model.module) as trace:
        model.logits(batch.inputs)
    maps = hidden_maps.layer_maps(trace.scans)
    row = hidden_maps.raw(maps, trace.class_position)[0]
    expected = torch.cat([row[: trace.class_position], row[trace.class_position + 1 :]])
    torch.testing.assert_close(explain("hidden_attention", model, pictures[0]).scores, expected)


# As attention of notebook 03 and its like


def test_the_observation_has_one_head_a_direction_and_the_class_token_in_front():
    model, pictures = tiny.model("vim"), tiny.samples("vim")
    seen = observe(model, pictures, target=1)
    assert seen.attention.shape == (tiny.BLOCKS, len(pictures), 2, 17, 17) and seen.gradient is None
    torch.testing.assert_close(seen.attention.mean(2).sum(-1), torch.ones(tiny.BLOCKS, len(pictures), 17))
    at = model.module.class_position
    behind = seen.attention[0, 0, 0, 0, 1 + at :]  # what the class token reads forward of tokens behind it
    assert not behind.any() and seen.attention[0, 0, 1, 0, 1 + at :].all()
    assert seen.readers[:, 0].all() and not seen.readers[:, 1:].any()


@pytest.mark.parametrize("method", [
    "attention", "rollout", "diffusion_rollout", "selective_rollout", "flow", "gradient_norm", "gradient_x_input",
    "integrated_gradients",
])  # fmt: skip
def test_methods_on_attention_take_vision_mamba(method):
    found = explain(method, tiny.model("vim"), tiny.samples("vim"), target=2)
    assert all(len(one.scores) == 16 for one in found)


@pytest.mark.parametrize("method", ["gradient_rollout", "generic_attention", "attention_gradcam"])
def test_methods_on_the_gradient_of_attention_say_what_to_try(method):
    with pytest.raises(TypeError, match="mamba_attribution"):
        explain(method, tiny.model("vim"), tiny.samples("vim")[0])


def test_gradients_are_kept_with_the_tokens_they_belong_to():
    model, pictures = tiny.model("vim"), tiny.samples("vim", 1)
    seen = observe(model, pictures, target=3)
    tokens = model.module.tokens(seen.batch.inputs["x"]).detach()
    torch.testing.assert_close(seen.states[0], class_first(tokens, model.module.class_position, 1))
    leaf = tokens.requires_grad_()
    model.module.forward_head(model.module.forward_tokens(leaf))[0, 3].backward()
    torch.testing.assert_close(seen.state_gradients[0], class_first(leaf.grad, model.module.class_position, 1))


def test_the_hub_names_are_in_the_table():
    for name in ("vim_tiny", "vim_small", "vim_base"):
        assert models.MODELS[name].source.startswith("hustvl/Vim-") and models.MODELS[name].instead == "vim-scenes"
