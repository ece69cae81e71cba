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


def test_a_gradient_what_the_published_form_adds_and_a_row_in_three():
    truth = torch.randn(3, 90, generator=torch.Generator().manual_seed(0))
    fig = Figure(figsize=(13, 3), layout="constrained")
    closed_forms.gradients(fig, truth, 2 * truth, 3 * truth, ["[CLS]", "a", "b"])
    first, second, _, _, row = fig.axes
    np.testing.assert_allclose(first.images[0].get_array(), truth[:, :80])
    np.testing.assert_allclose(second.images[0].get_array(), 2 * truth[:, :80], rtol=1e-6)
    assert first.images[0].get_clim()[1] == pytest.approx(float(truth.abs().max()))
    assert [label.get_text() for label in first.get_yticklabels()] == ["[CLS]", "a", "b"]
    drawn = {line.get_label(): line.get_ydata() for line in row.lines}
    for label, times in (("back-propagation", 1), ("full formula", 2), ("as published", 3)):
        np.testing.assert_allclose(drawn[label], times * truth[0])


def test_errors_of_lime_stand_over_the_strongest_words(ax):
    exact = torch.tensor([0.1, -3.0, 2.0])
    runs = exact + torch.tensor([0.3, -0.6])[:, None]
    closed_forms.lime_runs(ax, runs, exact, exact / 2, ["weak", "strong", "middle"], most=2)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["strong\n-3.00", "middle\n+2.00"]
    sampled, published = ax.lines
    np.testing.assert_allclose(sampled.get_ydata(), [0.1, 0.1, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(published.get_ydata(), [0.5, 1 / 3], rtol=1e-6)


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
    shares = {"published_gradient": np.linspace(0, 1, 40), "published_whole": 0.01}
    closed_forms.missing_row(right, table.assign(**shares))
    whole, row = right.containers
    assert [sum(bar.get_height() for bar in one) for one in (whole, row)] == [40, 40] and whole[0].get_height() == 40
