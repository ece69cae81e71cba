"""Charts of hidden attention: scales, places and nulls are those of the numbers."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from xai_utils.plots import scans
from xai_utils.result import Attribution
from xai_utils.stats import Interval, rate_interval


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


def test_every_layer_is_drawn_by_its_largest(ax):
    scans.remembered(ax, torch.tensor([[1.0, 2.0], [30.0, 15.0]]), ["a", "b"])
    assert ax.get_images()[0].get_array().tolist() == [[0.5, 1], [1, 0.5]]
    assert texts_of(ax.yaxis) == ["layer 0", "layer 1"]


def test_one_models_maps_are_drawn_without_those_of_other_scenes():
    axes = Figure().subplots(1, 2)
    names = ("rollout", "rollout, other scene", "uniform", "centre")
    lifts = {(model, name): Interval(i, i, i, 9) for model in "ab" for i, name in enumerate(names)}
    points = {key: Interval(one.mean / 10, 0, 1, 9) for key, one in lifts.items()}
    scans.lift_and_pointing(axes, "b", lifts, points)
    assert [texts_of(ax.yaxis) for ax in axes] == [["rollout", "centre"]] * 2
    assert [ax.get_lines()[-1].get_xdata()[0] for ax in axes] == [2, pytest.approx(0.3)], "uniform, and the bell"
    assert ("b", "uniform") in lifts, "what is given stays as it is"


def test_maps_lie_on_their_own_pictures_below_each_other():
    axes = Figure().subplots(2, 1)
    views, mask = np.zeros((2, 3, 8, 8)), np.zeros((8, 8), dtype=bool)
    mask[2:5, 2:5] = True
    maps = [Attribution(torch.arange(4.0) + i, tuple("abcd"), "m", "model", grid=(2, 2)) for i in (0, 1)]
    scans.on_objects(axes, views, [mask, ~mask], maps, "m")
    assert [ax.get_title() for ax in axes] == ["m", ""]
    assert [ax.get_images()[1].get_array().max() for ax in axes] == [3, 4]
