"""A trial sweep that needs no model, and a table of scores whose answers are known."""

from dataclasses import replace

import numpy as np
import pandas as pd

from xai_utils import sweep
from xai_utils.sweep import plan

CELLS = [{"models": ["plain"], "methods": ["counts"], "samples": {"set": "reviews", "count": 24}}]
PLAN = plan.Plan("trial", CELLS, seed=3, shard=4, scoring="sweep_cells")
QUALITY = {"good": 1.0, "fair": 0.5, "random": 0.0, "poor": -0.6}
WAYS = ("mask", "delete")


def with_methods(*methods):
    return replace(PLAN, cells=[{**CELLS[0], "methods": list(methods)}])


def run(plan, folder, **options):
    return sweep.run(plan, folder, quiet=True, **options)


def noted(notes):
    """Return the lines in which workers say what they did."""
    return [line for file in notes.iterdir() if file.name.isdigit() for line in file.read_text().splitlines()]


def made_up(samples=60, seed=0, flip=False, missing=()):
    """Draw a table in which ``good`` is best everywhere; with ``flip``, worst when words are deleted."""
    noise = np.random.default_rng(seed)
    rows = []
    for method, quality in QUALITY.items():
        for i in range(samples):
            lacks = method in missing and i % 3 == 0
            row = {"model": "m", "method": method, "set": "s", "sample": f"s{i}", "seconds": 0.01, "error": ""}
            rows.append(row | {"metric": "fails", "operator": "", "value": float(lacks)})
            for metric, operator in (("average_precision", ""), *(("delta_af", way) for way in WAYS)):
                turned = -quality if flip and operator == "delete" else quality
                if not lacks:
                    value = turned + noise.normal(0, 0.5)
                    rows.append(row | {"metric": metric, "operator": operator, "value": value})
            if not lacks:
                rows.append(row | {"metric": "sufficiency", "operator": "mask", "value": -quality})
    return pd.DataFrame(rows)
