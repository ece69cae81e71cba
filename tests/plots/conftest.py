"""Every figure that a test of this folder draws is read once more: nothing in it may be too small."""

import pytest
from matplotlib.figure import Figure

from xai_utils.plots import style


@pytest.fixture(autouse=True)
def nothing_small(monkeypatch):
    figures, made = [], Figure.__init__

    def remembered(fig, *args, **kwargs):
        made(fig, *args, **kwargs)
        figures.append(fig)

    monkeypatch.setattr(Figure, "__init__", remembered)
    yield figures
    assert not (found := [text for fig in figures for text in style.small(fig)]), f"too small to read: {found}"
