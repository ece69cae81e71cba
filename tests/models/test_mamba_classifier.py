"""The classifier on Mamba: the last real token decides, on whichever side the padding is."""

import pytest
import torch
from transformers import MambaConfig

from xai_utils.models.mamba_classifier import MambaClassifier, last


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
