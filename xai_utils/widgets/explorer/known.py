"""What a method reached where the truth is known: its line of the bundled leaderboard for the kind of model at hand."""

from __future__ import annotations

from functools import cache

import pandas as pd

from xai_utils.capture.scans import scanning
from xai_utils.methods import METHODS
from xai_utils.models import Model
from xai_utils.sweep import leaderboard, standings
from xai_utils.sweep.leaderboard import ABOUT, CAUSE

EXPLAINED = (
    "Under a method: average precision where the truth is known, with its 95 % interval, and that of the random map; "
    "see notebook 09."
)


@cache
def _standings() -> pd.DataFrame:
    return standings.read(leaderboard.FILE.with_suffix(".csv"))


def kind_of(model: Model) -> str:
    """Return the kind of a model as the leaderboard has it, or ``""`` where none of that kind was scored."""
    if model.name in ABOUT:
        return ABOUT[model.name][0]
    if model.head == "next":
        return "language model"
    if model.head != "classes" or not model.classes:
        return ""
    if scanning(model.module):
        return "Mamba of texts" if model.kind == "text" else "Vision Mamba"
    one_layer = not METHODS["closed_attention"].suits(model)
    attends = not METHODS["rollout"].suits(model)
    if model.kind == "text":
        return "one attention layer" if one_layer else "text transformer" if attends else ""
    return "vision transformer" if attends else "" if METHODS["gradcam"].suits(model) else "convolutional network"


def scored(model: Model) -> str:
    """Return the bundled model that speaks for one: itself, else of its kind one of known cause first, or ``""``."""
    if model.name in ABOUT:
        return model.name
    alike = [name for name, (kind, _) in ABOUT.items() if kind == kind_of(model)]
    return min(alike, key=lambda name: ABOUT[name][1] != CAUSE, default="")


def badge(model: Model, method: str) -> str:
    """Say what a method reached: ``"on vit-scenes 0.81 [0.78, 0.84], at random 0.07"``.

    Where it is not shown to be better than the random map (5 %, corrected by Holm), the badge says so; ``""`` for a
    method that was not scored on this kind of model.
    """
    name = scored(model)
    if not name:
        return ""
    rows = standings.chosen(_standings(), name, standings.TRUTH).set_index("method")
    if method not in rows.index:
        return ""
    one, guess = rows.loc[method], rows.loc[standings.NULL]
    told = "on {} {mean:.2f} [{low:.2f}, {high:.2f}]".format(name, **one)
    if method == standings.NULL:
        return told
    better = one.gain > 0 and one.p < 1 - standings.LEVEL
    return f"{told}, at random {guess['mean']:.2f}{'' if better else ': not shown to be better'}"
