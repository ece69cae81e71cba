"""The charts of the leaderboard show what the table says."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from tests.sweep.trial import made_up
from xai_utils.plots import leaderboard as plots_leaderboard
from xai_utils.sweep import leaderboard
from xai_utils.sweep import standings as sweep_standings


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    fig.canvas.draw()
    plt.close(fig)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_standings_are_in_order_with_the_random_map_as_a_line(ax):
    found = sweep_standings.chosen(sweep_standings.standings(made_up()), "m", "average_precision")
    plots_leaderboard.standings(ax, found, "average precision", "m")
    assert labels(ax.yaxis) == ["good", "fair", "random", "poor"]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == found["mean"].tolist()
    (dashed,) = (line for line in ax.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == found.set_index("method").at["random", "mean"]
    assert points[2].get_color() != points[0].get_color() == points[1].get_color()
    assert [label.get_color() for label in ax.get_yticklabels()] == ["black", "black", "0.45", "black"]


def test_lines_cross_where_operators_disagree(ax):
    ranks = {"mask": {"a": 1.0, "b": 2.0, "random": 3.0}, "delete": {"a": 2.0, "b": 1.0, "random": 3.0}}
    plots_leaderboard.by_operator(ax, ranks, "m")
    assert [list(line.get_ydata()) for line in ax.lines] == [[0, 1], [1, 0], [2, 2]]
    assert labels(ax.xaxis) == ["mask", "delete"] and ax.lines[2].get_color() == plots_leaderboard.NULL


def test_only_methods_that_no_cheaper_one_beats_are_numbered(ax):
    seconds = {"slow": 1.0, "quick": 0.01, "poor": 0.1, "uniform": 0.001, "random": 0.001}
    mean = {"slow": 0.9, "quick": 0.6, "poor": 0.4, "uniform": 0.99, "random": 0.2}
    found = pd.DataFrame({"seconds": seconds, "mean": mean}).rename_axis("method").reset_index()
    plots_leaderboard.cost(ax, found, "average precision", "m")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1  quick", "2  slow"]
    joined = next(line for line in ax.lines if line.get_color() == plots_leaderboard.JOINS)
    assert list(joined.get_ydata()) == [0.6, 0.9]
    (points,) = (line for line in ax.lines if line.get_marker() == "o")
    assert list(points.get_xdata()) == [1.0, 0.01, 0.1] and [text.get_text() for text in ax.texts] == ["1", "2"]


def test_bars_join_what_cannot_be_told_apart(ax):
    ranking = leaderboard.ranked(made_up(), "m", "average_precision")
    plots_leaderboard.critical_difference(ax, ranking, "m")
    assert labels(ax.yaxis) == list(ranking.ranks) and f"n = {ranking.samples}" in ax.get_xlabel()
    bars = [line for line in ax.lines if line.get_color() == plots_leaderboard.JOINS]
    assert len(bars) == len(ranking.groups())


def test_correlations_are_written_and_what_is_left_is_drawn():
    fig, (left, right) = plt.subplots(1, 2)
    found = pd.DataFrame([[1.0, -0.4], [-0.4, 1.0]], ["aopc", "truth"], ["aopc", "truth"])
    plots_leaderboard.agreement(left, found, "text")
    assert labels(left.xaxis) == labels(left.yaxis) == ["aopc", "truth"]
    assert sorted(text.get_text() for text in left.texts) == ["-0.4", "-0.4", "1.0", "1.0"]
    plots_leaderboard.destruction(right, {"attention": {"head": [0.5, 0.7], "blocks.0": [0.0]}}, "m")
    assert list(right.lines[0].get_ydata()) == pytest.approx([1.0, 0.6, 0.0])
    assert labels(right.xaxis) == ["nothing", "head", "blocks.0"]
    plt.close(fig)
