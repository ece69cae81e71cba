"""Figures of notebook 07: what is drawn is what was given."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from xai_utils.plots import closed_forms


@pytest.fixture
def ax():
    return Figure().subplots()


def test_gradients_are_two_maps_and_a_row_in_three():
    truth, fig = torch.randn(3, 90, generator=torch.Generator().manual_seed(0)), Figure(layout="constrained")
    closed_forms.gradients(fig, truth, 2 * truth, 3 * truth, ["[CLS]", "a", "b"])
    first, second, _, row = fig.axes
    np.testing.assert_allclose(first.images[0].get_array(), truth[:, :80])
    np.testing.assert_allclose(second.images[0].get_array(), 3 * truth[:, :80])
    assert [label.get_text() for label in first.get_yticklabels()] == ["[CLS]", "a", "b"]
    drawn = {line.get_label(): line.get_ydata() for line in row.lines}
    for label, times in (("back-propagation", 1), ("full formula", 2), ("as published", 3)):
        np.testing.assert_allclose(drawn[label], times * truth[0])


def test_runs_of_lime_stand_by_the_strongest_words(ax):
    exact = torch.tensor([0.1, -3.0, 2.0])
    runs = exact + torch.linspace(-1, 1, 5)[:, None]
    closed_forms.lime_runs(ax, runs, exact, exact / 2, ["weak", "strong", "middle"], most=2)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["strong", "middle"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert drawn["exact"] == [-3, 2] and drawn["published approximation"] == [-1.5, 1]
    medians = [line.get_ydata()[0] for line in ax.lines if line.get_color() == "C1"]
    assert medians == [-3, 2]


def test_additivity_is_one_point_a_word(ax):
    closed_forms.additivity(ax, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert ax.lines[1].get_xydata().tolist() == [[1, 3], [2, 4]]


def test_errors_are_medians_by_length():
    words = np.repeat(np.arange(10, 90, 10), 5)
    kinds = ("sampled", "limit", "published", "published_equal")
    table = pd.DataFrame({"words": words, **{name: 10.0**-place * words for place, name in enumerate(kinds)}})
    left, right = Figure().subplots(1, 2)
    closed_forms.errors_by_length(left, table, 300)
    assert left.lines[0].get_label() == "sampled, 300 masks" and len(left.lines) == 4
    np.testing.assert_allclose(left.lines[2].get_ydata(), left.lines[2].get_xdata() / 100)
    closed_forms.missing_row(right, table.assign(published_gradient=np.linspace(0, 1, 40)))
    assert sum(bar.get_height() for bar in right.patches) == 40
