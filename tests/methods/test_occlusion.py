"""Leaving one token out is a loop over masks; specials are never left out."""

import pytest
import tiny
from scored import WORDS, kept

from xai_utils import methods
from xai_utils.models import removal


def test_leave_one_out_is_a_loop_over_tokens():
    model, text = tiny.model("bert"), WORDS
    found = methods.explain("leave_one_out", model, text, 1, operator="unknown")
    score = removal.scorer(model, text, 1, "unknown", "logit")
    whole = float(score(kept(found.scores, [])[None]))
    for i in range(1, len(found.scores) - 1):
        assert float(found.scores[i]) == pytest.approx(whole - float(score(kept(found.scores, [i])[None])), abs=1e-9)
    assert found.scores[0] == found.scores[-1] == 0
