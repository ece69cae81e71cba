"""Many methods on many models and samples: one machine or a cluster, nothing lost, nothing doubled."""

from xai_utils.sweep import advice, closed_forms, cluster, leaderboard, parts, plan, ranks, sources, summary, work
from xai_utils.sweep.runner import cost_table, main, run

__all__ = [
    "advice",
    "closed_forms",
    "cluster",
    "cost_table",
    "leaderboard",
    "main",
    "parts",
    "plan",
    "ranks",
    "run",
    "sources",
    "summary",
    "work",
]
