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


def test_bars_have_names_and_colours(ax):
    foreground.bars(ax, {"a": 0.5, "random": -0.25}, "correlation")
    assert [bar.get_width() for bar in ax.patches] == [0.5, -0.25] and ax.get_ylim() == (1.5, -0.5)
    assert ax.get_xlabel() == "correlation" and [t.get_text() for t in ax.get_yticklabels()] == ["a", "random"]


def test_distributions_show_quartiles(ax):
    foreground.distributions(ax, {"a": np.arange(5.0), "random": [1.0, 2.0, 4.0]}, "FAF")
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 3] and ax.get_lines()[3].get_xdata().tolist() == [2]
    assert len(ax.collections) == 2


def test_area_and_the_uniform_line(ax):
    foreground.against_area(ax, [0.1, 0.2], {"a": [0.5, 0.6]})
    assert np.array_equal(*ax.get_lines()[0].get_data())
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.1, 0.5], [0.2, 0.6]], atol=1e-6)


def test_falling_pairs_have_a_colour_of_their_own_and_names_keep_apart(ax):
    foreground.pairs(ax, [0.5, 0.1], [0.4, 0.401], ["one", "two"], ("b", "a"), "title")
    assert ax.get_title() == "title"
    colours = [line.get_color() for line in ax.get_lines()]
    assert colours == ["#d55e00", "#0072b2", "black"]
    heights = sorted(text.get_position()[1] for text in ax.texts)
    assert heights[1] - heights[0] >= 0.0379


def test_thresholds_and_comparison(ax):
    found = [{"a": Interval(0.5, 0.4, 0.6, 9)}, {"a": Interval(0.3, 0.2, 0.4, 9)}]
    foreground.thresholds(ax, (0.3, 0.7), found, {"a": 0.45})
    assert ax.get_lines()[0].get_ydata().tolist() == [0.5, 0.3] and ax.get_xticks().tolist() == [0.3, 0.7]
    other = Figure().add_subplot()
    foreground.compared(other, torch.tensor([0.2]), torch.tensor([0.3]))
    assert other.collections[0].get_offsets().tolist() == [[pytest.approx(0.2), pytest.approx(0.3)]]
