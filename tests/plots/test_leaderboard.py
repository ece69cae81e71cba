"""The charts of the leaderboard show what the tables say."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from tests.sweep.trial import made_up
from xai_utils.plots import leaderboard as drawn
from xai_utils.stats import Interval
from xai_utils.sweep import leaderboard, standings


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def points(ax):
    return [line for line in ax.lines if line.get_marker() not in ("", "None", None)]


def test_a_matrix_frames_what_is_tied_with_the_best_and_leaves_holes(ax):
    board = standings.chosen(standings.standings(made_up()), "m", "average_precision")
    few = board[board.method != "fair"].assign(tied=lambda one: one.method.isin(["good", "poor"]))
    drawn.matrix(ax, {"m": board, "n": few}, "average precision")
    assert labels(ax.yaxis) == ["good", "fair", "poor", "random"], "nulls below"
    assert [label.get_color() for label in ax.get_yticklabels()] == ["black", "black", "black", "0.45"]
    assert len(ax.texts) == 7 and ax.texts[0].get_text() == f"{board['mean'].iloc[0]:.2f}"
    frames = sorted((round(one.get_y() + 0.42), round(one.get_x() + 0.46)) for one in ax.patches)
    assert frames == [(0, 0), (0, 1), (2, 1)]


def test_places_have_their_intervals(ax):
    found = leaderboard.places(made_up(samples=4), "m", 0)
    drawn.places(ax, found, "m")
    assert labels(ax.yaxis) == list(found.method)
    widths = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert widths == found[["low", "high"]].to_numpy().tolist()


def test_correlations_are_filled_where_they_are_found(ax):
    found = pd.DataFrame(
        {"metric": ["a", "b"], "rho": [0.8, 0.3], "low": [0.5, -0.2], "high": [0.9, 0.6], "p": [0.01, 0.3]}
    )
    drawn.correlations(ax, found, "known cause")
    assert labels(ax.yaxis) == ["a", "b"]
    assert [to_hex(line.get_markerfacecolor()) for line in points(ax)] == [drawn.METHOD, "#ffffff"]


def test_what_is_left_is_in_order_of_the_last_test(ax):
    rows = [("everything", "a", 0.1), ("everything", "b", 0.9), ("classifier", "a", 0.5), ("classifier", "b", 1.0)]
    found = pd.DataFrame(rows, columns=["test", "method", "left"]).assign(low=lambda one: one.left - 0.1, high=1.0)
    drawn.destruction(ax, found, "m", ["classifier", "everything"])
    assert labels(ax.yaxis) == ["a", "b"]
    assert [list(line.get_xdata()) for line in points(ax)] == [[0.5, 1.0], [0.1, 0.9]]
    assert ax.get_legend_handles_labels()[1] == ["classifier", "everything"]


def test_pointing_shows_every_object_of_every_method(ax):
    share = {"attention": Interval(0.4, 0.3, 0.5, 44), "centre": Interval(0.1, 0.0, 0.2, 44)}
    drawn.pointing(ax, {"digit": share, "badge": dict(reversed(share.items()))}, "m")
    assert labels(ax.yaxis) == ["attention", "centre"] and labels(ax.yaxis) == list(share)
    assert [list(line.get_xdata()) for line in points(ax)] == [[0.4, 0.1], [0.4, 0.1]], "by name, not by order"


def test_networks_stand_beside_each_other(ax):
    found = pd.DataFrame(
        {"seed 0": {"a": 2.0, "b": 1.0}, "seed 1": {"a": 2.0, "b": 1.0}, "seed 2": {"a": 1.0, "b": 2.0}}
    )
    drawn.networks(ax, found, "m")
    assert labels(ax.yaxis) == ["b", "a"] and [list(line.get_xdata()) for line in points(ax)] == [
        [1, 2],
        [1, 2],
        [2, 1],
    ]


def test_only_methods_that_no_cheaper_one_beats_are_numbered(ax):
    seconds = {"slow": 1.0, "quick": 0.01, "poor": 0.1, "uniform": 0.001, "random": 0.001}
    mean = {"slow": 0.9, "quick": 0.6, "poor": 0.4, "uniform": 0.99, "random": 0.2}
    found = pd.DataFrame({"seconds": seconds, "mean": mean}).rename_axis("method").reset_index()
    drawn.cost(ax, found, "average precision", "m")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1  quick", "2  slow"]
    joined = next(line for line in ax.lines if line.get_color() == drawn.JOINS)
    assert list(joined.get_ydata()) == [0.6, 0.9]
    (shown,) = (line for line in ax.lines if line.get_marker() == "o")
    assert list(shown.get_xdata()) == [1.0, 0.01, 0.1] and [text.get_text() for text in ax.texts] == ["1", "2"]
