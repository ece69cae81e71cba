"""Look inside a model while it runs, and leave no trace."""

from xai_utils.capture import intervene, lrp_mamba, scans
from xai_utils.capture.attention import capture_attention
from xai_utils.capture.scans import capture_scans
