"""Judge many maps of a model, where the truth is known and where it is not."""

from xai_utils.evaluation import (
    conservation,
    depth,
    jitter,
    judged,
    on_objects,
    on_pictures,
    on_prompts,
    on_recall,
    on_scans,
    paired,
    probe,
    sanity,
    scoring,
    zero_reference,
)
from xai_utils.evaluation.on_objects import maps, predicted
