"""Figures of notebook 06: what is drawn is what was given."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from xai_utils.gender.held_out import Separation
from xai_utils.metrics.agreement import Agreement
from xai_utils.plots import gender
from xai_utils.stats import Interval


@pytest.fixture
def ax():
    return Figure().subplots()


def test_a_heat_map_scales_every_row_by_its_own_largest_and_adds_the_sum(ax):
    scores = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.5, 0.25]])
    gender.heat(ax, scores, ["a", "b", "c"], "two layers", ring=2)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), [[1, -0.5, 0], [0, 1, 0.5], [1, -0.25, 0.125]])
    written = [text.get_text() for text in ax.texts]
    assert written[:4] == ["1.00", "-.50", "0", "0"] and written[-3:] == ["× 2", "× 0.5", "× 2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "sum"]
    with pytest.raises(ValueError, match="finite"):
        gender.heat(ax, scores / 0, ["a", "b", "c"])


def test_curves_and_two_scores_carry_their_names(ax):
    gender.curves(ax, {"one": [0.1, 0.2], "two": [0.3, 0.4]}, "share", first=1)
    assert [line.get_label() for line in ax.lines[:2]] == ["one", "two"] and ax.lines[1].get_xdata().tolist() == [1, 2]
    truth = np.array([-1.0, 1.0])
    gender.two_against_truth(ax, truth, {"decides": 2 * truth, "stands by": 0 * truth}, "AttCAT")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[-1, -2], [1, 2]])


def test_bands_are_those_of_the_null(ax):
    gender.agreements(ax, {"layer 0": Agreement(Interval(0.4, 0.3, 0.5, 9), -0.2, 0.1, 0.01)}, "ρ")
    left, right = (
        ax.collections[0].get_paths()[0].vertices[:, 0].min(),
        ax.collections[0].get_paths()[0].vertices[:, 0].max(),
    )
    assert (left, right) == (-0.2, 0.1) and ax.lines[0].get_xdata().tolist() == [0.3, 0.5]


def test_areas_stand_on_their_null_and_points_on_their_line():
    left, right = Figure().subplots(1, 2)
    found = [Separation(Interval(0.9, 0.8, 1.0, 18), 0.3, 0.7), Separation(Interval(0.6, 0.5, 0.7, 18), 0.3, 0.7)]
    gender.separations(left, {"along": found, "removed": found[::-1]}, "area")
    assert left.containers[0].lines[0].get_ydata().tolist() == [0.9, 0.6]
    before = torch.tensor([0.0, 1.0])
    gender.before_after(right, {"as it is": before, "removed": before / 2}, "log odds")
    assert right.lines[0].get_ydata().tolist() == [0, 0.5] and right.get_xlabel() == "log odds, as it is"
