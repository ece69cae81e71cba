"""Plots: each draws what it is given on the axes it is given, and leaves pyplot alone."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from strategies import attention, normal, steady

from xai_utils import plots
from xai_utils.result import Attribution
from xai_utils.stats import Interval

LABELS = ("[CLS]", "not", "good", "[SEP]")
NAN = float("nan")


@pytest.fixture(autouse=True)
def pyplot_left_alone():
    before = plt.get_fignums(), dict(mpl.rcParams)
    yield
    assert (plt.get_fignums(), dict(mpl.rcParams)) == before


@pytest.fixture
def fig():
    return Figure(figsize=(3, 2))


@pytest.fixture
def ax(fig):
    return fig.subplots()


def picture(size=16):
    return np.random.default_rng(0).random((3, size, size)).astype(np.float32)


def found(scores, signed=False, grid=None):
    labels = LABELS if grid is None else tuple(f"{r},{c}" for r in range(grid[0]) for c in range(grid[1]))
    return Attribution(scores, labels, "rollout", "tiny", 1, "positive", "share", signed, grid)


DRAWN = {
    "image": lambda ax: plots.image(ax, picture(), "cat"),
    "overlay": lambda ax: plots.overlay(ax, picture(), normal(4, 4), signed=True),
    "outline": lambda ax: plots.outline(ax, {"7": np.eye(16, dtype=bool)}),
    "token_bars": lambda ax: plots.token_bars(ax, normal(4), LABELS, signed=True),
    "highlighted": lambda ax: plots.highlighted(ax, {"rollout": (normal(4), True)}, LABELS),
    "matrix": lambda ax: plots.matrix(ax, attention(4, 4), LABELS),
    "band": lambda ax: plots.band(ax, [0, 1, 2], normal(9, 3), "lift"),
    "strands": lambda ax: plots.strands(ax, normal(9, 3), "one"),
    "intervals": lambda ax: plots.intervals(ax, {"rollout": Interval(2.0, 1.0, 3.0, 9)}, "lift", null=1.0),
    "spectra": lambda ax: plots.spectra(ax, {"before": attention(3, 4, 4)}),
    "bipartite": lambda ax: plots.bipartite(ax, attention(3, 4, 4), LABELS),
    "relevance": lambda ax: plots.relevance(ax, found(normal(16).abs(), grid=(4, 4)), picture()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_all_is_drawn_on_the_given_axes(name, fig):
    left, right = fig.subplots(1, 2)
    DRAWN[name](right)
    fig.canvas.draw()
    assert right.has_data() or right.texts
    assert not left.has_data() and not left.texts and left.get_title() == ""
    assert {axes.figure for axes in fig.axes} == {fig} and len(fig.axes) <= 3


# Pictures


def test_an_image_shows_red_as_red(ax):
    red = np.zeros((3, 4, 6), dtype=np.float32)
    red[0] = 1
    plots.image(ax, red, "all red")
    assert ax.get_title() == "all red" and (ax.images[0].get_array() == [1, 0, 0]).all()
    assert ax.images[0].get_array().shape == (4, 6, 3) and list(ax.get_xticks()) == []


def test_an_overlay_covers_its_picture_in_squares(ax):
    scores = torch.arange(1.0, 5.0).view(2, 2)
    plots.overlay(ax, picture(8), scores, "a title", "a unit", smooth=False)
    below, above = ax.images
    assert (above.get_array() == scores.numpy().repeat(4, 0).repeat(4, 1)).all()
    assert below.get_array().shape == above.get_array().shape and (above.norm.vmin, above.norm.vmax) == (1, 4)
    assert ax.get_title() == "a title" and ax.figure.axes[1].get_ylabel() == "a unit"


def test_an_overlay_is_smooth_and_without_a_bar_if_asked(ax):
    plots.overlay(ax, picture(8), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), bar=False)
    drawn = ax.images[1].get_array()
    assert (np.diff(drawn, axis=1) >= 0).all() and (np.diff(drawn, axis=0) == 0).all() and 0.3 < drawn[0, 3] < 0.5
    assert ax.figure.axes == [ax]


@pytest.mark.parametrize("draw", [lambda ax, s: plots.overlay(ax, picture(), s, signed=True)])
def test_signed_colours_are_centred_at_zero(draw, ax):
    draw(ax, torch.tensor([[-1.0, 0.0], [0.5, 4.0]]))
    norm = ax.images[1].norm
    assert isinstance(norm, TwoSlopeNorm) and (norm.vmin, norm.vcenter, norm.vmax) == (-4, 0, 4)
    assert ax.images[1].get_cmap().name == plots.SIGNED


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_an_overlay_of_nan_is_refused(ax, value):
    scores = torch.ones(4, 4)
    scores[1, 2] = value
    with pytest.raises(ValueError, match=r"scores holds 1 of 16 .*\(1, 2\)"):
        plots.overlay(ax, picture(), scores)
    assert not ax.has_data()


def test_outlines_enclose_their_masks(ax):
    mask = np.zeros((16, 16), dtype=bool)
    mask[2:6, 8:12] = True
    plots.outline(ax, {"7": mask, "3": mask.T})
    assert [text.get_text() for text in ax.texts] == ["7", "3"] and ax.texts[0].get_position() == (13, 2)
    borders = np.concatenate([path.vertices for line in ax.collections[:2] for path in line.get_paths()])
    assert borders.min(0).tolist() == [7.5, 1.5] and borders.max(0).tolist() == [11.5, 5.5]


@pytest.mark.parametrize("with_picture", [True, False])
def test_relevance_is_an_overlay_or_bars(ax, with_picture):
    if with_picture:
        scores = found(torch.arange(1.0, 7.0), grid=(2, 3))
        plots.relevance(ax, scores, picture(12)[:, :8], bar=False)
        assert len(ax.images) == 2 and ax.images[1].get_array().shape == (8, 12) and not ax.patches
    else:
        plots.relevance(ax, found(torch.arange(1.0, 5.0)))
        assert len(ax.patches) == 4 and not ax.images and ax.get_xlabel() == "share"
    assert ax.get_title() == "rollout · positive"
    plots.relevance(ax, found(torch.arange(1.0, 5.0)), title="")
    assert ax.get_title() == ""


# Sentences


def test_token_bars_have_one_label_and_one_length_each(ax):
    scores = torch.tensor([0.25, -1.0, 2.0, 0.0])
    plots.token_bars(ax, scores, LABELS, "a title", "logit", signed=True)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(LABELS)
    assert [bar.get_width() for bar in ax.patches] == scores.tolist()
    assert (ax.get_title(), ax.get_xlabel()) == ("a title", "logit")
    bottom, top = ax.get_ylim()
    assert bottom > top  # first token on top


def test_bars_of_opposite_signs_differ_in_colour(ax):
    plots.token_bars(ax, torch.tensor([1.0, -1.0, 0.0, 1.0]), LABELS, signed=True)
    plus, minus, none, again = (bar.get_facecolor() for bar in ax.patches)
    assert plus == again != minus and plus[0] > plus[2] and minus[2] > minus[0] and min(none[:3]) > 0.9


def test_scores_and_labels_of_different_number_are_refused(ax):
    with pytest.raises(ValueError, match="shape mismatch"):
        plots.token_bars(ax, torch.ones(3), LABELS)


@pytest.mark.parametrize("marked", [None, [False, True, True, False]])
def test_highlighted_writes_the_sentence_once_for_each_method(ax, marked):
    rows = {
        "rollout": (torch.tensor([0.0, 1.0, 2.0, 0.0]), False),
        "gradient": (torch.tensor([0.0, -2.0, 2.0, 0.0]), True),
    }
    plots.highlighted(ax, rows, LABELS, marked)
    assert [text.get_text() for text in ax.texts] == ["rollout", *LABELS, "gradient", *LABELS]
    assert len(ax.patches) == 8 and len(ax.lines) == (4 if marked else 0)
    bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    assert bold == (["not", "good"] * 2 if marked else [])
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches[:4]]
    assert all(end <= start for (_, end), (start, _) in pairwise(edges))


# Maps and heads


def reading_order(axes):
    return -round(axes.get_position().y0, 6), axes.get_position().x0


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 3), (4, 1)])
def test_a_head_grid_has_one_axes_for_each_head_on_one_scale(fig, layers, heads):
    maps = attention(layers, heads, 5, 5)
    plots.head_grid(fig, maps, "a title", "share")
    (bar,) = (axes for axes in fig.axes if not axes.images)
    grid = sorted((axes for axes in fig.axes if axes.images), key=reading_order)
    assert len(grid) == layers * heads and bar.get_ylabel() == "share" and fig.get_suptitle() == "a title"
    for place, axes in enumerate(grid):
        head, layer = divmod(place, layers)
        assert np.array_equal(axes.images[0].get_array(), maps[layer, head].float())
        assert axes.get_xlabel() == (str(layer) if head == heads - 1 else "")
        assert axes.get_ylabel() == (str(head) if layer == 0 else "")
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in grid}) == 1
    assert "layer" in fig.get_supxlabel() and "head" in fig.get_supylabel()


def test_a_head_grid_of_nan_is_refused(fig):
    with pytest.raises(ValueError, match="maps holds"):
        plots.head_grid(fig, attention(2, 2, 3, 3) / 0)


def test_a_matrix_is_named_on_both_axes_unless_there_are_too_many(ax):
    plots.matrix(ax, attention(4, 4), LABELS, "a title", "share")
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(LABELS)
    assert "key" in ax.get_xlabel() and "query" in ax.get_ylabel()
    other = Figure().subplots()
    plots.matrix(other, attention(4, 4), LABELS, name_keys=False)
    assert not other.get_xticklabels() and len(other.get_yticklabels()) == 4
    plots.matrix(other, attention(41, 41), ["word"] * 41)
    assert not {label.get_text() for label in other.get_xticklabels()} & {"word"}


def test_before_and_after_share_their_colours(fig):
    plots.before_after(fig, torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, -2.0]]), ("one", "two"), "logit")
    left, right, bar = fig.axes
    assert (left.get_title(), right.get_title(), bar.get_ylabel()) == ("one", "two", "logit")
    assert left.images[0].norm is right.images[0].norm and left.images[0].norm.vmin == -3
    assert left.images[0].get_cmap().name == plots.SIGNED


def test_before_and_after_without_negative_values_are_amounts(fig):
    plots.before_after(fig, torch.tensor([[0.5, 1.0]]), torch.tensor([[3.0, 2.0]]))
    assert fig.axes[0].images[0].get_cmap().name == plots.AMOUNT
    assert (fig.axes[0].images[0].norm.vmin, fig.axes[1].images[0].norm.vmax) == (0.5, 3)


def test_an_empty_mask_has_no_outline(ax):
    plots.outline(ax, {"none": np.zeros((8, 8), dtype=bool)})
    assert not ax.collections and not ax.texts


def test_samples_and_steps_of_a_model_that_learns_are_drawn(ax):
    maps = torch.full((2, 2, 2), 0.5, requires_grad=True)
    plots.band(ax, [0, 1], maps[0], "share")
    plots.bipartite(ax, maps, "ab")
    assert len(ax.lines) == 1 + 8


def test_maps_of_a_model_that_learns_can_be_compared(fig):
    maps = torch.ones(2, 2, requires_grad=True)
    plots.before_after(fig, maps, 2 * maps)
    assert len(fig.axes) == 3


# Curves and graphs


def test_a_band_is_the_mean_between_percentiles(ax):
    values = torch.arange(101.0)[:, None] * torch.tensor([1.0, 2.0])
    plots.band(ax, [3, 5], values, "lift", "#112233")
    (line,), (area,) = ax.lines, ax.collections
    assert line.get_xydata().tolist() == [[3, 50], [5, 100]] and line.get_label() == "lift"
    corners = {tuple(np.round(corner, 9)) for corner in area.get_paths()[0].vertices}
    assert {(3, 5), (3, 95), (5, 10), (5, 190)} == corners


def test_strands_are_one_line_a_sample_and_one_in_the_legend(ax):
    values = torch.tensor([[1.0, 2.0, NAN], [4.0, 5.0, 6.0]], requires_grad=True)
    plots.strands(ax, values, "rules", "#112233")
    *lines, named = ax.lines
    assert [line.get_ydata().tolist()[:2] for line in lines] == [[1, 2], [4, 5]]
    assert {line.get_color() for line in ax.lines} == {"#112233"} and not len(named.get_xdata())
    assert ax.get_legend_handles_labels()[1] == ["rules"]


def test_spectra_are_singular_values_with_their_mean_and_range(ax):
    maps = torch.stack([torch.diag(torch.tensor([0.1, 0.5])), torch.diag(torch.tensor([0.3, 0.25]))])
    plots.spectra(ax, {"before": maps, "after": maps[:1]})
    first, second = ax.lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 0.4], [2, 0.175]], rtol=1e-6)
    np.testing.assert_allclose(second.get_ydata(), [0.5, 0.1], rtol=1e-6)
    corners = {tuple(np.round(corner, 6)) for corner in ax.collections[0].get_paths()[0].vertices}
    assert {(1, 0.3), (1, 0.5), (2, 0.1), (2, 0.25)} == corners
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["before", "after"]


def test_panels_are_as_many_as_names_and_the_places_left_over_are_empty():
    fig, axes = plots.panels(list("abcde"), columns=4, width=2, height=3)
    assert list(axes) == list("abcde") and fig.get_size_inches().tolist() == [8, 6]
    assert [ax.axison for ax in fig.axes] == [True] * 5 + [False] * 3
    plt.close(fig)


def test_intervals_are_drawn_from_low_to_high_with_their_null(ax):
    intervals = {"rollout": Interval(2.0, 1.5, 2.75, 9), "random": Interval(1.0, 0.75, 1.25, 9)}
    plots.intervals(ax, intervals, "lift", null=1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["rollout", "random"]
    bars = [line.get_xdata() for line in ax.lines]
    assert [list(bar) for bar in bars] == [[1.5, 2.75], [2.0], [0.75, 1.25], [1.0], [1.0, 1.0]]
    assert ax.lines[0].get_color() != ax.lines[2].get_color() and ax.get_xlabel() == "lift"


def test_no_interval_says_so(ax):
    plots.intervals(ax, {}, "lift")
    assert [text.get_text() for text in ax.texts] == ["no known truth for this model"] and not ax.lines


@settings(steady, max_examples=20)
@given(
    layers=st.integers(1, 4),
    tokens=st.integers(1, 5),
    least=st.sampled_from([0.0, 0.05, 0.3, 2.0]),
    seed=st.integers(0, 9),
)
def test_a_graph_has_a_line_for_each_weight(layers, tokens, least, seed):
    ax, steps = Figure().subplots(), attention(layers, tokens, tokens, seed=seed, sharpness=2.0)
    plots.bipartite(ax, steps, [str(token) for token in range(tokens)], least)
    wanted = {(layer, key, query) for layer, query, key in (steps >= least).nonzero().tolist()}
    ends = [(line.get_xdata(), line.get_ydata()) for line in ax.lines]
    assert {(x[0], y[0], y[1]) for x, y in ends} == wanted and len(ends) == len(wanted)
    assert all(x[1] == x[0] + 1 for x, _ in ends)
    assert len(ax.get_yticklabels()) == tokens and len(ax.get_xticklabels()) == layers + 1


def test_a_graph_of_one_query_multiplies_weights_along_the_paths(ax):
    steps = torch.tensor(
        [[[0.5, 0.5, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]], [[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [1.0, 0, 0]]]
    )
    plots.bipartite(ax, steps, "abc", least=0.15, query=0)
    drawn = {(line.get_xdata()[0], *line.get_ydata()): ((line.get_linewidth() - 0.3) / 3.5) ** 2 for line in ax.lines}
    # from a: to a .8 and b .2; below, a spreads .4 to a and .4 to b, b leaves .18 to b and .02 (too little) to c
    assert drawn == pytest.approx({(1, 0, 0): 0.8, (1, 1, 0): 0.2, (0, 0, 0): 0.4, (0, 1, 0): 0.4, (0, 1, 1): 0.18})


def test_a_masked_picture_keeps_what_the_map_marks(ax):
    picture = np.zeros((3, 8, 8))
    scores = torch.tensor([[1.0, -5.0], [0.0, 0.0]])
    for how in ("soft", "otsu"):
        plots.masked(ax, picture, scores, how)
        shown = np.asarray(ax.images[-1].get_array())
        assert shown[0, 0].max() == 0 and shown[7, 7].min() == pytest.approx(0.5)
    assert set(np.unique(shown)) == {0.0, 0.5}


def test_a_map_without_positive_scores_masks_nothing(ax):
    picture = np.zeros((3, 8, 8))
    with pytest.raises(ValueError, match="no score is positive"):
        plots.masked(ax, picture, -torch.ones(2, 2))
    with pytest.raises(ValueError, match="how is 'hard', expected one of: soft, otsu"):
        plots.masked(ax, picture, torch.ones(2, 2), "hard")


def test_bands_are_drawn_for_what_has_samples(ax):
    plots.bands(ax, {"text": normal(9, 3), "none": torch.empty(0, 3), "vision": normal(9, 3)}, [1, 2, 4])
    assert [line.get_label() for line in ax.lines] == ["text", "vision"]
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["text", "vision"]
    plots.bands(other := Figure().subplots(), {"text": normal(9, 5)}, legend=False)
    assert other.lines[0].get_xdata().tolist() == list(range(5)) and other.get_legend() is None


@pytest.mark.parametrize("bars", [False, True])
def test_a_line_of_intervals_joins_their_means_between_low_and_high(ax, bars):
    plots.interval_line(ax, [1, 3], [Interval(2.0, 1.5, 2.75, 9), Interval(1.0, 0.5, 1.25, 9)], "rule", bars)
    assert ax.lines[0].get_xydata().tolist() == [[1, 2], [3, 1]]
    corners = {tuple(corner) for part in ax.collections for path in part.get_paths() for corner in path.vertices}
    assert {(1, 1.5), (1, 2.75), (3, 0.5), (3, 1.25)} <= corners
    assert ax.get_legend_handles_labels()[1] == ["rule"]


def test_one_legend_for_all_panels_is_that_of_the_first(fig):
    left, right = fig.subplots(1, 2)
    for ax in (left, right):
        ax.plot([0, 1], label="selective")
        ax.plot([1, 0], label="random")
    plots.legend_below(fig, columns=2)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["selective", "random"]


@pytest.mark.parametrize("titles", [None, ["one", "two"]])
def test_maps_stand_beside_their_picture(fig, titles):
    maps = [found(normal(16).abs(), grid=(4, 4)), found(normal(16), signed=True, grid=(4, 4))]
    axes = fig.subplots(1, 3)
    plots.relevances(axes, maps, picture(), {"7": np.eye(16, dtype=bool)}, "a scene", titles)
    assert [ax.get_title() for ax in axes] == ["a scene", *(titles or ["rollout · positive"] * 2)]
    assert [len(ax.images) for ax in axes] == [1, 2, 2] and [text.get_text() for text in axes[0].texts] == ["7"]
    with pytest.raises(ValueError, match="zip"):
        plots.relevances(axes, maps[:1], picture(), {})
