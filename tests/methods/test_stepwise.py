"""Whole answers: each row is what the method says of its prompt alone; groups, sums, and refusals."""

import decoders
import numpy as np
import pytest
import tiny
import torch

from xai_utils import methods
from xai_utils.methods import METHODS, stepwise
from xai_utils.models import Question, answers, state_sha256

LONG = tiny.SENTENCES[2].text
CHEAP = {"integrated_gradients": {"steps": 4, "tolerance": None}}
FAMILIES = ("llama", "gpt2", "gemma3", "qwen3", "mamba", "mamba2")


def said(model):
    return answers.within(model, LONG, "warm film of")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_gives_each_step_what_it_gives_the_prompt_alone(family):
    model = decoders.causal(family)
    answer = said(model)
    bound = {"mamba2": 1e-6}.get(family, 1e-4 if family in decoders.WINDOWED else 1e-8)
    for name in methods.methods_for(model):
        options = CHEAP.get(name, {})
        try:
            found = stepwise.explain(name, model, answer, "log_probability", **options)
        except ValueError as error:
            assert "every score is zero" in str(error), f"{name}: {error}"
            continue
        for step, place in enumerate(answer.explained):
            question = Question(int(answer.ids[place]), kind="log_probability") if METHODS[name].asks else None
            alone = methods.explain(name, model, answer.inputs(model, place), question, **options)[0]
            scale = float(alone.scores.abs().max())
            torch.testing.assert_close(found.row(step).scores, alone.scores.double(), rtol=0, atol=bound * scale)
            assert (not found.scores[step, place:].any() and found.row(step).target_name == alone.target_name) or not (
                METHODS[name].asks
            )
    assert state_sha256(model.module) == model.sha256


@pytest.mark.parametrize("operator", ["delete", "word"])
@pytest.mark.parametrize("name", ["logit", "difference"])
def test_leaving_out_asks_the_model_itself(operator, name):
    model = decoders.causal("llama")
    answer, against = said(model), "dull" if name == "difference" else None
    found = stepwise.explain("leave_one_out", model, answer, against=against, operator=operator)
    the, dull = model.class_index("the"), model.class_index("dull")

    def asked(ids, target):
        logits = model.module(input_ids=torch.tensor([ids])).logits[0, -1]
        return float(logits[target] - (logits[dull] if against else 0))

    with torch.no_grad():
        for step, place in enumerate(answer.explained):
            before, target = answer.ids[:place].tolist(), int(answer.ids[place])
            assert float(found.values[step]) == pytest.approx(asked(before, target), abs=1e-9)
            for i in range(place):
                changed = before[:i] + ([the] if operator == "word" else []) + before[i + 1 :]
                loss = asked(before, target) - asked(changed, target)
                assert float(found.scores[step, i]) == pytest.approx(loss, abs=1e-9)


def test_a_prompt_of_one_token_can_be_left_out():
    model = decoders.causal("llama")
    model.tokenizer.bos_token = "[CLS]"
    answer = answers.within(model, LONG, "funny friends")
    found = stepwise.explain("leave_one_out", model, answer, operator="delete")
    alone = methods.explain("leave_one_out", model, answer.inputs(model, 1), int(answer.ids[1]), operator="delete")[0]
    assert float(found.scores[0, 0]) == pytest.approx(float(alone.scores[0])) and found.scores[1, :2].all()


def test_log_probabilities_add_up_to_that_of_the_whole_answer():
    model = decoders.causal("llama")
    answer = said(model)
    with torch.no_grad():
        logits = model.module(input_ids=answer.ids[None]).logits[0].log_softmax(-1)
    whole = sum(float(logits[place - 1, answer.ids[place]]) for place in answer.explained)
    found = stepwise.explain("gradient_x_input", model, answer, "log_probability")
    assert float(found.values.sum()) == pytest.approx(whole)
    total = found.whole()
    assert total.labels == answer.labels[:6] and total.target_name == "warm film of"
    torch.testing.assert_close(total.scores, found.scores[:, :6].sum(0))
    shares = stepwise.explain("rollout", model, answer)
    torch.testing.assert_close(shares.whole().scores, shares.scores[:, :6].mean(0))
    assert torch.isnan(shares.values).all() and shares.unit == "share of the input"


def test_groups_by_hand():
    model = decoders.causal("llama")
    answer = said(model)
    scores = torch.tril(torch.arange(1.0, 28).view(3, 9), 5).double()
    found = stepwise.Steps(answer, scores, scores[:, 0], "gradient_x_input", "m", "logit", True)
    shown = found.grouped()
    assert list(shown.columns) == LONG.split()[:8] and list(shown.index) == ["warm", "film", "of"]
    np.testing.assert_array_equal(shown.to_numpy(), scores[:, :8])
    first, last = (0, len("two funny friends")), (LONG.index("warm"), len(LONG))
    shown = found.grouped({"friends": [first], "answer": [(last[0], len(answer.text))]}, [(last[0], len(answer.text))])
    assert list(shown.columns) == ["friends", "answer", stepwise.REST] and list(shown.index) == ["warm film of"]
    added = scores.sum(0)
    np.testing.assert_allclose(shown.to_numpy(), [[added[:3].sum(), added[6:].sum(), added[3:6].sum()]])
    unsigned = stepwise.Steps(answer, scores, scores[:, 0], "rollout", "m", "share", False)
    np.testing.assert_allclose(unsigned.grouped("tokens", "sentences").to_numpy(), [scores[:, :8].mean(0).tolist()])
    with pytest.raises(ValueError, match="no group of the rows holds a token of the answer"):
        found.grouped("words", {"friends": [first]})


def test_what_cannot_be_explained_is_refused():
    model = decoders.causal("llama")
    answer = said(model)
    with pytest.raises(ValueError, match="method is 'saliency'"):
        stepwise.explain("saliency", model, answer)
    with pytest.raises(TypeError, match="mamba_lrp cannot explain tiny llama"):
        stepwise.explain("mamba_lrp", model, answer)
    with pytest.raises(ValueError, match="kind of target is 'odds'"):
        stepwise.explain("rollout", model, answer, "odds")
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        stepwise.explain("rollout", model, answer, depth=3)
    with pytest.raises(IndexError, match="step is 3, but there are 3"):
        stepwise.explain("rollout", model, answer).row(3)
    module = decoders.built("llama")
    with torch.no_grad():
        module.model.layers[0].self_attn.v_proj.weight[0, 0] = float("nan")
    broken = decoders.wrapped("llama", module)
    with pytest.raises(ValueError, match="NaN"):
        stepwise.explain("gradient_x_input", broken, answer)
