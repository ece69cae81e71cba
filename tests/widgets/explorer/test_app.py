"""The explorer driven by its controls on tiny models: what is captured again, what is only redrawn, what is said."""

import io
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import decoders
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from xai_utils import methods, models
from xai_utils.models import Question, removal
from xai_utils.samples import Text
from xai_utils.widgets.explorer import app, decided, files
from xai_utils.widgets.explorer import view as exploration
from xai_utils.widgets.explorer.linked import Linked
from xai_utils.widgets.explorer.view import Request

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SENTENCE = "the film is not dull , but slow ."
VIEW = Request("bert", SENTENCE, methods=("rollout", "attnlrp"), layer=0)
PICTURE = Request("timm-vit", "scene:3:2", methods=("rollout",), layer=1)


@pytest.fixture
def one(tmp_path):
    return app.Explorer(VIEW, folder=tmp_path / "views")


def numbers(picture: Linked, trait: str, rows: int) -> np.ndarray:
    return np.frombuffer(getattr(picture, trait), dtype=np.float32).reshape(rows, -1)


def passes(model, act) -> int:
    seen = []
    handle = model.module.register_forward_hook(lambda *_: seen.append(1))
    try:
        act()
    finally:
        handle.remove()
    return len(seen)


def held(monkeypatch) -> tuple[threading.Event, threading.Event]:
    """Hold every pass: return what is set when one has begun, and what lets it go on."""
    begun, go, capture = threading.Event(), threading.Event(), exploration.capture

    def slow(model, sample, target):
        begun.set()
        go.wait(20)
        return capture(model, sample, target)

    monkeypatch.setattr(app.view, "capture", slow)
    return begun, go


def test_the_browser_gets_the_numbers_of_the_view(one):
    picture, captured = one.pictures["first"], one.shown["first"]
    n = len(exploration.names_of(captured))
    assert np.allclose(numbers(picture, "matrix", n), exploration.linked(captured, 0, None))
    assert np.allclose(numbers(picture, "heads", tiny.HEADS), exploration.heads(captured, 0, 0))
    own = methods.explain("attnlrp", captured.model, captured.sample)
    assert np.allclose(numbers(picture, "scores", 2)[1], own.scores)
    assert [about["signed"] for about in picture.maps] == [False, True]
    assert picture.special == [0, n - 1] and not one.message.value


def test_layer_head_position_and_change_ask_the_model_nothing(one):
    def drag():
        one.controls.layer.value = 2
        one.pictures["first"].head = 1
        one.pictures["first"].query = 3
        one.controls.change.value = "heat"
        one.controls.strength.value = 5.0
        one.controls.table.value = True

    version = one.pictures["first"].version
    assert passes(tiny.model("bert"), drag) == 0
    assert one.request == replace(VIEW, layer=2, head=1, query=3, change="heat", strength=5.0)
    picture, captured = one.pictures["first"], one.shown["first"]
    n = len(exploration.names_of(captured))
    assert np.allclose(numbers(picture, "matrix", n), exploration.linked(captured, 2, 1))
    assert np.allclose(numbers(picture, "heads", tiny.HEADS), exploration.heads(captured, 2, 3))
    assert len(picture.maps) == 3 and picture.version > version and picture.table


def test_another_class_and_method_are_asked_for_in_a_thread(one):
    one.controls.target.value = "good"
    one.wait()
    assert (
        one.request.target == 2
        and one.controls.target.value.startswith("good · ")
        and one.shown["first"].seen.targets == (2,)
    )
    one.controls.methods.value = ("gradient_norm",)
    one.wait()
    assert [about["title"] for about in one.pictures["first"].maps] == ["gradient_norm · good"]
    assert one.controls.progress.description == "ready" and one.controls.stop.disabled


def test_a_second_model_follows_the_position_where_the_tokens_are_the_same(one):
    one.controls.second.value = "electra"
    one.wait()
    assert one.side.children == (one.pictures["first"], one.pictures["second"])
    one.pictures["second"].query = 2
    assert one.pictures["first"].query == 2 and one.request.query == 2
    one.controls.second.value = "timm-vit"
    one.wait()
    assert "same kind" in one.message.value and one.request.second_model == "electra"


def test_a_model_of_the_other_kind_gets_the_last_input_of_its_kind(one):
    one.controls.model.value = "timm-vit"
    one.wait()
    assert (one.request.model, one.request.sample, one.controls.sample.value) == ("timm-vit", "scene:3:2", "scene:3:2")
    one.controls.model.value = "bert"
    one.wait()
    assert one.request.sample == SENTENCE and not one.message.value


