"""What can be asked: one table of models, how a sample becomes their input, and what is asked of them."""

from xai_utils.models import answers, attention_classifier, bundled, detector, encoding, hubs, memory, removal, targets
from xai_utils.models.encoding import Batch, encode, patch_grid, patch_sums
from xai_utils.models.kinds import Model, Preprocessing, Unavailable
from xai_utils.models.removal import shortened
from xai_utils.models.table import (
    MODELS,
    compared,
    embeddings,
    identity,
    load,
    shared,
    state_sha256,
    work_on,
    wrap,
)
from xai_utils.models.targets import TARGETS, Question
