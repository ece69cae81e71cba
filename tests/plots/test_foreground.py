"""Charts of the foreground fraction."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from xai_utils.plots import foreground
from xai_utils.stats import Interval


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


@pytest.mark.parametrize("smooth", [False, True])
def test_a_row_shows_the_picture_and_every_map(smooth):
    axes, mask = Figure().subplots(1, 3), np.zeros((16, 16), dtype=bool)
    mask[4:8, 4:8] = True
    maps = {"signed": torch.tensor([[1.0, -2], [0, 0]]), "none": torch.zeros(2, 2)}
    foreground.row(axes, np.full((3, 16, 16), 0.5), "whole", {"star": mask}, maps, smooth)
    assert [ax.get_title() for ax in axes] == ["whole", "signed", "none (empty)"]
    assert [text.get_text() for text in axes[0].texts] == ["star"]
    assert [len(ax.collections) for ax in axes] == ([2, 0, 0] if smooth else [2, 2, 2])
    norm = axes[1].images[1].norm
    assert norm.vmin == -norm.vmax and axes[1].images[1].get_cmap().name == foreground.base.SIGNED
    with pytest.raises(ValueError, match="zip"):
        foreground.row(axes, np.full((3, 16, 16), 0.5), "whole", {}, {"one": torch.ones(2, 2)})


def test_distributions_show_quartiles(ax):
    foreground.distributions(ax, {"a": np.arange(5.0), "random": [1.0, 2.0, 4.0]}, "FAF")
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 3] and ax.get_lines()[3].get_xdata().tolist() == [2]
    assert len(ax.collections) == 2


def test_objects_are_put_together_by_size(ax):
    foreground.by_area(ax, [0.4, 0.1, 0.3, 0.2], {"a": [0.8, 0.5, 0.9, 0.7], "random": [0.4, 0.1, 0.3, 0.2]}, parts=2)
    uniform, one, other = ax.get_lines()
    assert np.array_equal(*uniform.get_data()) and one.get_xdata().tolist() == pytest.approx([0.15, 0.35])
    assert one.get_ydata().tolist() == pytest.approx([0.6, 0.85])
    np.testing.assert_allclose(other.get_ydata(), uniform.get_ydata())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["uniform map", "a", "random"]


def test_the_skip_has_a_scale_that_parts_what_is_near_one(ax):
    found = {0.9: Interval(0.5, 0.4, 0.6, 9), 0.99: Interval(0.6, 0.5, 0.7, 9)}
    foreground.over_skip(ax, {"rollout": found}, {"by gradient": (0.9999, Interval(0.7, 0.65, 0.75, 9))}, "FAF")
    curve, bar, point = ax.get_lines()
    assert curve.get_xdata().tolist() == [0.9, 0.99] and curve.get_ydata().tolist() == [0.5, 0.6]
    assert list(bar.get_xdata()) == [0.9999, 0.9999] and list(bar.get_ydata()) == [0.65, 0.75]
    assert list(point.get_ydata()) == [0.7]
    assert ax.get_xscale() == "logit" and [tick.get_text() for tick in ax.get_xticklabels()][-1] == "0.9999"


def test_maps_of_the_truth_are_black_and_nulls_grey():
    named = {name: foreground.colour(name, 1) for name in ("exact mask, 4 × 4", "best patch", "contrast", "rollout")}
    assert list(named.values()) == ["black", "black", "0.55", foreground.base.COLOURS[1]]


def test_falling_pairs_have_a_colour_of_their_own_and_names_keep_apart(ax):
    foreground.pairs(ax, [0.5, 0.1], [0.4, 0.401], ["one", "two"], ("b", "a"), "title")
    assert ax.get_title() == "title"
    colours = [line.get_color() for line in ax.get_lines()]
    assert colours == ["#d55e00", "#0072b2", "black"]
    heights = sorted(text.get_position()[1] for text in ax.texts)
    assert heights[1] - heights[0] >= 0.0449


def test_thresholds_and_comparison(ax):
    found = [{"a": Interval(0.5, 0.4, 0.6, 9)}, {"a": Interval(0.3, 0.2, 0.4, 9)}]
    foreground.thresholds(ax, (0.3, 0.7), found, {"a": 0.45})
    assert ax.get_lines()[0].get_ydata().tolist() == [0.5, 0.3] and ax.get_xticks().tolist() == [0.3, 0.7]
    few = Figure().add_subplot()
    foreground.thresholds(few, (0.3, 0.7), [found[0], {}], {})
    assert few.get_lines()[0].get_ydata().tolist() == [0.5]
    other = Figure().add_subplot()
    foreground.compared(other, torch.tensor([0.2]), torch.tensor([0.3]))
    assert other.collections[0].get_offsets().tolist() == [[pytest.approx(0.2), pytest.approx(0.3)]]
