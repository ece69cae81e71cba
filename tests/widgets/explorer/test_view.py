"""What a view shows: the numbers of the methods themselves, a model's own limits in words, and parameters both ways."""

import pytest
import tiny
import torch

from xai_utils import methods
from xai_utils.samples import Text
from xai_utils.widgets.explorer import view as exploration
from xai_utils.widgets.explorer.view import CHANGES, Request, requested

BOTH = pytest.mark.parametrize("name", ["bert", "timm-distilled"])


def captured(name, target=None):
    return exploration.capture(tiny.model(name), tiny.samples(name)[0], target)


def test_a_view_survives_being_written_as_parameters():
    view = Request("bert-base", "a film", "good", ("flow",), 2, 3, 4, "heat", 2.5, "minilm", "bad", True)
    assert requested({**view.parameters(), "SEED": 0, "plt": None}) == view
    assert requested({}) == Request()
    assert view.parameters()["METHODS"] == ["flow"]


def test_what_a_command_line_makes_of_a_text_or_a_list_is_read_as_it_was_meant():
    read = requested({"SAMPLE": 1999, "METHODS": "rollout"})
    assert read == Request(sample="1999", methods=("rollout",))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"methods": ("rolout",)}, "rollout"),
        ({"methods": "rolout"}, "method is 'rolout'"),
        ({"sample": True}, "sample is True, a bool and no text. YAML reads yes"),
        ({"change": "blur"}, "change"),
        ({"change": "discard", "strength": 1.0}, "discard takes a share from 0.0 to 0.95"),
        ({"change": "heat", "strength": float("nan")}, "heat takes a time"),
    ],
)
def test_a_view_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Request(**wrong)


@BOTH
def test_the_linked_map_is_one_layers_attention(name):
    one = captured(name)
    heads = torch.stack([exploration.linked(one, 1, head) for head in range(tiny.HEADS)])
    torch.testing.assert_close(exploration.linked(one, 1, None), heads.mean(0))
    assert torch.equal(exploration.heads(one, 1, 2), heads[:, 2])
    assert exploration.linked(one, 1, 0).shape == (len(exploration.names_of(one)),) * 2


@BOTH
def test_a_panel_is_the_methods_own_map_and_is_computed_once(name):
    one = captured(name, target=1)
    for method in ("rollout", "gradient_rollout", "attnlrp"):
        own = methods.explain(method, one.model, one.sample, 1)
        assert torch.equal(exploration.panel(one, method).found.scores, own.scores)
        assert exploration.panel(one, method) is exploration.panel(one, method)


def test_a_method_that_cannot_explain_a_model_says_why_in_its_place():
    shown = exploration.panels(captured("bert"), Request(methods=("gradcam", "rollout")))
    assert shown[0].found is None and shown[0].problem
    assert shown[1].found is not None


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "none"])
@BOTH
def test_before_is_rollout_and_after_differs(name, change):
    before, after = exploration.before_after(captured(name), change)
    assert torch.equal(before.found.scores, exploration.panel(captured(name), "rollout").found.scores)
    assert change in after.title and not torch.equal(after.found.scores, before.found.scores)


def test_without_a_change_there_is_nothing_before_and_after():
    assert exploration.before_after(captured("bert"), "none") == ()


def test_a_difference_is_of_shares_and_signed():
    one = captured("bert")
    request = Request(methods=("rollout", "attnlrp"), difference=True)
    first, second, both = exploration.panels(one, request)
    shares = [map_.found.scores.double() / map_.found.scores.double().abs().sum() for map_ in (first, second)]
    torch.testing.assert_close(both.found.scores, shares[0] - shares[1])
    assert both.found.signed and both.title == "rollout − attnlrp"
    assert exploration.difference(first, first, "x").problem.startswith("the two maps are the same")
    (_, alone) = exploration.panels(one, Request(methods=("rollout",), difference=True))
    assert "choose two methods" in alone.problem


def test_two_models_are_subtracted_once_and_only_over_the_same_tokens():
    one, other, picture = captured("bert"), captured("electra"), captured("vit")
    request = Request(methods=("rollout",), difference=True)
    (_, minus) = exploration.panels(one, request, {"first": one, "second": other})
    assert minus.found.signed and "minus tiny electra" in minus.title
    assert len(exploration.panels(other, request, {"first": one, "second": other})) == 1
    (_, odd) = exploration.panels(one, request, {"first": one, "second": picture})
    assert "different tokens" in odd.problem


def test_a_word_that_is_not_known_keeps_its_letters():
    model = tiny.model("bert")
    one = exploration.capture(model, Text("the zebra film"), None)
    assert exploration.names_of(one)[1:-1] == ["the", "zebra [UNK]", "film"]


def test_a_model_without_attention_has_methods_and_no_linked_map():
    one = captured("resnet")
    assert one.seen is None
    with pytest.raises(ValueError, match="no attention to show"):
        exploration.linked(one, 0, None)
    (alone,) = exploration.before_after(one, "heat")
    assert "no attention" in alone.problem
    assert exploration.panel(one, "gradcam").found is not None


def test_positions_have_names_and_special_ones_are_known():
    text, picture = captured("bert"), captured("timm-distilled")
    assert exploration.names_of(text)[0] == "[CLS]" and exploration.special(text) == [0, len(text.batch.labels[0]) - 1]
    assert exploration.names_of(picture)[:3] == ["[CLS]", "[1]", "0,0"] and exploration.special(picture) == []


def test_a_layer_head_or_position_that_is_not_there_is_refused():
    one = captured("bert")
    for wrong in (lambda: exploration.linked(one, 9, None), lambda: exploration.linked(one, 0, 9)):
        with pytest.raises(IndexError, match="9, but there are"):
            wrong()
    with pytest.raises(IndexError, match="query is 99"):
        exploration.heads(one, 0, 99)


def test_the_sample_is_read_as_the_model_takes_it():
    assert exploration.sample_of(tiny.model("bert"), "a film").text == "a film"
    assert exploration.sample_of(tiny.model("vit"), "scene:3").masks
    with pytest.raises(ValueError, match="at least one word"):
        exploration.sample_of(tiny.model("bert"), " ")
    with pytest.raises(FileNotFoundError, match="no picture 'a film'"):
        exploration.sample_of(tiny.model("vit"), "a film")
