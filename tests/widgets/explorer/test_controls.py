"""The controls alone: what they are filled with is what they read back, and what a model offers comes first."""

from dataclasses import replace
from itertools import permutations

import decoders
import pytest
import tiny

from xai_utils import methods
from xai_utils.models import Question
from xai_utils.samples import prompts
from xai_utils.widgets.explorer import view
from xai_utils.widgets.explorer.controls import PREDICTED, Controls
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


def test_classes_come_most_likely_first_behind_the_chosen_one():
    model, one = tiny.model("bert"), captured(TEXT)
    order = one.seen.logits[0].argsort(descending=True).tolist()
    free, chosen = filled(replace(TEXT, target=None)), filled(replace(TEXT, target=order[-1]))
    assert free.target.options == (PREDICTED, *((model.classes[i], i) for i in order)) and free.target.value == ""
    assert [value for _, value in chosen.target.options] == ["", order[-1], *order[:-1]]
    assert chosen.target.value == order[-1]


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_methods_that_suit_the_model_come_first_and_the_rest_says_so(name):
    offered = filled(Request(name, methods=("rollout",))).methods.options
    suiting = methods.methods_for(tiny.model(name))
    assert tuple(value for _, value in offered[: len(suiting)]) == suiting
    assert {value for _, value in offered} == set(methods.METHODS)
    assert all(("not for this model" in text) != (value in suiting) for text, value in offered)


def test_a_layer_counted_from_the_end_is_shown_by_its_number_and_played():
    controls = filled(PICTURE)
    assert (controls.layer.value, controls.layer.max) == (tiny.BLOCKS - 1, tiny.BLOCKS - 1)
    controls.play.value = 0
    assert controls.layer.value == 0 and not controls.layer.disabled
    without = filled(Request("resnet", methods=("gradcam",)))
    assert without.layer.disabled and without.layer.max == without.play.max == 0


def test_inputs_of_the_models_kind_are_offered():
    assert all(" " in one for one in filled(TEXT).sample.options)
    assert "scene:3:2" in filled(PICTURE).sample.options


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
    assert controls.target.description == "next word" and controls.target.value == model.class_index("warm")
    assert controls.asked(asked) == replace(asked, target=model.class_index("warm"))
    assert prompts.draw("notes", 0).text in controls.sample.options
    controls.model.value = "electra"
    assert controls.asked(asked).against == ""
