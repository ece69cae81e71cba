"""Time a sweep by two workers against one: samples a second once models are loaded, and from the first command on.

Wall-clock time, because that is what a second worker saves: the machine has to be idle, with two cores at least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil

from tests.bench.measure import Against, Row
from xai_utils.sweep import cluster, plan, work
from xai_utils.sweep.cluster import Where

TARGET = 1.6  # times as fast
WARM = 4  # results in which models are loaded
METHODS = ("rollout", "gradient_rollout", "gradient_x_input", "attnlrp")


def measure(workers: int, samples: int, method: tuple[str, ...] = METHODS) -> dict[str, float]:
    """Return ``steady`` (shards a second behind the first :data:`WARM`) and ``whole`` (seconds, start included)."""
    cell = plan.Cell(["minilm-sst2"], list(method), {"set": "reviews", "count": samples})
    todo = plan.expand(plan.Plan("bench", [cell], shard=8))
    start, times = time.perf_counter(), []
    for _, filled in cluster.each(work.fill, todo, Where(workers=workers)):
        if isinstance(filled, BaseException):
            raise filled
        times.append(time.perf_counter())
    return {"steady": (len(times) - WARM) / (times[-1] - times[WARM - 1]), "whole": times[-1] - start}


def rows(quick: bool = False) -> Iterator[Row]:
    """Compare two workers with one on the bundled reviews."""
    one, two = (measure(workers, 16 if quick else 64) for workers in (1, 2))
    busy = psutil.getloadavg()[0] / (os.cpu_count() or 1)
    case = "sweep by two workers, seconds of the clock"
    why = f"the cores have other work, {busy:.1f} programs each" if busy > 1 else ""
    steady, whole = (Against("one worker", seconds, 1 / TARGET, why) for seconds in (1 / one["steady"], one["whole"]))
    yield Row(f"{case}: a shard, models loaded", 1 / two["steady"], steady)
    yield Row(f"{case}: from the start", two["whole"], whole)
