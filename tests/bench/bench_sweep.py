"""Time a sweep by two workers against one: samples a second once models are loaded, and from the first command on.

Wall-clock time, because that is what a second worker saves: the machine has to be idle, with two cores at least.
"""

from __future__ import annotations

import os
import time

import psutil

from xai_utils.sweep import cluster, plan, work
from xai_utils.sweep.cluster import Where

TARGET = 1.6  # times as fast
WARM = 4  # results in which models are loaded
METHODS = ("rollout", "gradient_rollout", "gradient_x_input", "attnlrp")


def measure(workers: int, samples: int, method: tuple[str, ...] = METHODS) -> dict[str, float]:
    """Return ``steady`` (shards a second behind the first :data:`WARM`) and ``whole`` (seconds, start included)."""
    cell = {"models": ["minilm-sst2"], "methods": list(method), "samples": {"set": "reviews", "count": samples}}
    todo = plan.expand(plan.Plan("bench", [cell], shard=8))
    start, times = time.perf_counter(), []
    for _, filled in cluster.each(work.fill, todo, Where(workers=workers)):
        if isinstance(filled, BaseException):
            raise filled
        times.append(time.perf_counter())
    return {"steady": (len(times) - WARM) / (times[-1] - times[WARM - 1]), "whole": times[-1] - start}


def efficiency(samples: int = 64) -> float:
    """Return the share of two workers' time that is not lost: speed of two over twice the speed of one."""
    return measure(2, samples)["steady"] / measure(1, samples)["steady"] / 2


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Compare two workers with one on the bundled reviews."""
    one, two = (measure(workers, 16 if quick else 64) for workers in (1, 2))
    busy = psutil.getloadavg()[0] / (os.cpu_count() or 1)
    case = f"sweep, load of the machine {busy:.1f} a core"
    return [
        _row(f"{case}, models loaded", 1 / two["steady"], 1 / one["steady"]),
        _row(f"{case}, from the start", two["whole"], one["whole"]),
    ]


def _row(case: str, ours: float, theirs: float) -> dict[str, object]:
    named = {"case": case, "ours": "two workers", "compared with": "one worker"}
    return {**named, "seconds": ours, "theirs (s)": theirs, "ratio": ours / theirs, "target": 1 / TARGET}
