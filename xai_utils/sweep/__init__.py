"""Many methods on many models and samples: one machine or a cluster, nothing lost, nothing doubled."""

from xai_utils.sweep import (
    advice,
    closed_forms,
    cluster,
    leaderboard,
    parts,
    plan,
    ranks,
    runner,
    sources,
    summary,
    work,
)
from xai_utils.sweep.runner import cost_table, run

__all__ = [
    "advice",
    "closed_forms",
    "cluster",
    "cost_table",
    "leaderboard",
    "parts",
    "plan",
    "ranks",
    "run",
    "runner",
    "sources",
    "summary",
    "work",
]
