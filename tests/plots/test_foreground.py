"""Charts and the widget of the foreground fraction."""

import numpy as np
import pytest
import tiny
import torch
from matplotlib.figure import Figure

from xai_utils import methods
from xai_utils.models.detector import Detections
from xai_utils.plots import foreground
from xai_utils.samples import Picture
from xai_utils.stats import Interval
from xai_utils.widgets import foreground as explore_foreground


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_the_first_name_stands_on_top_also_on_shared_axes():
    axes = Figure().subplots(1, 2, sharey=True)
    for one in axes:
        foreground.intervals(one, {"a": Interval(1, 0, 2, 3), "uniform": Interval(2, 1, 3, 3)}, "unit", null=1)
    assert axes[0].get_ylim() == (1.5, -0.5)
    assert [one.get_text() for one in axes[0].get_yticklabels()] == ["a", "uniform"]
    assert axes[0].get_lines()[2].get_color() == foreground.colour("uniform", 1) == "0.55"


def test_distributions_show_quartiles(ax):
    foreground.distributions(ax, {"a": np.arange(5.0), "random": [1.0, 2.0, 4.0]}, "FAF")
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 3] and ax.get_lines()[3].get_xdata().tolist() == [2]
    assert len(ax.collections) == 2


def test_area_and_the_uniform_line(ax):
    area = torch.tensor([0.1, 0.2])
    foreground.against_area(ax, area, {"a": torch.tensor([0.5, 0.6])})
    assert np.array_equal(*ax.get_lines()[0].get_data())
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.1, 0.5], [0.2, 0.6]], atol=1e-6)


def test_falling_pairs_have_a_colour_of_their_own_and_names_keep_apart(ax):
    foreground.pairs(ax, [0.5, 0.1], [0.4, 0.401], ["one", "two"], ("b", "a"))
    colours = [line.get_color() for line in ax.get_lines()]
    assert colours == ["#d55e00", "#0072b2", "black"]
    heights = sorted(text.get_position()[1] for text in ax.texts)
    assert heights[1] - heights[0] >= 0.0379


def test_thresholds_and_comparison(ax):
    found = {"a": [Interval(0.5, 0.4, 0.6, 9), Interval(0.3, 0.2, 0.4, 9)]}
    foreground.thresholds(ax, (0.3, 0.7), found, {"a": 0.45})
    assert ax.get_lines()[0].get_ydata().tolist() == [0.5, 0.3] and ax.get_xticks().tolist() == [0.3, 0.7]
    other = Figure().add_subplot()
    foreground.compared(other, torch.tensor([0.2]), torch.tensor([0.3]))
    assert other.collections[0].get_offsets().tolist() == [[pytest.approx(0.2), pytest.approx(0.3)]]


def pictures():
    found = []
    for i, one in enumerate(tiny.samples("timm-vit")[:2]):
        mask = np.zeros(one.image.shape[1:], dtype=bool)
        mask[: (i + 1) * 8] = True
        found.append(Picture(one.image, one.name, {"circle": mask}))
    return found


def test_the_widget_tells_faf_for_masks_of_either_source(monkeypatch):
    model, some, looked = tiny.model("timm-vit"), pictures(), []
    soft = torch.zeros(1, *some[0].masks["circle"].shape)
    soft[0, :4], soft[0, 4:8] = 0.9, 0.6

    def detect(_detector, given):
        looked.append(given)
        return [Detections(("circle",), torch.tensor([0.7]), torch.zeros(1, 4), soft)]

    monkeypatch.setattr(explore_foreground.detectors, "detect", detect)
    box = explore_foreground.faf(model, some, ["rollout", "attnlrp"], detector=object())
    controls = {one.description: one for column in box.children[0].children for one in column.children}
    image, note = box.children[1].children

    def expected(picture, mask, name="rollout"):
        found = methods.explain(name, model, picture)
        inside = explore_foreground.metrics.foreground_fraction(found.picture()[None], torch.from_numpy(mask)[None])
        return f"FAF {inside.fraction[0]:.3f}"

    assert expected(some[0], some[0].masks["circle"]) in note.value and controls["score ≥"].disabled
    before = bytes(image.value)
    controls["picture"].value = 1
    assert expected(some[1], some[1].masks["circle"]) in note.value and bytes(image.value) != before
    controls["method"].value = "attnlrp"
    assert expected(some[1], some[1].masks["circle"], "attnlrp") in note.value
    controls["mask"].value = "detector"
    assert expected(some[1], (soft[0] >= 0.5).numpy(), "attnlrp") in note.value and not controls["score ≥"].disabled
    controls["pixel ≥"].value = 0.8
    assert expected(some[1], (soft[0] >= 0.8).numpy(), "attnlrp") in note.value and len(looked) == 1
    controls["score ≥"].value = 0.9
    assert "0 of 1 maps scored, 1 without foreground" in note.value


def test_the_widget_matches_classes():
    model, some = tiny.model("timm-vit"), pictures()[:1]
    box = explore_foreground.faf(model, some, ["rollout"], match="class", classes={"circle": range(5)})
    assert "FAF" in box.children[1].children[1].value
    box = explore_foreground.faf(model, some, ["rollout"], match="class", classes={"circle": []})
    assert "1 without foreground" in box.children[1].children[1].value
