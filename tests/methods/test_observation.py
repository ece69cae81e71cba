"""One captured pass serves many methods, keeps no graph and shows one sample without its padding."""

import pytest
import tiny
import torch

from xai_utils.methods import METHODS, attribute, explain, methods_for
from xai_utils.methods.observation import observe
from xai_utils.samples import Text

MODELS = ("bert", "timm-vit")


SUITING = {name: [method for method in methods_for(tiny.model(name)) if "gradcam" not in method] for name in MODELS}


OBSERVED = tuple(method for method in SUITING["bert"] if METHODS[method].score is not None)


BOTH = pytest.mark.parametrize("name", MODELS)


def same(left, right, atol=1e-10):
    torch.testing.assert_close(left, right, rtol=0, atol=atol)


def forwards(model):
    """Count the forward passes of a model from now on; call the second value to stop."""
    passes = []
    return passes, model.module.register_forward_hook(lambda *_: passes.append(1)).remove


@BOTH
def test_a_batch_explains_the_prediction_of_each_sample(name):
    model = tiny.model(name)
    samples = [
        *tiny.samples(name),
        *([Text("slow and dull"), Text("two funny , warm friends")] if name == "bert" else []),
    ]
    seen = observe(model, samples)
    assert seen.targets == tuple(seen.logits.argmax(-1).tolist())
    assert [found.target for found in explain("gradient_norm", model, samples)] == list(seen.targets)


@BOTH
def test_observing_costs_one_pass_and_attributing_none(name):
    model, samples = tiny.model(name), tiny.samples(name)
    passes, stop = forwards(model)
    seen = observe(model, samples)
    for method in OBSERVED:
        for i in range(len(samples)):
            attribute(method, seen, i)
    stop()
    assert len(passes) == 1


def test_without_gradient_no_graph_is_kept():
    seen = observe(tiny.model("bert"), tiny.SENTENCES, gradient=False)
    assert seen.gradient is None and seen.states is None and seen.attention.grad_fn is None
    assert not seen.logits.requires_grad
    with pytest.raises(ValueError, match=r"needs gradients; call observe\(\.\.\., gradient=True\)"):
        attribute("gradient_rollout", seen)


def test_a_view_holds_one_sample_without_padding():
    seen = observe(tiny.model("bert"), tiny.SENTENCES, target=0)
    view = seen.view(1)
    assert view.attention.shape == view.gradient.shape == (tiny.BLOCKS, tiny.HEADS, 5, 5)
    assert view.embedding.shape == view.embedding_gradient.shape == (5, tiny.WIDTH)
    same(view.attention.sum(-1), torch.ones_like(view.attention[..., 0]))
    alone = observe(tiny.model("bert"), tiny.SENTENCES[1:2], target=0).view(0)
    for part in ("attention", "gradient", "embedding", "embedding_gradient"):
        same(getattr(view, part), getattr(alone, part))
