"""Language models against the originals: LXT, captum, attention_flow and plain loops, on tiny random decoders.

transformers computes RMSNorm, the softmax of eager attention and the rotary tables in float32 even in a float64 model,
the stored numbers do not; hence 2e-5 wherever a norm of that kind is in the model, and 1e-10 for GPT-2.
"""

from functools import cache

import numpy as np
import pytest
import torch
from places import GOLDEN
from transformers import AutoModelForCausalLM

from xai_utils import methods, models
from xai_utils.models import Model, Question

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2", "gpt_neox", "mistral")
NAMES = {"gxi": "gradient_x_input", "gradl2": "gradient_norm", "attnlrp": "attnlrp", "cplrp": "cp_lrp"}
EACH = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = (0, 1)


@cache
def stored(family):
    with np.load(GOLDEN / "lm" / family / "golden.npz") as file:
        return dict(file)


@cache
def decoder(family):
    module = AutoModelForCausalLM.from_pretrained(
        GOLDEN / "lm" / family, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    words = module.get_output_embeddings().out_features
    return Model(family, module, tuple(map(str, range(words))), None, 0, None, None, "", head="next")


def prompt(family, number):
    return {"input_ids": torch.from_numpy(stored(family)[f"p{number}_ids"])[None].long()}


def questions(family, number):
    first, second = (int(stored(family)[f"p{number}_{name}"]) for name in ("t0", "t1"))
    return {
        "t0": Question(first), "t1": Question(second), "diff": Question(first, second),
        "logp0": Question(first, kind="log_probability"),
    }  # fmt: skip


def close(found, expected, family, exact=1e-10):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=exact if family == "gpt2" else 2e-5)


@EACH
@pytest.mark.parametrize("method", ["gxi", "gradl2"])
@pytest.mark.parametrize("number", PROMPTS)
def test_gradients(family, method, number):
    for target, question in questions(family, number).items():
        found = methods.explain(NAMES[method], decoder(family), prompt(family, number), question)[0]
        expected = stored(family)[f"p{number}_{target}_{method}"]
        if family == "gpt2" and method == "gxi":  # ours is taken where positions have been added
            expected = expected + stored(family)[f"p{number}_{target}_gxi_wpe"]
        close(found.scores, expected, family)


@EACH
@pytest.mark.parametrize("method", ["attnlrp", "cplrp"])
@pytest.mark.parametrize("number", PROMPTS)
def test_relevance(family, method, number):
    for target, question in questions(family, number).items():
        found = methods.explain(NAMES[method], decoder(family), prompt(family, number), question)[0]
        key = f"{method}_p{number}_{target}_R"
        expected = stored(family)[key] + (stored(family)[f"{key}_wpe"] if family == "gpt2" else 0)
        close(found.scores, expected, family, 1e-7)
        depth = np.array(found.details["relevance_by_depth"])
        np.testing.assert_allclose(depth[1:], stored(family)[f"{key}_in"].sum(-1)[1:], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral"])
def test_without_biases_cp_lrp_adds_up_to_the_logit_and_attnlrp_does_not(family):
    for number in PROMPTS:
        model, given = decoder(family), prompt(family, number)
        logit = float(model.logits(models.encode(model, given).inputs).detach().max())
        assert float(methods.explain("cp_lrp", model, given)[0].scores.sum()) == pytest.approx(logit, abs=2e-5)
        assert abs(float(methods.explain("attnlrp", model, given)[0].scores.sum()) - logit) > 0.05


@EACH
def test_attention_and_rollout(family):
    for number in PROMPTS:
        seen = methods.observe(decoder(family), prompt(family, number), gradient=False)
        close(seen.attention[:, 0], stored(family)[f"p{number}_att"], family)
        close(methods.attribute("rollout", seen).scores, stored(family)[f"p{number}_rollout_last"], family, 1e-12)
        close(seen.logits[0], stored(family)[f"p{number}_logits"], family)


@EACH
def test_leave_one_out_by_deletion(family):
    for number in PROMPTS:
        for column, target in enumerate(("t0", "t1", "diff")):
            question = questions(family, number)[target]
            found = methods.explain("leave_one_out", decoder(family), prompt(family, number), question)[0]
            close(found.scores, stored(family)[f"p{number}_loo_delete_logit"][:, column], family)
        found = methods.explain(
            "leave_one_out", decoder(family), prompt(family, number), questions(family, number)["logp0"]
        )
        close(found[0].scores, stored(family)[f"p{number}_loo_delete_logp"][:, 0], family)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_integrated_gradients_from_a_sentence_of_one_word(family):
    kept, word = stored(family), int(stored(family)["eos_id"])
    for target in ("t0", "diff"):
        question = questions(family, 0)[target]
        found = methods.explain(
            "integrated_gradients", decoder(family), prompt(family, 0), question, word=word, steps=256, tolerance=None
        )[0]
        np.testing.assert_allclose(found.scores.numpy(), kept[f"p0_{target}_ig_eos"], rtol=0, atol=2e-3)