def test_a_smaller_or_attentionless_model_has_its_own_limits(one):
    one.controls.layer.value = 2
    one.controls.model.value = "resnet"
    one.wait()
    assert one.pictures["first"].matrix == b"" and one.controls.layer.disabled and one.request.layer == 0
    one.controls.methods.value = ("gradcam", "rollout")
    one.wait()
    assert [bool(about["problem"]) for about in one.pictures["first"].maps] == [False, True]


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("model", "no such", "no model"),
        ("sample", "   ", "at least one word"),
        ("second", "no such", "no model"),
    ],
)
def test_a_mistake_becomes_a_message_and_the_view_stays(one, control, value, words):
    before = one.request, one.pictures["first"].matrix
    getattr(one.controls, control).value = value
    one.wait()
    assert words in one.message.value and "Traceback" not in one.message.value
    assert (one.request, one.pictures["first"].matrix) == before
    getattr(one.controls, control).value = getattr(VIEW, {"second": "second_model"}.get(control, control))
    one.controls.layer.value = 1
    one.wait()
    assert one.pictures["first"].title.startswith("tiny bert: layer 1") and not one.message.value


def test_a_misspelt_model_is_told_what_was_meant(one):
    one.controls.model.value = "vit-scene"
    one.wait()
    assert "Did you mean vit-scenes?" in one.message.value and one.request == VIEW


def test_stop_ends_what_is_running_and_the_view_stays(one, monkeypatch):
    begun, go = held(monkeypatch)
    one.controls.sample.value = "a warm plot"
    assert begun.wait(20) and not one.controls.stop.disabled
    assert one.pictures["first"].stale, "what is shown is not what the controls say"
    one.controls.stop.click()
    go.set()
    one.worker.join()
    assert "stopped" in one.message.value and one.request.sample == SENTENCE and one.pictures["first"].stale
    one.controls.look.click()
    one.wait()
    assert one.request.sample == "a warm plot" and not one.message.value and not one.pictures["first"].stale


def test_a_layer_chosen_while_the_model_is_asked_counts(one, monkeypatch):
    begun, go = held(monkeypatch)
    one.controls.sample.value = "a warm plot"
    assert begun.wait(20)
    one.controls.layer.value, one.controls.change.value = 2, "heat"
    go.set()
    one.wait()
    assert (one.request.sample, one.request.layer, one.request.change) == ("a warm plot", 2, "heat")
    assert (one.controls.layer.value, one.controls.change.value) == (2, "heat")
    assert one.pictures["first"].title.startswith("tiny bert: layer 2")


def test_a_layer_chosen_while_controls_are_filled_counts(one, monkeypatch):
    filling, fill = threading.Event(), one.controls.fill

    def slow(*given):
        filling.set()
        end = time.monotonic() + 20
        while one.controls.layer.value != 2 and time.monotonic() < end:
            time.sleep(0.01)
        fill(*given)

    monkeypatch.setattr(one.controls, "fill", slow)
    one.controls.sample.value = "a warm plot"
    assert filling.wait(20)
    one.controls.layer.value = 2
    one.wait()
    assert (one.request.layer, one.controls.layer.value) == (2, 2)
    assert one.pictures["first"].title.startswith("tiny bert: layer 2")


