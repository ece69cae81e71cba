"""Panels on one scale: the same number has the same colour in every one of them."""

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm

from xai_utils.plots import compared

PICTURE = np.full((3, 8, 8), 0.5, dtype=np.float32)


def test_overlays_share_one_scale_and_one_bar():
    fig, axes = plt.subplots(1, 2)
    maps = {"small": torch.tensor([[0.0, 0.1], [0.1, 0.0]]), "large": torch.tensor([[0.0, 0.9], [0.3, 0.0]])}
    compared.overlays(axes, PICTURE, maps, "share")
    limits = [ax.images[1].get_clim() for ax in axes]
    assert limits[0] == limits[1] and limits[0][1] == np.float32(0.9)
    assert len(fig.axes) == 3 and fig.axes[2].get_ylabel() == "share"
    assert [ax.get_title() for ax in axes] == ["small", "large"]


def test_a_negative_score_centres_all_panels_at_zero():
    fig, axes = plt.subplots(1, 2)
    compared.overlays(axes, PICTURE, {"a": torch.tensor([[1.0]]), "b": torch.tensor([[-2.0]])}, "logit", bar=False)
    assert all(isinstance(ax.images[1].norm, TwoSlopeNorm) and ax.images[1].get_clim() == (-2, 2) for ax in axes)
    assert len(fig.axes) == 2


def test_matrices_share_one_scale_that_few_large_entries_do_not_set():
    values = torch.full((12, 12), 0.1)
    values[0, 0] = 1.0
    fig, axes = plt.subplots(1, 2)
    compared.matrices(axes, {"a": values, "b": values * 2}, [str(i) for i in range(12)], "attention")
    limits = [ax.images[0].get_clim() for ax in axes]
    assert limits[0] == limits[1] and 0.2 <= limits[0][1] < 1
    assert len(axes[0].get_yticks()) == 12 and len(fig.axes) == 3


def test_scales_of_constant_maps_and_relative_maps():
    assert compared.scale([torch.ones(2, 2)]).vmax == 2
    assert compared.relative(torch.tensor([-4.0, 2.0])).tolist() == [-1, 0.5]
    assert compared.relative(torch.zeros(2)).tolist() == [0, 0]


def test_a_table_is_written_on_its_colours_with_one_frame_a_row():
    values = pd.DataFrame({0.3: [0.1, 0.9], 0.5: [0.25, 0.5]}, ["rollout", "heat"]).rename_axis(columns="skip")
    _, ax = plt.subplots()
    compared.table(ax, values, {"rollout": 0.5})
    assert [one.get_text() for one in ax.texts] == ["0.10", "0.25", "0.90", "0.50"]
    assert [one.get_color() for one in ax.texts] == ["w", "w", "k", "w"]
    (frame,) = ax.patches
    assert frame.get_xy() == (0.53, -0.45) and ax.get_xlabel() == "skip"
    assert [one.get_text() for one in ax.get_yticklabels()] == ["rollout", "heat"]


def test_removals_are_lines_over_the_band_of_random_orders():
    ax = plt.Figure().subplots()
    random = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None].expand(-1, 3)
    compared.removals(ax, (0, 0.05, 1), {"one": torch.tensor([0.9, 0.2, 0.1])}, random)
    (band,), (line,) = ax.collections, ax.lines
    edges = band.get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (0.05, 0.95) and line.get_label() == "one"
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.9], [1, 0.2], [2, 0.1]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0%", "5%", "100%"]
