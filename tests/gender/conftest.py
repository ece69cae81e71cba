"""Models and directions that the tests of the gender study share."""

import pytest
import tiny
import torch
import transformers as hf

from xai_utils import models


@pytest.fixture(scope="session")
def model():
    """Return an untrained model that reads BERT's vocabulary."""
    torch.manual_seed(0)
    reader = models.load("minilm").tokenizer
    sizes = {**tiny.BERT, "vocab_size": len(reader), "max_position_embeddings": 128}
    return tiny.masked("tiny", hf.BertForMaskedLM(hf.BertConfig(**sizes)).eval().requires_grad_(False), reader)


@pytest.fixture(scope="session")
def rays():
    """Return random directions for the tiny models."""
    noise = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(tiny.BLOCKS + 1, tiny.WIDTH, generator=noise), dim=-1)
