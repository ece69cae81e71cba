"""Methods that read a Mamba's scans: batches give what a loop gives, and what they need is named."""

import numpy as np
import pytest
import torch

from xai_utils import methods, models, samples
from xai_utils.samples import Text, recall

NAMES = (
    "hidden_attention", "hidden_rollout", "unified_attention", "hidden_rollout_published", "mamba_attribution",
    "mamba_lrp", "gradient_x_input", "gradient_norm", "rollout",
)  # fmt: skip


def drawn(length, distance):
    return recall.draw(np.random.default_rng(0), length, distance)


@pytest.fixture(scope="module")
def model():
    return models.load("mamba-recall")


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_a_loop_gives(model, name):
    texts = [recall.text_of(drawn(length, 3)) for length in (12, 7, 20)]
    options = {"row": -1} if name == "rollout" else {}
    batch = methods.explain(name, model, texts, **options)
    for text, found in zip(texts, batch, strict=True):
        alone = methods.explain(name, model, text, **options)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-6)
        assert len(found.labels) == len(text.text.split()) + 1 and found.target == alone.target


def test_methods_name_what_they_need(model):
    text = Text(" ".join(drawn(9, 3).tokens))
    with pytest.raises(TypeError, match="gradient at attention"):
        methods.explain("gradient_rollout", model, text)
    with pytest.raises(ValueError, match="row is 'cls'"):
        methods.explain("rollout", model, text, row="cls")
    with pytest.raises(TypeError, match="no selective scan"):
        methods.explain("hidden_attention", models.load("vit-scenes"), samples.picture("scene:0"))
    with pytest.raises(ValueError, match="form is 'other'"):
        methods.explain("mamba_attribution", model, text, form="other")
