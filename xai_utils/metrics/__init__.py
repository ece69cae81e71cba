"""Judge one map. Pure functions on scores, masks and marks."""

from xai_utils.metrics import agreement, pictures, rankings, removal_curves, words
from xai_utils.metrics.pictures import cover, covers, foreground_fraction, lift, mass_inside
from xai_utils.metrics.rankings import average_precision, hit
from xai_utils.metrics.removal_curves import area, keep_masks, removal_curve
