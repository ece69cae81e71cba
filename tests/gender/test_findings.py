"""One family of tests in one table."""

import numpy as np
import pytest

from xai_utils import stats
from xai_utils.gender import findings
from xai_utils.stats import AgainstChance, Interval


def test_a_table_corrects_all_p_values_together_and_keeps_what_chance_gives():
    rows = {
        "apart": AgainstChance(Interval(0.9, 0.8, 1.0, 18), 0.3, 0.7, 0.01),
        "falls": (Interval(-0.2, -0.3, -0.1, 40), 0.04),
    }
    table = findings.table(rows, {"apart": 0.5})
    assert table.loc["apart"].tolist() == [0.9, 0.8, 1.0, 0.5, 18, 0.02]
    assert table.loc["falls"].tolist() == [-0.2, -0.3, -0.1, 0.0, 40, 0.04]


def test_pairs_are_exchanged_by_whole_clusters():
    values = np.random.default_rng(0).normal(0.4, 1, 60)
    _, alone = findings.paired(values, 0)
    interval, together = findings.paired(np.repeat(values[:20], 3), 0, np.repeat(range(20), 3))
    assert interval.n == 60 and together == pytest.approx(stats.permutation_p(values[:20].tolist(), 0), abs=0.02)
    assert alone != together


def test_an_order_is_held_against_random_orders():
    one = np.arange(30.0)
    found = findings.ordered(one, -one, 0, 199)
    assert found.found.mean == pytest.approx(-1) and found.p == pytest.approx(1 / 200)
    assert findings.ordered(one, np.random.default_rng(1).normal(size=30), 0, 199).p > 0.05
