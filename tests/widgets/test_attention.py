"""Widgets on tiny models, driven by their values: what is redrawn, what is repeated, what is said when it fails."""

import io
import re
from itertools import pairwise

import ipywidgets as widgets
import numpy as np
import pytest
import tiny
import torch
from matplotlib import pyplot as plt
from PIL import Image

from xai_utils import methods, models
from xai_utils.methods.observation import observe
from xai_utils.models import Model
from xai_utils.samples import Text
from xai_utils.widgets import attention

BOTH = pytest.mark.parametrize("name", ["bert", "timm-distilled"])
CONTROLS = {"method", "layer", "head", "row", "fusion", "discard", "residual", "class"}
MOVES = (  # a control, and a value to move it to
    ("head", 2), ("layer", 0), ("method", "rollout"), ("row", "mean"), ("fusion", "max"), ("discard", 0.8),
    ("residual", 0.1), ("method", "gradient_rollout"), ("class", 1), ("class", 2),
)  # fmt: skip
USED = {
    "attention": {"method", "layer", "head", "row", "class"},
    "rollout": {"method", "layer", "row", "fusion", "discard", "residual", "class"},
    "gradient_rollout": {"method", "layer", "row", "discard", "residual", "class"},
}


class Explorer:
    """An explorer with its parts by name, and the number of passes its model has made."""

    def __init__(self, model, sample):
        self.passes = 0
        handle = model.module.register_forward_hook(self._count)
        self.box = attention.attention(model, sample)
        self.stop = handle.remove
        found = list(self._walk(self.box))
        self.controls = {part.description: part for part in found if getattr(part, "description", "")}
        (self.image,) = [part for part in found if isinstance(part, widgets.Image)]
        (self.note,) = [part for part in found if isinstance(part, widgets.HTML)]

    def _count(self, *_):
        self.passes += 1

    def _walk(self, part):
        yield part
        for child in getattr(part, "children", ()):
            yield from self._walk(child)

    @property
    def picture(self):
        return np.asarray(Image.open(io.BytesIO(bytes(self.image.value))).convert("L"), dtype=float)

    def told(self):
        """Return the labels and scores of the note."""
        return re.findall(r"(\S+) ([-\d.e+]+)(?=, |$)", re.sub(r" <small>.*", "", self.note.value).partition(": ")[2])


def sample(name):
    return tiny.samples(name)[1]


def explorer(name):
    return Explorer(tiny.model(name), sample(name))


@BOTH
def test_it_opens_with_a_picture_of_a_few_kilobytes(name):
    before = plt.get_fignums()
    opened = explorer(name)
    opened.stop()
    assert set(opened.controls) == CONTROLS and opened.controls["layer"].value == tiny.BLOCKS - 1
    assert bytes(opened.image.value).startswith(b"\x89PNG") and len(opened.image.value) < 100_000
    assert opened.picture.std() > 5 and opened.note.value.startswith("strongest: ")
    assert plt.get_fignums() == before, "a figure of pyplot is left open"


@BOTH
def test_every_control_moves_the_picture(name):
    opened = explorer(name)
    opened.stop()
    for control, value in MOVES:
        before, note = bytes(opened.image.value), opened.note.value
        opened.controls[control].value = opened.controls[control].options[value][1] if control == "class" else value
        assert bytes(opened.image.value) != before and opened.note.value != note, control
        assert "color" not in opened.note.value, opened.note.value


@BOTH
def test_it_shows_what_the_methods_say(name):
    opened = explorer(name)
    opened.stop()
    seen = observe(tiny.model(name), [sample(name)])
    for method, options in (
        ("attention", {"layer": 1, "head": 3, "row": "max"}),
        ("rollout", {"layer": 1, "row": "max", "fusion": "min", "discard": 0.5, "residual": 0.25}),
        ("gradient_rollout", {"layer": 1, "row": "max", "discard": 0.5, "residual": 0.25}),
    ):
        for key, value in {"method": method, **options}.items():
            opened.controls[key].value = value
        found = methods.attribute(method, seen, **options)
        order = found.scores.argsort(descending=True, stable=True)[:4].tolist()
        assert opened.told() == [(found.labels[i], f"{float(found.scores[i]):.3g}") for i in order]


