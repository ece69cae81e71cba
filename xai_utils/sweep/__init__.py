"""Many methods on many models and samples: one machine or a cluster, nothing lost, nothing doubled."""

from xai_utils.sweep import (
    agreement,
    beyond,
    causes,
    closed_forms,
    cluster,
    destroyed,
    leaderboard,
    parts,
    plan,
    runner,
    sources,
    standings,
    work,
)
from xai_utils.sweep.runner import cost_table, run
