"""One captured pass serves many methods, keeps no graph and shows one sample without its padding."""

from dataclasses import replace

import pytest
import tiny
import torch
from transformers import FalconForCausalLM

from xai_utils import models
from xai_utils.methods import METHODS, attribute, explain, methods_for, observation
from xai_utils.methods.observation import observe, placed, sees
from xai_utils.samples import Text
from xai_utils.survey.families import FAMILIES, save

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


# What the answer is read from, and what can be seen


def of_family(name, folder):
    return models.load(save(FAMILIES[name], folder), dtype="float64")


@pytest.mark.parametrize(
    ("family", "reads"),
    [("BERT", (0,)), ("Llama", (4,)), ("EuroBERT", (0, 1, 2, 3, 4)), ("BERT without a head", (0,))],
)
def test_rows_are_read_where_the_answer_is(family, reads, tmp_path):
    model, some = of_family(family, tmp_path), [Text("a warm plot")]
    for _ in range(2):  # looked for, and then known
        view = observe(model, some, gradient=False).view(0)
        assert view.reads == reads
    rolled = explain("attention", model, some)[0].scores
    same(rolled, view.attention[-1].mean(0)[list(reads)].mean(0))


def test_the_mean_of_the_patches_is_read_where_there_is_no_class_token(tmp_path):
    model = of_family("BEiT", tmp_path)
    assert observe(model, tiny.samples("vit")[:1], gradient=False).view(0).reads == tuple(range(1, 17))


def test_what_needs_no_attention_works_without_it_and_the_rest_says_why(tmp_path):
    model = of_family("FNet", tmp_path)
    seen = observe(model, [Text("a warm plot")])
    assert seen.attention.shape == (0, 1, 1, 5, 5) and attribute("gradient_norm", seen).scores.all()
    assert {"gradient_norm", "integrated_gradients", "leave_one_out"} <= set(methods_for(model))
    with pytest.raises(TypeError, match=r"rollout cannot explain .*has no attention block that can be seen"):
        explain("rollout", model, Text("a warm plot"))


def test_maps_of_other_positions_or_no_shares_are_refused_in_one_place():
    good = torch.full((1, 2, 4, 4), 0.25)
    assert placed([good], 4) == "" and placed([], 4) == "it shows no attention."
    maps = [good.new_full((1, 2, 5, 5), 0.2), good]
    assert "layer 1 shows a map (1, 2, 4, 4), but 5 tokens were given" in placed(maps, 5)
    assert "no shares" in placed([good * 2], 4) and "no shares" in placed([-good], 4)


def test_a_model_that_answers_otherwise_when_looked_at_is_refused(tmp_path):
    model = of_family("Falcon, next words", tmp_path)
    assert not sees(model).attention
    fused = FalconForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa", dtype="float64").eval()
    model = replace(model, module=fused)  # one that was not loaded by models.load
    assert "answers otherwise where it shows its attention" in sees(model).attention
    assert "rollout" not in methods_for(model) and "integrated_gradients" in methods_for(model)


@pytest.mark.parametrize("method", ["gradient_norm", "gradient_x_input"])
def test_a_gradient_of_a_mamba_does_without_its_hidden_attention(method, monkeypatch):
    model, some = tiny.model("vim"), tiny.samples("vim", 2)
    seen = observe(model, some, 0)
    whole = [attribute(method, seen, i).scores for i in range(2)]
    monkeypatch.setattr(observation, "direction_maps", lambda _: pytest.fail("nobody looks at it"))
    assert torch.equal(torch.stack([one.scores for one in explain(method, model, some, 0)]), torch.stack(whole))
    assert len(observe(model, some, 0, maps=False).attention) == 0