def test_the_map_beside_the_row_is_the_one_it_is_read_from(monkeypatch):
    drawn = []
    monkeypatch.setattr(attention.plots, "matrix", lambda _ax, values, *_, **__: drawn.append(values))
    opened = explorer("bert")
    opened.stop()
    seen = observe(tiny.model("bert"), [sample("bert")])
    for method, options in (("attention", {"layer": 1, "head": 2, "row": 3}), ("rollout", {"fusion": "max"}),
                            ("gradient_rollout", {"discard": 0.5})):  # fmt: skip
        for key, value in {"method": method, **options}.items():
            opened.controls[key].value = value
        used = {key: opened.controls[key].value for key in USED[method] - {"method", "class"}}
        torch.testing.assert_close(drawn[-1][3], methods.attribute(method, seen, **used).scores)


def test_a_word_that_stands_twice_is_told_twice_with_its_own_scores():
    model, sample = tiny.model("bert"), Text("the film , the plot , the very film")
    opened = Explorer(model, sample)
    opened.stop()
    for row in range(0, 9, 3):
        opened.controls["row"].value = row
        found = methods.attribute("attention", observe(model, [sample]), row=row)
        order = found.scores.argsort(descending=True, stable=True)[:4].tolist()
        assert [score for _, score in opened.told()] == [f"{float(found.scores[i]):.3g}" for i in order]


@BOTH
def test_rows_are_offered_by_their_label(name):
    model, opened = tiny.model(name), explorer(name)
    opened.stop()
    seen = observe(model, [sample(name)])
    labels = seen.batch.labels[0]
    offered = dict(opened.controls["row"].options)
    assert [*offered][:3] == ["reader", "max over rows", "mean over rows"] and len(offered) == 3 + len(labels)
    place = offered[f"4: {labels[4]}"]
    assert place == 4 + model.prefix
    opened.controls["row"].value = place
    assert opened.told()[0][1] == f"{float(seen.attention[-1, 0].mean(0)[place, model.prefix :].max()):.3g}"


@BOTH
def test_only_a_new_class_needs_a_new_pass(name):
    opened = explorer(name)
    assert opened.passes == 1, "the predicted class was passed twice"
    controls = opened.controls
    for key, value in (("layer", 0), ("method", "rollout"), ("discard", 0.3), ("method", "gradient_rollout")):
        controls[key].value = value
    assert opened.passes == 1
    first, second, third = (value for _, value in controls["class"].options[:3])
    assert controls["class"].value == first
    pictures = {first: bytes(opened.image.value)}
    for count, target in ((2, second), (3, third), (3, first), (3, second)):
        controls["class"].value = target
        assert opened.passes == count
        assert pictures.setdefault(target, bytes(opened.image.value)) == bytes(opened.image.value)
    assert len(set(pictures.values())) == 3
    opened.stop()


@BOTH
def test_classes_come_most_likely_first(name):
    model, opened = tiny.model(name), explorer(name)
    opened.stop()
    scores = observe(model, [sample(name)]).logits[0].softmax(-1)
    options = opened.controls["class"].options
    assert [value for _, value in options] == scores.argsort(descending=True).tolist()
    assert [text for text, _ in options] == [f"{model.classes[i]} ({scores[i]:.2f})" for _, i in options]


def test_controls_without_meaning_are_disabled():
    opened = explorer("bert")
    opened.stop()
    for method in ("rollout", "gradient_rollout", "attention"):
        opened.controls["method"].value = method
        assert {name for name, control in opened.controls.items() if not control.disabled} == USED[method]


def test_an_error_becomes_a_message_and_keeps_the_picture():
    module = tiny.module("bert")
    with torch.no_grad():
        module.classifier.weight[2] = 0  # class 2 has no gradient
    opened = Explorer(tiny.wrap("bert", module), tiny.SENTENCES[0])
    opened.stop()
    first = next(value for _, value in opened.controls["class"].options if value != 2)
    opened.controls["class"].value = first
    opened.controls["method"].value = "gradient_rollout"
    before = bytes(opened.image.value)
    opened.controls["class"].value = 2
    assert "positive gradient" in opened.note.value and opened.note.value.startswith("<b style=")
    assert bytes(opened.image.value) == before
    opened.controls["class"].value = first
    assert opened.note.value.startswith("strongest")


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_what_goes_wrong_while_drawing_is_told_and_escaped(error, monkeypatch):
    opened = explorer("bert")
    opened.stop()

    def fail(*_, **__):
        raise error("<b>not</b> & today")

    monkeypatch.setattr(methods, "attribute", fail)
    before = bytes(opened.image.value)
    opened.controls["layer"].value = 0
    assert "&lt;b&gt;not&lt;/b&gt; &amp; today" in opened.note.value and bytes(opened.image.value) == before


