"""A little noise on a model's input: small, seeded, and without a trace."""

import numpy as np
import pytest
import tiny
import torch

from xai_utils.evaluation import jitter


def answers(name, model, samples):
    from xai_utils.models.encoding import encode

    with torch.no_grad():
        return model.logits(encode(model, samples).inputs)


def test_noise_on_pictures_is_small_and_seeded_and_keeps_them_pictures():
    model, some = tiny.model("timm-vit"), tiny.samples("timm-vit")
    with jitter.jittered(model, some, 0, 0.05) as one, jitter.jittered(model, some[1:], 0, 0.05) as other:
        gaps = [np.abs(a.image - b.image).max() for a, b in zip(some, one, strict=True)]
        assert 0.02 < min(gaps) and max(gaps) <= 0.05 + 1e-6
        assert all(np.array_equal(a.image, b.image) for a, b in zip(one[1:], other, strict=True))
        assert min(a.image.min() for a in one) >= 0 and max(a.image.max() for a in one) <= 1
        assert [a.name for a in one] == [a.name for a in some] and one[0].image.dtype == np.float32
    with jitter.jittered(model, some, 1, 0.05) as changed:
        assert not np.array_equal(changed[0].image, one[0].image)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_noise_on_words_is_small_and_leaves_the_model_as_it_was(name):
    model, some = tiny.model(name), tiny.samples(name)
    before, answer = {k: v.clone() for k, v in model.module.state_dict().items()}, answers(name, model, some)
    with pytest.raises(KeyError), jitter.jittered(model, some, 0) as same:
        assert list(same) == some
        moved = {k for k, v in model.module.state_dict().items() if not torch.equal(v, before[k])}
        (table,) = moved
        gap = (model.module.state_dict()[table] - before[table]).abs().max()
        assert 0 < gap <= jitter.RADIUS * before[table].std() and len(before[table]) >= len(model.tokenizer)
        assert 0 < (answers(name, model, some) - answer).abs().max() < 1
        raise KeyError
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@pytest.mark.parametrize("radius", [0.0, -0.1, 1.5, float("nan")])
def test_a_radius_that_is_no_share_is_refused(radius):
    with pytest.raises(ValueError, match=f"radius is {radius}"), jitter.jittered(tiny.model("bert"), [], 0, radius):
        pass


def test_a_model_without_a_table_of_words_is_named():
    with pytest.raises(TypeError, match="Linear has no table of word embeddings with 9 rows"):
        jitter._table(torch.nn.Linear(2, 2), 9)
