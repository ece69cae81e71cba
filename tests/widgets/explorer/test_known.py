"""What a badge says: the numbers of the bundled leaderboard, for the kind of the model at hand, and nothing else."""

from dataclasses import replace

import pytest
import tiny

from xai_utils.sweep import leaderboard, standings
from xai_utils.widgets.explorer import known

BOARD = standings.read(leaderboard.FILE.with_suffix(".csv"))
KINDS = {
    "bert": "text transformer", "timm-vit": "vision transformer", "resnet": "convolutional network",
    "vim": "Vision Mamba",
}  # fmt: skip


@pytest.mark.parametrize("name", leaderboard.ABOUT)
def test_a_bundled_model_has_its_own_numbers(name):
    model = replace(tiny.model("bert"), name=name)
    rows = standings.chosen(BOARD, name, "average_precision").set_index("method")
    for method, one in rows.iterrows():
        told = known.badge(model, method)
        assert f"on {name} {one['mean']:.2f} [{one.low:.2f}, {one.high:.2f}]" in told
        unsure = one.gain <= 0 or one.p >= 1 - standings.LEVEL
        assert ("not shown to be better" in told) == (unsure and method != "random")


@pytest.mark.parametrize("name", KINDS)
def test_another_model_has_those_of_its_kind_where_the_cause_is_known_if_anywhere(name):
    model = tiny.model(name)
    assert known.kind_of(model) == KINDS[name]
    own = known.scored(model)
    assert leaderboard.ABOUT[own][0] == KINDS[name]
    causes = [one for one in leaderboard.ABOUT.values() if one == (KINDS[name], leaderboard.CAUSE)]
    assert (leaderboard.ABOUT[own][1] == leaderboard.CAUSE) == bool(causes)


def test_what_was_not_scored_has_no_badge():
    assert known.badge(tiny.model("bert"), "rollout, before") == ""
    unscored = replace(tiny.model("bert"), head="mask")
    assert known.kind_of(unscored) == known.scored(unscored) == known.badge(unscored, "rollout") == ""
