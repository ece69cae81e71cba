"""Figures of a language model: what is written where, and on which scale."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from xai_utils.plots import language
from xai_utils.stats import Interval


@pytest.fixture
def fig():
    made = plt.figure(figsize=(9, 4))
    yield made
    plt.close(made)


def widths(ax):
    return [patch.get_width() for patch in ax.patches]


def test_every_method_is_scaled_to_its_own_largest_bar(fig):
    rows = {"signed, so": ([1.0, -4.0, 0.0], True), "amounts": ([10.0, 5.0, 0.0], False)}
    language.by_word(fig, rows, ["When", "Mary", "John"])
    one, other = fig.axes
    np.testing.assert_allclose(widths(one), [0.25, -1, 0])
    np.testing.assert_allclose(widths(other), [1, 0.5, 0])
    assert [label.get_text() for label in one.get_yticklabels()] == ["When", "Mary", "John"]
    assert not any(label.get_text() for label in other.get_yticklabels())
    assert one.get_title() == "signed,\nso" and one.get_xlim()[0] < -1 and other.get_xlim()[0] == 0


def test_tasks_share_their_rows_and_say_how_many_prompts(fig):
    found = {
        "one_task": {"a": Interval(0.5, 0.4, 0.6, 30), "random": Interval(0.1, 0.0, 0.2, 60)},
        "other": {"random": Interval(0.2, 0.1, 0.3, 60), "a": Interval(0.9, 0.8, 1.0, 60)},
    }
    language.by_task(fig, found, "hit", ["random"], "random")
    one, other = fig.axes
    assert one.get_title() == "one task (n = 30 or 60)" and other.get_title() == "other (n = 60)"
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "random"]
    assert other.lines[1].get_xdata() == [0.9], "the rows of the second panel are in the order of the first"
    assert one.lines[-1].get_xdata() == [0.1, 0.1], "the dashed line is the null"
    assert one.get_xlim() == other.get_xlim()


def test_depths_are_named_and_the_random_ranking_is_dashed(fig):
    lines = {"AttnLRP": [Interval(0.9, 0.8, 1.0, 30), Interval(0.2, 0.1, 0.3, 30)]}
    language.by_depth(fig, {"one_task": lines, "other": lines}, [1, 30], {"one_task": 0.25, "other": 0.5})
    one, other = fig.axes
    assert one.get_title() == "one task" and [label.get_text() for label in one.get_xticklabels()] == ["1", "30"]
    assert list(one.lines[0].get_ydata()) == [0.9, 0.2] and set(other.lines[-1].get_ydata()) == {0.5}
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["AttnLRP", "random ranking"]


def test_what_comes_later_stays_white_and_zeros_before_it_do_not(fig):
    ax = fig.add_subplot()
    table = pd.DataFrame([[1.0, 0.0, -2.0, 0.0], [0.0, 3.0, 1.0, -1.5]], ["x", "y"], list("abcd"))
    language.answer_table(ax, table, "logit", numbers=True)
    shown = ax.images[0].get_array()
    assert shown.mask.tolist() == [[False, False, False, True], [False] * 4]
    assert ax.images[0].get_clim() == (-3, 3) and [text.get_text() for text in ax.texts][:3] == ["1.0", "0.0", "-2.0"]
    assert ax.figure.axes[-1].get_ylabel() == "logit"


def test_long_names_are_cut(fig):
    assert language._short("x" * 50) == "x" * 33 + "…" and language._short("word") == "word"


def test_chances_before_and_after(fig):
    ax = fig.add_subplot()
    language.chances(ax, ["Mary", "him"], torch.tensor([0.9, 0.1]))
    assert widths(ax) == pytest.approx([0.9, 0.1]) and ax.get_legend() is None
    ax.clear()
    language.chances(ax, ["Mary", "him"], torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.7]))
    assert widths(ax) == pytest.approx([0.9, 0.1, 0.2, 0.7]) and len(ax.get_legend().get_texts()) == 2
