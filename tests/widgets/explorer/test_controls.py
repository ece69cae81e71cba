"""The controls alone: what they are filled with is what they read back, and what a model offers comes first."""

from dataclasses import replace
from itertools import permutations

import decoders
import pytest
import tiny

from xai_utils import methods
from xai_utils.models import Question
from xai_utils.samples import prompts
from xai_utils.widgets.explorer import decided, view
from xai_utils.widgets.explorer.controls import PREDICTED, Controls, fitting
from xai_utils.widgets.explorer.view import CHANGES, Request

TEXT = Request("bert", tiny.SENTENCES[0].text, 1, ("attnlrp", "rollout"), 1, change="heat", strength=2.5)
PICTURE = Request("timm-vit", "scene:3:2", None, ("rollout",), -1, second_model="vit")


def captured(request):
    return view.capture(tiny.model(request.model), tiny.samples(request.model)[0], request.target)


def filled(request):
    controls = Controls()
    controls.fill(request, captured(request))
    return controls


@pytest.mark.parametrize("request_", [TEXT, PICTURE])
def test_what_is_filled_in_is_read_back(request_):
    read = filled(request_).asked(request_)
    assert set(read.methods) == set(request_.methods)
    assert replace(read, methods=request_.methods) == request_


def test_a_name_that_cannot_be_shown_is_still_written():
    controls, wrong = Controls(), replace(TEXT, model="no such", sample="")
    controls.name(wrong)
    assert (controls.model.value, controls.sample.value) == ("no such", "")


def test_a_class_chosen_for_another_model_does_not_count():
    controls = filled(TEXT)
    controls.model.value = " electra "
    assert controls.asked(TEXT).model == "electra" and controls.asked(TEXT).target is None


def test_classes_come_most_likely_first_with_their_probabilities():
    model, one = tiny.model("bert"), captured(TEXT)
    values, order = one.logits.softmax(-1).sort(descending=True)
    named = [f"{model.classes[i]} · {decided.percent(v)}" for i, v in zip(order.tolist(), values.tolist(), strict=True)]
    free, chosen = filled(replace(TEXT, target=None)), filled(replace(TEXT, target=int(order[-1])))
    assert list(free.target.options) == named and free.target.value == PREDICTED
    assert chosen.target.value == named[-1] and chosen.asked(TEXT).target == int(order[-1])
    chosen.target.value = model.classes[int(order[0])]
    assert chosen.asked(TEXT).target == int(order[0]), "a name may be typed without its probability"


def test_classes_of_the_same_name_are_told_apart():
    model = replace(tiny.model("bert"), classes=("crane", "wren", "crane"))
    one = replace(captured(TEXT), model=model)
    controls = Controls()
    controls.fill(replace(TEXT, target=None), one)
    for name in ("crane", "crane (2)"):
        controls.target.value = name
        assert model.classes[controls.asked(TEXT).target] == "crane"
    assert sorted(controls._answers.values()) == [0, 1, 2]


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_methods_that_suit_the_model_come_first_and_the_rest_says_why_not(name):
    offered = filled(Request(name, methods=("rollout",))).methods
    suiting = methods.methods_for(tiny.model(name))
    assert tuple(box.description for box in offered.children[: len(suiting)]) == suiting
    for method, box in offered.boxes.items():
        assert box.disabled == ("not for this model" in box.description) == (method not in suiting)
        assert box.tooltip == methods.METHODS[method].suits(tiny.model(name)) or not box.disabled


def test_a_tick_adds_a_method_and_another_takes_it_away():
    chosen = filled(TEXT).methods
    chosen.boxes["gradient_norm"].value = True
    assert chosen.value == (*TEXT.methods, "gradient_norm")
    chosen.boxes["rollout"].value = False
    assert chosen.value == ("attnlrp", "gradient_norm")
    chosen.value = ("flow",)
    assert [name for name, box in chosen.boxes.items() if box.value] == ["flow"]


@pytest.mark.parametrize("name", [*tiny.ALL, *tiny.OTHER])
def test_every_model_has_something_to_begin_with(name):
    kept = fitting(tiny.model(name), ("flow", "gradcam"))
    assert 0 < len(kept) <= 4 and set(kept) <= set(methods.methods_for(tiny.model(name)))


def test_every_control_says_what_it_is_for():
    controls = Controls()
    names = ("model", "second", "sample", "examples", "upload", "target", "against", "layer", "change", "strength",
             "table", "pieces", "difference", "dpi", "look", "stop", "export")  # fmt: skip
    assert all(getattr(controls, name).tooltip for name in names)


def test_a_layer_counted_from_the_end_is_shown_by_its_number_and_played():
    controls = filled(PICTURE)
    assert (controls.layer.value, controls.layer.max) == (tiny.BLOCKS - 1, tiny.BLOCKS - 1)
    controls.play.value = 0
    assert controls.layer.value == 0 and not controls.layer.disabled
    without = filled(Request("resnet", methods=("gradcam",)))
    assert without.layer.disabled and without.layer.max == without.play.max == 0


def test_inputs_of_the_models_kind_are_offered():
    assert all(" " in one for one in filled(TEXT).examples.options)
    assert "scene:3:2" in filled(PICTURE).examples.options and filled(TEXT).upload.disabled


def test_the_slider_takes_the_range_of_every_change_whatever_was_before():
    controls = Controls()
    for pair in permutations(CHANGES, 2):
        for change in pair:
            _, least, greatest, first = CHANGES[change]
            controls.fill_change(change, None)
            assert (controls.strength.min, controls.strength.max) == (least, greatest)
            assert controls.strength.value == first and controls.strength.description == CHANGES[change][0]
            assert controls.strength.disabled == (change == view.NONE)
            controls.fill_change(change, greatest)
            assert controls.asked(TEXT).strength == (None if change == view.NONE else greatest)


def test_a_language_model_has_prompts_and_next_words():
    model = decoders.causal("llama")
    one = view.capture(model, tiny.SENTENCES[0], Question("warm", "dull"))
    controls, asked = Controls(), Request("llama", tiny.SENTENCES[0].text, "warm", ("attnlrp",), 0, against="dull")
    controls.fill(asked, one)
    assert controls.target.description == "next word" and controls.target.value.startswith("warm · ")
    assert controls.asked(asked) == replace(asked, target=model.class_index("warm"))
    assert prompts.draw("notes", 0).text in controls.examples.options
    controls.model.value = "electra"
    assert controls.asked(asked).against == ""
