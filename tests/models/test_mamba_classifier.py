"""The classifier on Mamba: the last real token decides, and our scan is transformers' own."""

import contextlib
import copy

import pytest
import torch
from transformers import MambaConfig
from transformers.models.mamba import modeling_mamba

from xai_utils.models.mamba_classifier import MambaClassifier, fast_scan, last


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "state_size": 4}
    return MambaClassifier(MambaConfig(**sizes, num_labels=3)).double().eval()


def test_the_last_real_token_is_found_on_either_side():
    ids = torch.zeros(3, 5, dtype=torch.long)
    assert last(ids, None).tolist() == [4, 4, 4]
    assert last(ids, torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])).tolist() == [2, 4, 0]


def test_words_after_the_last_real_token_change_nothing_and_those_before_do(model):
    ids, mask = torch.tensor([[3, 4, 5, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        whole = model(ids[:, :3]).logits
        torch.testing.assert_close(model(ids, mask).logits, whole)
        assert whole.shape == (1, 3) and (model(torch.tensor([[6, 4, 5]])).logits - whole).abs().max() > 1e-4


def test_without_a_mask_the_last_token_decides(model):
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, model(ids, torch.ones_like(ids)).logits)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [None, [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]])
def test_our_scan_gives_the_values_and_the_gradients_of_transformers_own(model, precision, mask):
    backbone = copy.deepcopy(model.backbone).to(precision)
    given = torch.randn(2, 5, 8, dtype=precision, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = [parameter for name, parameter in backbone.named_parameters() if "embeddings" not in name]
    found = []
    for scan in (contextlib.nullcontext, fast_scan):
        with scan():
            states = backbone(
                inputs_embeds=given, attention_mask=None if mask is None else torch.tensor(mask), use_cache=False
            ).last_hidden_state
        found.append((states, *torch.autograd.grad(states.sin().sum(), [given, *weights])))
    assert found[1][0].dtype == precision and found[1][0].abs().max() > 0.1
    bound = 1e-5 if precision == torch.float32 else 1e-6  # transformers rounds A and D to float32
    for slow, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=bound, atol=bound)


def test_a_pass_that_keeps_a_cache_goes_on_from_it(model):
    backbone, ids = copy.deepcopy(model.backbone).float(), torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad(), fast_scan():
        whole = backbone(ids, use_cache=False).last_hidden_state[:, -1]
        begun = backbone(ids[:, :3], use_cache=True).cache_params
        torch.testing.assert_close(backbone(ids[:, 3:], cache_params=begun).last_hidden_state[:, -1], whole)


def test_transformers_has_its_own_scan_back_also_after_an_error(model):
    before = modeling_mamba.mamba_selective_scan
    model(torch.tensor([[3, 4]]))
    assert modeling_mamba.mamba_selective_scan is before
    with pytest.raises(RuntimeError, match="on the way"), fast_scan():
        assert modeling_mamba.mamba_selective_scan is not before
        raise RuntimeError("on the way")
    assert modeling_mamba.mamba_selective_scan is before