def test_an_interrupted_kernel_leaves_a_message_and_a_working_explorer(one, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(app.view, "linked", interrupted)
        one.controls.layer.value = 2
    assert "interrupted" in one.message.value
    one.controls.layer.value = 1
    assert one.pictures["first"].title.startswith("tiny bert: layer 1")


@pytest.mark.parametrize("name", ["resnet", "vim", "headless", "timm-vit"])
def test_a_model_greets_with_maps_and_not_with_refusals(one, name, monkeypatch):
    if name == "headless":
        bare = replace(tiny.model("bert"), classes=(), name="headless")
        monkeypatch.setattr(models, "load", lambda *_: bare)
    one.controls.model.value = name
    one.wait()
    about = one.pictures["first"].maps
    assert about and not any(one["problem"] for one in about) and not one.message.value
    assert one.pictures["first"].decision.startswith(
        "predicted" if name != "headless" else "headless has no classifier"
    )


def test_a_position_of_another_sentence_is_forgotten(one):
    one.pictures["first"].query = 3
    one.controls.sample.value = "a warm plot"
    one.wait()
    assert one.request.query == 0


def test_an_example_becomes_the_input(one):
    chosen = one.controls.examples.options[1]
    one.controls.examples.value = chosen
    one.wait()
    assert one.controls.sample.value == one.request.sample == chosen


def test_two_methods_or_two_models_are_subtracted(one):
    one.controls.difference.value = True
    maps = one.pictures["first"].maps
    assert [about["title"] for about in maps][2] == "rollout − attnlrp" and maps[2]["signed"]
    one.controls.second.value = "electra"
    one.wait()
    assert [about["title"] for about in one.pictures["first"].maps][2].startswith("rollout, minus tiny electra")
    assert len(one.pictures["second"].maps) == 2


def test_a_word_taken_away_changes_the_probability_that_is_told(one):
    picture, captured = one.pictures["first"], one.shown["first"]
    assert picture.decision == decided.said(captured.model, captured.logits) and picture.checkable
    picture.gone = [2, 4]
    keep = torch.ones(1, len(captured.batch.labels[0]), dtype=torch.bool)
    keep[0, [2, 4]] = False
    after = removal.scorer(captured.model, captured.sample, decided.asked_class(captured))(keep)
    assert f"→ {decided.percent(float(after))}; predicted" in picture.told
    picture.gone = []
    assert not picture.told and not one.message.value
    picture.gone = [0]
    assert "special token" in one.message.value


def test_the_first_words_of_a_map_are_taken_away_beside_random_ones(one):
    picture, captured = one.pictures["first"], one.shown["first"]
    picture._handle_custom_msg({"top": 1}, [])
    found = decided.checked(captured, exploration.panels(captured, one.request)[1])
    assert picture.gone == found.gone and picture.told.endswith(str(found)) and "attnlrp" in picture.told
    one.controls.sample.value = "a warm plot"
    one.wait()
    assert picture.gone == [] and not picture.told, "another input is whole"


def test_messages_cannot_carry_markup(one):
    one.controls.model.value = "<script>alert(1)</script>"
    one.wait()
    assert "<script>" not in one.message.value and "&lt;script&gt;" in one.message.value


def test_what_is_shown_is_exported(one, tmp_path):
    one.controls.layer.value = 2
    one.controls.export.click()
    kept = sorted(path.suffix for path in (tmp_path / "views").glob("view_*"))
    assert (
        kept == [".csv", ".html", ".json", ".pdf", ".png", ".svg", ".yml"]
        and "written into views: view_" in one.message.value
    )
    (parameters,) = (tmp_path / "views").glob("*.yml")
    assert "LAYER: 2\n" in parameters.read_text()


def upload(name: str, content: bytes):
    return ({"name": name, "content": memoryview(content), "type": "", "size": len(content), "last_modified": MOMENT},)


def test_an_uploaded_picture_is_kept_and_looked_at(tmp_path):
    one, file = app.Explorer(PICTURE, folder=tmp_path), io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(file, "png")
    one.controls.upload.set_trait("value", upload("mine.PNG", file.getvalue()))
    one.wait()
    (kept,) = tmp_path.glob("mine_*.png")
    assert one.request.sample == kept.name and kept.read_bytes() == file.getvalue()


def test_an_upload_that_is_no_picture_or_too_large_is_refused(tmp_path, monkeypatch):
    one, file = app.Explorer(PICTURE, folder=tmp_path), io.BytesIO()
    one.controls.upload.set_trait("value", upload("notes.png", b"no picture"))
    assert "notes.png" in one.message.value and "cannot be read as a picture" in one.message.value
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(file, "png")
    monkeypatch.setattr(files, "LARGEST", 500)
    one.controls.upload.set_trait("value", upload("huge.png", file.getvalue()))
    assert "30 x 20 pixels" in one.message.value and not list(tmp_path.iterdir())
    assert one.request == PICTURE


def test_nothing_is_exported_where_nothing_is_shown(tmp_path):
    one = app.Explorer(Request("no such", "x"), folder=tmp_path)
    assert "no model" in one.message.value
    one.controls.export.click()
    assert "no view to export" in one.message.value and not list(tmp_path.iterdir())
    one.controls.model.value = "bert"
    one.wait()
    assert one.shown and not one.message.value


def test_a_language_model_says_what_speaks_for_one_word_and_against_another(tmp_path, monkeypatch):
    model = decoders.causal("llama")
    monkeypatch.setattr(models, "load", lambda name, device: model if name == "llama" else tiny.model(name))
    asked = Request("llama", SENTENCE, "warm", ("attnlrp", "leave_one_out", "gradcam"), 1)
    one = app.Explorer(asked, folder=tmp_path)
    one.controls.against.value = "dull"
    one.wait()
    own = methods.explain("attnlrp", model, Text(SENTENCE), Question("warm", "dull"))
    picture, last = one.pictures["first"], len(own.scores) - 1
    assert np.allclose(numbers(picture, "scores", 2)[0], own.scores) and not one.message.value
    assert [about["problem"] for about in picture.maps] == ["", ""], "what does not suit the model is left out"
    assert "−" in picture.maps[0]["title"] and one.request.against == "dull"
    assert one.request.query == picture.query == last  # the first position reads itself alone
    one.controls.against.value = "no such word at all"
    one.wait()
    assert "no such word at all" in one.message.value and one.request.against == "dull"
    written = files.export(one.request, one.shown, tmp_path)
    assert "AGAINST: dull" in written[-1].read_text()
    assert files.target_of(one.request, "another") is None


def test_a_head_of_the_overview_is_enlarged_and_lines_are_drawn_where_asked_for(one):
    picture, captured = one.pictures["first"], one.shown["first"]

    def look():
        one.controls.everywhere.value = one.controls.lines.value = True
        picture._handle_custom_msg({"layer": 2, "head": 1}, [])

    assert passes(tiny.model("bert"), look) == 0
    assert (one.request.layer, one.request.head, one.controls.layer.value) == (2, 1, 2)
    n = len(exploration.names_of(captured))
    assert np.allclose(numbers(picture, "matrix", n), exploration.linked(captured, 2, 1)) and picture.lines
    picture.query = 2
    every = numbers(picture, "overview", tiny.BLOCKS * tiny.HEADS)
    assert np.allclose(every.reshape(tiny.BLOCKS, tiny.HEADS, n), captured.attention[:, :, 2])
    one.controls.everywhere.value = False
    assert picture.overview == b"" and not one.message.value
