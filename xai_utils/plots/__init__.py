"""Draw on given axes; figures, widgets and the explorer share these."""

from xai_utils.plots import closed_forms, compared, depth, foreground, gender, language, leaderboard, scans, style
from xai_utils.plots.base import (
    band,
    bands,
    before_after,
    bipartite,
    head_grid,
    highlighted,
    image,
    interval_line,
    intervals,
    layer_bars,
    legend_below,
    masked,
    matrix,
    outline,
    overlay,
    panels,
    relevance,
    relevances,
    spectra,
    strands,
    token_bars,
)
from xai_utils.plots.style import AMOUNT, SIGNED
