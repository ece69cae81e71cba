"""Figures of notebook 06: what is drawn is what was given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from xai_utils.plots import gender
from xai_utils.stats import AgainstChance, Interval


@pytest.fixture
def ax():
    return Figure().subplots()


def test_a_heat_map_has_one_scale_and_adds_the_mean(ax):
    scores = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.5, 0.25]])
    gender.heat(ax, scores, ["a", "b", "c"], "two layers", ring=2)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), [[2, -1, 0], [0, 0.5, 0.25], [1, -0.25, 0.125]])
    assert image.get_clim() == (-2, 2)
    assert [text.get_text() for text in ax.texts] == ["2.0", "-1.0", "1.0"], "a third of the largest, or more"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "mean"]
    with pytest.raises(ValueError, match="finite"):
        gender.heat(ax, scores / 0, ["a", "b", "c"])


def test_curves_carry_their_names_and_the_mean_over_samples(ax):
    gender.curves(ax, {"one": [0.1, 0.2], "two": torch.tensor([[0.3, 0.5], [0.1, 0.7]])}, "share", across="layer")
    assert [line.get_label() for line in ax.lines[:2]] == ["one", "two"] and ax.get_xlabel() == "layer"
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.4, 0.4], atol=1e-6)
    assert ax.lines[1].get_xdata().tolist() == [0, 1]


def test_heads_lie_upwards_and_layers_across(ax):
    gender.heads(ax, torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), "attention")
    assert ax.images[0].get_array().shape == (3, 2) and ax.get_xlabel() == "layer" and ax.get_title() == "attention"
    assert isinstance(ax.images[0].norm, LogNorm) and ax.images[0].get_clim() == pytest.approx((0.1, 0.6))


def test_points_against_the_truth_are_named_where_there_are_two_rows():
    left, right = Figure().subplots(1, 2)
    truth = np.array([-1.0, 1.0])
    gender.against_truth(left, truth, {"decides": 2 * truth, "stands by": 0 * truth}, "AttCAT")
    np.testing.assert_allclose(left.collections[0].get_offsets(), [[-1, -2], [1, 2]])
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["decides", "stands by"]
    gender.against_truth(right, truth, {"AttCAT": truth}, "alone")
    assert right.get_legend() is None


def test_bands_are_those_of_chance(ax):
    gender.agreements(ax, {"layer 0": AgainstChance(Interval(0.4, 0.3, 0.5, 9), -0.2, 0.1, 0.01)}, "ρ", "title")
    across = ax.collections[0].get_paths()[0].vertices[:, 0]
    assert (across.min(), across.max()) == (-0.2, 0.1) and ax.lines[0].get_xdata().tolist() == [0.3, 0.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["layer 0"] and ax.get_title() == "title"


def test_areas_stand_on_what_chance_gives():
    left = Figure().subplots()
    found = [AgainstChance(Interval(a, a - 0.1, a + 0.1, 18), 0.3, 0.7, 0.01) for a in (0.9, 0.6)]
    gender.separations(left, {"along": found, "removed": found[::-1]}, "area")
    assert left.containers[0].lines[0].get_ydata().tolist() == [0.9, 0.6]


def test_published_distances_stand_beside_those_of_noise(ax):
    gender.published(ax, {"nouns": 0.4, "jobs": 0.5}, [0.3, 0.31], "distance")
    noise, given = ax.lines
    assert list(noise.get_xdata()) == [0.3, 0.31] and list(given.get_xdata()) == [0.4, 0.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["nouns", "jobs"]


def test_outcomes_show_one_dot_a_draw_beside_the_model_as_it_is():
    axes = Figure().subplots(1, 2)
    before = {"definitions": np.array([1.0, 3.0]), "agreement": np.array([4.0, 6.0])}
    changed = {
        "DensRay": {name: values / 2 for name, values in before.items()},
        "random": {name: np.stack([values, values + 1]) for name, values in before.items()},
    }
    gender.outcomes(axes, before, changed, {"definitions": "log odds", "agreement": "log odds of is"})
    line, one, draws = axes[0].lines
    assert line.get_xdata() == [2, 2] and one.get_xdata().tolist() == [1] and draws.get_xdata().tolist() == [2, 3]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["DensRay", "random"]
    assert axes[1].get_title() == "agreement" and axes[1].get_xlabel() == "log odds of is"


def test_states_are_sizes_from_zero(ax):
    gender.states(ax, np.array([[0.2, 0.9], [0.1, 0.0]]), ["the", "…"], "patching", "share", most=1)
    assert ax.images[0].get_clim() == (0, 1) and ax.get_title() == "patching"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["the", "…"]
