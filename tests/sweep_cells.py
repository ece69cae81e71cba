"""Scoring that needs no model, for the tests of the sweep; workers import it by name."""

import math
import os
import signal
import time
from pathlib import Path

import torch

METRICS = ("length", "noise")
WEIGHTS = {"plain": "one", "other": "two"}


def methods_for(model):
    return ("counts", "fails", "nan", "constant", "broken") if model == "plain" else ("counts",)


def identity(model):
    return WEIGHTS[model]


def score_shard(model, method, samples, metrics, seed):
    """Score by length and by seeded noise; what is done is noted down where ``SWEEP_NOTES`` says."""
    _note(method, samples)
    return [
        {"sample": one.name, "metric": metric, "operator": "none", "value": _value(method, metric, one), "seconds": 0.0}
        for one in samples
        for metric in metrics
    ]


def _value(method, metric, sample):
    if method == "fails" and len(sample.text) % 5 == 0:
        raise ValueError(f"the text has {len(sample.text)} characters")
    if method == "broken":
        raise ValueError("it never works")
    if method == "nan" and len(sample.text) % 7 == 0:
        return math.nan
    if method == "constant":
        return 1.0
    return float(len(sample.text)) if metric == "length" else float(torch.rand(()))


def _note(method, samples):
    notes = os.environ.get("SWEEP_NOTES")
    if notes:
        with (Path(notes) / str(os.getpid())).open("a") as file:
            file.write(f"{method} {samples[0].name}\n")
        if (Path(notes) / "slow").exists():
            time.sleep(0.2)
        if (Path(notes) / "deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