def test_tokens_are_escaped():
    model = tiny.model("bert")
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.convert_ids_to_tokens = lambda ids: [f"<i>{i}</i>" for i in ids]
    opened = Explorer(Model(**{**vars(model), "tokenizer": tokenizer}), tiny.SENTENCES[1])
    opened.stop()
    assert "<i>" not in opened.note.value and "&lt;i&gt;" in opened.note.value


def test_a_model_without_classes_has_no_class_control():
    model = Model("bare", tiny.module("bert").bert.requires_grad_(False), (), 3, 0, tiny.tokenizer(), None, "")
    opened = Explorer(model, tiny.SENTENCES[0])
    opened.stop()
    assert set(opened.controls) == CONTROLS - {"class"} and opened.passes == 1
    assert opened.controls["method"].options == ("attention", "rollout")


def test_the_sample_and_the_model_are_checked_at_once():
    with pytest.raises(TypeError, match="no attention block"):
        attention.attention(tiny.model("resnet"), tiny.samples("resnet")[0])
    with pytest.raises(ValueError, match="takes sentences, not a picture"):
        attention.attention(tiny.model("bert"), tiny.samples("vit")[0])


def test_the_depth_graph_follows_its_controls():
    steps = torch.tensor([[[0.9, 0.1], [0.3, 0.7]], [[0.5, 0.5], [0.0, 1.0]]], dtype=torch.float64)
    box = attention.depth_graph(steps, ("one", "two"))
    (query, least), (image, note) = box.children[0].children, box.children[1].children
    assert [text for text, _ in query.options] == ["every token", "0: one", "1: two"]
    seen = {bytes(image.value)}
    assert note.value.startswith("lines of at least 0.05")
    query.value = 1
    seen.add(bytes(image.value))
    query.value = 0
    seen.add(bytes(image.value))
    least.value = 0.4
    seen.add(bytes(image.value))
    assert len(seen) == 4 and note.value.startswith("lines of at least 0.40")
    assert all(picture.startswith(b"\x89PNG") for picture in seen)


@BOTH
def test_classes_and_methods_are_computed_once_and_drawn(name):
    model, sample = tiny.model(name), tiny.samples(name)[0]
    passes = []
    handle = model.module.register_forward_hook(lambda *_: passes.append(1))
    box = attention.classes(model, sample, ("transformer_attribution", "cp_lrp"))
    method, target = box.children[0].children
    picture, note = box.children[1].children
    seen, counts = [bytes(picture.value)], []
    for control, value in ((method, "cp_lrp"), (target, 1), (method, "transformer_attribution"), (method, "cp_lrp")):
        if control.value == value:
            continue
        control.value = value
        seen.append(bytes(picture.value))
        counts.append(len(passes))
        assert "strongest" in note.value
    handle.remove()
    assert counts[-1] == counts[-2], "a pair that was seen needs no further pass"
    assert all(one != other for one, other in pairwise(seen))


@pytest.mark.parametrize("kind", ["several labels", "one number"])
def test_what_is_no_softmax_is_not_shown_as_one(kind):
    module = tiny.regression() if kind == "one number" else tiny.module("bert")
    if kind == "several labels":
        module.config.problem_type = "multi_label_classification"
    model = models.wrap(module, tokenizer=tiny.tokenizer(), name="own")
    seen = observe(model, tiny.SENTENCES[:1])
    wanted = seen.logits[0] if kind == "one number" else seen.logits[0].sigmoid()
    shown = [text for text, _ in attention._class_chooser(seen).options]
    assert sorted(shown) == sorted(f"{name} ({value:.2f})" for name, value in zip(model.classes, wanted, strict=True))
