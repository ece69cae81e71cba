"""Judge one map. Pure functions on scores, masks and marks."""

from xai_utils.metrics import agreement, pictures, removal_curves, words
from xai_utils.metrics.pictures import (
    area,
    average_precision,
    cover,
    covers,
    foreground_fraction,
    hit,
    keep_masks,
    lift,
    mass_inside,
    removal_curve,
)
