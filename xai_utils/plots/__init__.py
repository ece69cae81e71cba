"""Draw on given axes; figures, widgets and the explorer share these."""

from xai_utils.plots import closed_forms, foreground, gender, leaderboard, scans
from xai_utils.plots.base import (
    AMOUNT,
    SIGNED,
    band,
    before_after,
    bipartite,
    head_grid,
    highlighted,
    image,
    intervals,
    layer_bars,
    masked,
    matrix,
    outline,
    overlay,
    panels,
    relevance,
    spectra,
    strands,
    token_bars,
)
