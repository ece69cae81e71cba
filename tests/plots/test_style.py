"""The look: matplotlib's defaults are ours, and what is written too small is found."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from xai_utils.plots import style


def test_defaults_are_set_and_large_enough():
    sizes = [plt.rcParams[name] for name in plt.rcParams if name.endswith(("size", "fontsize")) and "label" in name]
    assert sizes and min(size for size in sizes if isinstance(size, (int, float))) >= style.SMALLEST
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(style.COLOURS)


def test_small_letters_are_found_wherever_they_stand(nothing_small):
    fig = Figure()
    ax = fig.subplots()
    ax.plot([0, 1], label="a line")
    ax.set_xlabel("across", fontsize=7)
    ax.tick_params(axis="y", labelsize=6)
    ax.legend(fontsize=5)
    fig.colorbar(ax.imshow(np.eye(2)), ax=ax).set_label("unit", fontsize=7.5)
    found = style.small(fig)
    assert {"across", "a line", "unit"} <= set(found) and len(found) > 4
    nothing_small.clear()  # drawn small on purpose


def test_plain_axes_are_readable():
    fig = Figure()
    ax = fig.subplots()
    ax.plot([0, 1], label="a line")
    ax.set(title="title", xlabel="across")
    ax.legend()
    assert style.small(fig) == []


def test_lines_differ_for_readers_without_red_or_green():
    """Colours stay apart when red and green are seen as one (Viénot et al., 1999, deuteranopia, linear RGB)."""
    linear = np.array([to_rgb(one) for one in style.COLOURS]) ** 2.2
    mixed = linear @ np.array([[0.29275, 0.29275, -0.02234], [0.70725, 0.70725, 0.02234], [0, 0, 1]])
    seen = mixed.clip(0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
    assert apart.min() > 0.1
