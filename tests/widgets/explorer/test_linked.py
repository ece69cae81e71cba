"""The linked picture: which numbers it holds, what a redraw replaces, and how little it is."""

import io
from dataclasses import replace

import numpy as np
import pytest
import tiny
from matplotlib import colormaps
from PIL import Image

from xai_utils import plots, samples
from xai_utils.models import Preprocessing
from xai_utils.widgets.explorer import known, linked, view

ASKED = view.Request(methods=("rollout", "gradcam", "attnlrp"), layer=1)


def captured(name):
    return view.capture(tiny.model(name), tiny.samples(name)[0])


def shown(one, head=None, query=0):
    picture = linked.Linked()
    picture.show(one, view.panels(one, ASKED), 1, head, query)
    return picture


def numbers(raw, rows):
    return np.frombuffer(raw, dtype=np.float32).reshape(rows, -1)


def test_a_text_is_sent_as_names_map_heads_and_scores():
    one = captured("bert")
    picture, n = shown(one, head=2, query=3), len(view.names_of(one))
    np.testing.assert_allclose(numbers(picture.matrix, n), view.linked(one, 1, 2), rtol=1e-6)
    np.testing.assert_allclose(numbers(picture.heads, tiny.HEADS), view.heads(one, 1, 3), rtol=1e-6)
    assert picture.names == view.names_of(one) and picture.special == [0, n - 1]
    assert picture.picture == b"" and picture.grid == [] and picture.title == "tiny bert: layer 1, head 2"
    assert [bool(about["problem"]) for about in picture.maps] == [False, True, False]
    assert numbers(picture.scores, 2).shape == (2, n), "a map that is not there sends no scores"


def test_a_picture_is_sent_as_the_model_sees_it():
    one = captured("timm-distilled")
    picture = shown(one)
    seen = np.asarray(Image.open(io.BytesIO(picture.picture))).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(seen, one.batch.views[0], atol=0.5 / 255 + 1e-6)
    assert (picture.prefix, picture.grid) == (2, list(tiny.GRID))


def test_the_input_is_shown_whole_and_the_part_that_is_seen_outlined():
    model, wide = tiny.model("resnet"), samples.picture(np.full((40, 100, 3), 90, dtype=np.uint8))
    model = replace(model, preprocessing=replace(model.preprocessing, squash=False, resize=model.preprocessing.size))
    one = view.capture(model, wide, None)
    picture = shown(one)
    whole = np.asarray(Image.open(io.BytesIO(picture.whole))).astype(int)
    marked = np.flatnonzero((whole[10, :, 0] - whole[10, :, 2]) > 100)
    assert picture.cropped and whole.shape[:2] == (40, 100)
    expected = linked.seen_part((40, 100), model.preprocessing)
    assert abs(marked[0] - 100 * expected[0]) <= 1 and abs(marked[-1] - 100 * expected[2]) <= 2
    assert not shown(captured("timm-vit")).cropped


@pytest.mark.parametrize(("shape", "part"), [((40, 100), (0.3, 0, 0.7, 1)), ((100, 50), (0, 0.25, 1, 0.75))])
def test_the_part_that_is_seen_is_the_middle_or_with_squashing_all(shape, part):
    cut = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3)
    assert linked.seen_part(shape, cut) == pytest.approx(part, abs=0.02)
    assert linked.seen_part(shape, replace(cut, squash=True)) == pytest.approx((0, 0, 1, 1), abs=0.02)


def test_another_layer_and_other_maps_replace_only_their_numbers():
    one = captured("bert")
    picture = shown(one)
    matrix, scores, version = picture.matrix, picture.scores, picture.version
    picture.show_layer(one, 0, None)
    assert picture.matrix != matrix and picture.scores == scores and not picture.fresh
    assert picture.version == version + 1 and picture.title == "tiny bert: layer 0, mean of heads"
    matrix = picture.matrix
    picture.show_maps(one, view.panels(one, view.Request(methods=("gradient_norm",))))
    assert picture.matrix == matrix and picture.scores != scores
    assert [about["title"].split(" · ")[0] for about in picture.maps] == ["gradient_norm"]


def test_a_position_that_a_shorter_input_lacks_becomes_its_last():
    one = captured("bert")
    assert shown(one, query=99).query == len(view.names_of(one)) - 1


def test_a_model_without_attention_sends_no_linked_map():
    picture = shown(captured("resnet"))
    assert picture.matrix == picture.heads == b"" and picture.title == "tiny resnet"


def test_colours_are_those_of_the_plots():
    table = np.frombuffer(linked.Linked().colours, dtype=np.uint8).reshape(2, 256, 3)
    for own, name in zip(table, (plots.AMOUNT, plots.SIGNED), strict=True):
        np.testing.assert_allclose(own / 255, colormaps[name](np.linspace(0, 1, 256))[:, :3], atol=0.5 / 255 + 1e-9)


@pytest.mark.parametrize("words", [4, 20])
def test_the_browser_holds_one_map_and_one_row_of_every_head(words):
    model = tiny.model("bert")
    one = view.capture(model, samples.text(" ".join(["film"] * words)))
    sent, n = linked.sent(one, view.Request(methods=("rollout", "attnlrp"), layer=0)), words + 2
    assert sent.tokens == n and sent.everything == 4 * tiny.BLOCKS * tiny.HEADS * n * n
    assert sent.held == 4 * n * n + 4 * n * (tiny.HEADS + 2) + 2 * 256 * 3


def test_every_layer_and_head_is_sent_where_it_is_asked_for_and_follows_the_position():
    one = captured("bert")
    picture, n = shown(one, query=3), len(view.names_of(one))
    assert picture.overview == b"" and (picture.layer, picture.layers) == (1, tiny.BLOCKS)
    picture.everywhere = True
    picture.show_overview(one)
    sent = numbers(picture.overview, tiny.BLOCKS * tiny.HEADS).reshape(tiny.BLOCKS, tiny.HEADS, n)
    np.testing.assert_allclose(sent, one.attention[:, :, 3], rtol=1e-6)
    picture.query = 2
    picture.show_heads(one, 1)
    np.testing.assert_allclose(
        numbers(picture.overview, tiny.BLOCKS * tiny.HEADS)[-1], one.attention[-1, -1, 2], rtol=1e-6
    )
    picture.show(captured("resnet"), [], 0, None, 0)
    assert picture.overview == b""


def test_a_question_whether_the_kernel_is_there_is_answered_as_it_came(monkeypatch):
    picture, said = linked.Linked(), []
    monkeypatch.setattr(picture, "send", said.append)
    picture._handle_custom_msg({"alive": 7}, [])
    picture._handle_custom_msg({"top": 0}, [])
    assert said == [{"alive": 7}]


def test_a_badge_stands_beside_a_method_and_not_beside_another_map():
    model = replace(tiny.model("bert"), name="minilm-sst2")
    one = view.capture(model, tiny.samples("bert")[0])
    picture = linked.Linked()
    asked = replace(ASKED, methods=("rollout",), change="heat")
    picture.show(one, view.panels(one, asked), 0, None, 0)
    badges = [about["badge"] for about in picture.maps]
    assert badges == [known.badge(model, "rollout"), ""] and badges[0].startswith("on minilm-sst2 0.")
