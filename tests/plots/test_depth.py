"""Figures of layers: each draws what it is given on the axes it is given, and leaves pyplot alone."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xai_utils.maths import diffusion
from xai_utils.plots import depth
from xai_utils.stats import Interval


@pytest.fixture
def ax():
    before = plt.get_fignums()
    yield Figure().subplots()
    assert plt.get_fignums() == before


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_last_flows_stand_over_their_bound(ax):
    flows, bound = torch.tensor([[0.9, 0.9], [0.25, 0.5]]), torch.tensor([0.5, 1.0])
    depth.against_bound(ax, {"a review": (flows, bound), "a picture": (flows[:1], bound)})
    assert ax.collections[0].get_offsets().tolist() == [[0.5, 0.25], [1.0, 0.5]]
    assert ax.collections[1].get_offsets()[:, 1].tolist() == pytest.approx([0.9, 0.9])
    assert legend(ax) == ["a review", "a picture"] and len(ax.lines) == 1 and ax.lines[0].get_slope() == 1


def test_sums_of_every_model_are_one_outline_a_kind_and_zeros_stand_at_the_least(ax):
    first = {"float32": np.array([1e-7, 1e-7, 0.0]), "float64": np.array([1e-16])}
    depth.relative_sums(ax, [first, {"float32": np.array([1e-6]), "float64": np.array([1e-15])}])
    assert sorted(legend(ax)) == ["float32", "float64"] and len(ax.patches) == 4
    outline = ax.patches[0].get_xy()
    at_zero = outline[(outline[:, 0] <= -17.7), 1].max()
    around = outline[(np.abs(outline[:, 0] + 7) < 0.3), 1].max()
    assert (at_zero, around) == (1, 2)
    assert len({patch.get_edgecolor() for patch in ax.patches}) == 2


def test_gaps_stand_side_by_side_with_their_intervals(ax):
    one, other = [Interval(0.1, 0.0, 0.3, 9), Interval(0.2, 0.1, 0.3, 9)], [Interval(0.1, 0.05, 0.2, 9)] * 2
    depth.gaps(ax, (0.0, 1.0), {"first layers": one, "random layers": other}, "tiny")
    lines = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_ydata().tolist() for line in lines] == [[0.1, 0.2], [0.1, 0.1]]
    assert lines[0].get_xdata()[0] < 0 < lines[1].get_xdata()[0] and ax.get_title() == "tiny"
    reach = ax.collections[0].get_segments()[0][:, 1]
    assert reach.tolist() == pytest.approx([0.0, 0.3])


def test_shares_are_means_over_texts_of_like_length(ax):
    depth.by_length(ax, [10, 14, 40], {"rule": [0.2, 0.4, 1.0], "other": [1, 1, 0.5]}, "tiny", edges=(0, 20, 50))
    assert ax.lines[0].get_xydata() == pytest.approx(np.array([[12, 0.3], [40, 1.0]]))
    assert ax.lines[1].get_ydata().tolist() == [1, 0.5] and ax.get_title() == "tiny"
    assert [line.get_label() for line in ax.lines] == ["rule", "other"]


def test_the_spectral_map_is_cut_at_its_pole(ax):
    depth.pole(ax, (0.5, 0.8), most=2.0)
    x, y = ax.lines[1].get_data()
    near = np.abs(x - 0.8**-0.5) < 0.01
    assert np.isnan(y[near]).all() and np.nanmax(np.abs(y)) < 6 and (x.min(), x.max()) == (0, 2)
    at = int(np.argmin(np.abs(x - 1)))
    assert y[at] == pytest.approx(float(diffusion.spectral_map(torch.tensor(float(x[at])), 0.8)), rel=1e-5)
    assert legend(ax)[1] == "α = 0.8, pole at 1.12"


def test_largest_values_have_a_dot_for_every_sample_and_layer(ax):
    largest = {"text": torch.tensor([[1.0, 2.0], [1.5, 2.5]]), "vision": torch.ones(3, 4)}
    depth.largest_values(ax, largest, 0.25)
    dots = [line for line in ax.lines if line.get_marker() == "." and len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in dots[:2]] == [[1.0, 2.0], [1.5, 2.5]] and len(dots) == 5
    assert dots[0].get_color() != dots[2].get_color()
    assert ax.lines[-1].get_ydata()[0] == 2.0 and legend(ax) == ["text", "vision", "pole at α = 0.25"]
