"""Charts of hidden attention: scales, places and nulls are those of the numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from xai_utils.plots import scans
from xai_utils.result import Attribution
from xai_utils.stats import rate_interval


@pytest.fixture
def ax():
    return Figure().add_subplot()


def texts_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_signed_map_is_centred_at_zero_and_few_tokens_are_named(ax):
    matrix = torch.tensor([[0.0, 0.0], [-3.0, 1.0]])
    scans.signed_matrix(ax, matrix, "title", ["a", "b"])
    (shown,) = ax.get_images()
    low, high = shown.get_clim()
    assert low == -high and 2.9 < high <= 3 and texts_of(ax.xaxis) == ["a", "b"]
    assert len(ax.figure.axes) == 2, "a colour bar"


def test_a_map_of_nothing_can_be_drawn_and_many_tokens_stay_unnamed(ax):
    scans.signed_matrix(ax, torch.zeros(41, 41), labels=["x"] * 41, bar=False)
    assert ax.get_images()[0].get_clim() == (-1, 1) and ax.get_xlabel() == "key" and len(ax.figure.axes) == 1


def test_three_readings_of_a_layers_channels():
    axes = Figure().subplots(1, 3)
    maps = torch.tensor([[[1.0]], [[-4.0]], [[0.0]]])
    scans.channel_matrices(axes, maps, ["a"])
    assert [ax.get_images()[0].get_array().item() for ax in axes] == pytest.approx([-4, -1, 5 / 3])
    assert axes[0].get_title() == "last layer, channel 1"


def test_rates_stand_over_their_distances_beside_each_other(ax):
    found = {name: {1: rate_interval([hit]), 8: rate_interval([True])} for name, hit in (("a", True), ("b", False))}
    scans.rates(ax, found, null=0.25)
    (one, *_), (other, *_) = ax.containers
    null = ax.get_lines()[-1]
    assert one.get_ydata().tolist() == [1, 1] and other.get_ydata().tolist() == [0, 1]
    assert one.get_xdata()[1] < 8 < other.get_xdata()[1]
    assert null.get_ydata().tolist() == [0.25, 0.25] and null.get_xdata().tolist() == [1, 8]
    assert texts_of(ax.xaxis) == ["1", "8"] and ax.get_xscale() == "log"


def test_misses_are_medians_with_the_range_of_the_first(ax):
    miss = torch.tensor([[0.1, 0.3, 0.2], [0.0, 0.0, 0.0]])
    scans.misses(ax, {"a": miss, "b": 2 * miss})
    assert ax.get_lines()[0].get_ydata().tolist() == pytest.approx([0.2, 1e-9])
    assert len(ax.collections) == 1 and ax.get_yscale() == "log"


@pytest.mark.parametrize("layers", [2, 9])
def test_channels_are_in_order_of_their_slowest_state(ax, layers):
    lives = torch.tensor([[1.0, 30.0], [2.0, 3.0], [9.0, 1.0]])
    scans.half_lives(ax, [lives] * layers, 12, "name")
    *curves, length = ax.get_lines()
    assert len(curves) == layers and curves[0].get_ydata().tolist() == [3, 9, 30]
    assert set(length.get_ydata()) == {12} and len({curve.get_color() for curve in curves}) == layers
    scans.half_lives(other := ax.figure.add_subplot(), [lives], 12, untrained=[2 * lives])
    fresh, own, _ = other.get_lines()
    assert fresh.get_ydata().tolist() == [6, 18, 60] and own.get_ydata().tolist() == [3, 9, 30]
    assert fresh.get_color() == own.get_color() and fresh.get_linestyle() != own.get_linestyle()


def test_every_layer_is_drawn_by_its_largest(ax):
    scans.remembered(ax, torch.tensor([[1.0, 2.0], [30.0, 15.0]]), ["a", "b"])
    assert ax.get_images()[0].get_array().tolist() == [[0.5, 1], [1, 0.5]]
    assert texts_of(ax.yaxis) == ["layer 0", "layer 1"]


def test_every_map_stands_beside_its_own_null(ax):
    names = ["mean", "low", "high", "shuffled", "shuffled, least", "shuffled, most"]
    found = pd.DataFrame([[5, 4, 6, 1, 0, 2], [3, 2, 4, np.nan, np.nan, np.nan]], ["a", "b"], names, dtype=float)
    scans.beside_nulls(ax, found, "lift", {"uniform": 1.0, "centre": 2.0})
    drawn = [list(line.get_xdata()) for line in ax.get_lines()]
    assert drawn[:4] == [[0, 2], [1], [4, 6], [5]] and drawn[6:8] == [[2, 4], [3]] and drawn[8:] == [[1, 1], [2, 2]]
    assert texts_of(ax.yaxis) == ["a", "b"]
    assert [one.get_text() for one in ax.get_legend().texts] == ["shuffled weights", "uniform", "centre"]


def test_filters_are_drawn_layer_by_layer_on_one_scale():
    fig = Figure()
    rows = {name: torch.full((3, 2, 2), value) for name, value in (("before", 0.2), ("after", 0.5))}
    rows["after"][1, 0, 0] = 0.9
    scans.filtered(fig, np.zeros((3, 8, 8)), np.eye(8, dtype=bool), rows, "share")
    *panels, bar = fig.axes
    assert [ax.get_title() for ax in panels[:2]] == ["before\nblock 0", "\nblock 1"] and len(panels) == 6
    assert len({ax.get_images()[1].get_clim() for ax in panels}) == 1 and bar.get_ylabel() == "share"


def test_maps_lie_on_their_own_pictures_below_each_other():
    axes = Figure().subplots(2, 1)
    views, mask = np.zeros((2, 3, 8, 8)), np.zeros((8, 8), dtype=bool)
    mask[2:5, 2:5] = True
    maps = [Attribution(torch.arange(4.0) + i, tuple("abcd"), "m", "model", grid=(2, 2)) for i in (0, 1)]
    scans.on_objects(axes, views, [mask, ~mask], maps, "m")
    assert [ax.get_title() for ax in axes] == ["m", ""]
    assert [ax.get_images()[1].get_array().max() for ax in axes] == [3, 4]
