"""Every row of the table of targets against arithmetic; questions are resolved once, taken apart and put together."""

import pytest
import tiny
import torch

from xai_utils import methods, models
from xai_utils.models import targets
from xai_utils.models.targets import TARGETS, Asked, Question, asked
from xai_utils.samples import Text

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)


def test_every_row_is_its_formula():
    chance = LOGITS.softmax(-1)
    found = {kind: Asked((2, 1), (0, 0) if TARGETS[kind].against else None, kind).score(LOGITS) for kind in TARGETS}
    assert found["logit"].tolist() == [0.5, 3.0] and found["difference"].tolist() == [-0.5, 3.0]
    torch.testing.assert_close(found["probability"], chance[[0, 1], [2, 1]])
    torch.testing.assert_close(found["log_probability"], chance[[0, 1], [2, 1]].log())
    torch.testing.assert_close(
        Asked((2, 1), kind="probability", link="sigmoid").score(LOGITS), LOGITS.sigmoid()[[0, 1], [2, 1]]
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_the_seed_of_a_backward_pass_is_the_gradient_of_the_score(kind):
    question = Asked((2, 1), (0, 0) if TARGETS[kind].against else None, kind)
    seed, step = question.seed(LOGITS), 1e-6
    for place in range(3):
        moved = LOGITS.clone()
        moved[:, place] += step
        slope = (question.score(moved) - question.score(LOGITS)) / step
        torch.testing.assert_close(seed[:, place], slope, atol=1e-5, rtol=0)


def test_questions_become_numbers_and_names():
    model = tiny.model("bert")
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert asked(model, logits).targets == (2, 0) and asked(model, logits, "fair").names == ("fair", "fair")
    found = asked(model, logits, Question(["good", "bad"], against="fair"))
    assert (found.targets, found.against, found.kind) == ((2, 0), (1, 1), "difference")
    assert found.names == ("good − fair", "bad − fair") and found.unit == "logit"
    assert asked(model, 2, 1).targets == (1, 1) and found.of([1, 1, 0]).targets == (0, 0, 2)


@pytest.mark.parametrize(
    "target", [None, 1, "good", ["bad", 2], Question(1, [0, 2]), Question(None, kind="probability")]
)
def test_what_is_taken_apart_comes_together_again(target):
    model, logits = tiny.model("bert"), torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    again = targets.together(targets.per_sample(target, 2))
    assert asked(model, logits, again) == asked(model, logits, target)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (lambda: Question(1, kind="loudness"), "kind of target is 'loudness', expected one of: logit"),
        (lambda: Question(1, kind="difference"), "needs a class against"),
        (lambda: Question(1, 2, "probability"), "takes no class against; against is 2"),
        (lambda: asked(tiny.model("bert"), 2, ["good"]), "1 classes are given for 2 samples"),
        (lambda: asked(tiny.model("bert"), 2, "great"), "no class 'great'"),
        (lambda: asked(tiny.model("bert"), 2), "no class is named"),
        (lambda: targets.probabilities(LOGITS, "none"), "one number has no probability"),
    ],
)
def test_what_cannot_be_asked_is_refused(question, said):
    with pytest.raises(ValueError, match=said):
        question()


def test_a_head_of_one_number_is_asked_for_it_and_has_no_probability():
    torch.manual_seed(0)
    module = tiny.regression()
    model = models.wrap(module, tokenizer=tiny.tokenizer(), name="grade")
    assert model.classes == ("0",) and model.link == "none"
    found = methods.explain("gradient_x_input", model, tiny.SENTENCES)
    assert [one.target for one in found] == [0, 0, 0] and {one.unit for one in found} == {"number"}
    with pytest.raises(ValueError, match="gives one number and no probability"):
        methods.explain("gradient_x_input", model, tiny.SENTENCES, Question(0, kind="probability"))


METHODS = ("gradient_x_input", "integrated_gradients", "cp_lrp", "leave_one_out")


@pytest.mark.parametrize("method", METHODS)
def test_a_difference_is_the_difference_of_two_maps(method):
    """All four are linear in what is asked of the logits."""
    model, samples = tiny.model("bert"), tiny.SENTENCES
    options = {"steps": 8, "tolerance": None} if method == "integrated_gradients" else {}
    one, other = (methods.explain(method, model, samples, target, **options) for target in (2, 0))
    both = methods.explain(method, model, samples, Question("good", against="bad"), **options)
    for first, second, found in zip(one, other, both, strict=True):
        torch.testing.assert_close(found.scores, first.scores - second.scores, atol=1e-9, rtol=0)
        assert found.target_name == "good − bad"


@pytest.mark.parametrize("kind", TARGETS)
def test_leave_one_out_asks_for_what_is_asked(kind):
    model, sample = tiny.model("bert"), tiny.SENTENCES[1]
    question = Question(1, 2 if TARGETS[kind].against else None, kind)
    found = methods.explain("leave_one_out", model, sample, question)
    score = models.removal.scorer(model, sample, question, found.details["operator"])
    keep = torch.ones(2, len(found.scores), dtype=torch.bool)
    keep[1, 2] = False
    whole, without = score(keep).tolist()
    assert float(found.scores[2]) == pytest.approx(whole - without, abs=1e-12) != 0
    assert found.unit == TARGETS[kind].unit


TEXTS = [Text("[MASK] is the very slow film ."), Text("the plot is [MASK] .")]


@pytest.mark.parametrize("method", [*METHODS, "rollout", "gradient_rollout", "attcat", "generic_attention", "attnlrp"])
def test_masked_words_go_through_the_same_call_as_classes(method):
    model = tiny.mlm()
    question = Question("warm", against="dull") if methods.METHODS[method].asks else None
    together = methods.explain(method, model, TEXTS, question)
    for text, found in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(found.scores, methods.explain(method, model, text, question).scores)
        assert len(found.scores) == len(found.labels) and found.labels.count("[MASK]") == 1
        assert found.target_name == ("warm − dull" if question else "")


def test_row_methods_read_the_row_of_the_mask():
    model = tiny.mlm()
    seen = methods.observe(model, TEXTS, "warm")
    assert seen.reading.tolist() == [1, 4] and seen.view(1).readers.nonzero().flatten().tolist() == [4]
    torch.testing.assert_close(methods.attribute("attention", seen, 1).scores, seen.attention[-1, 1].mean(0)[4, :7])
    assert methods.explain("gradient_norm", model, TEXTS[0]).target == int(seen.logits[0].argmax())


def test_removal_never_takes_the_mask_away():
    model = tiny.mlm()
    batch = models.encode(model, TEXTS)
    assert (
        models.removal.places(batch, 1).tolist() == [1, 2, 3, 5] and models.removal.operators_for(model)[0] == "delete"
    )
    assert methods.explain("leave_one_out", model, TEXTS[1], "warm").scores[4] == 0
