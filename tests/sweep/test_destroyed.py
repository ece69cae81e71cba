"""What is left of maps over samples and shuffles, on tables whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from tests.sweep.trial import made_up
from xai_utils.sweep import destroyed


def table(left, spread=0.0, shuffles=5, names=tuple(f"s{i}" for i in range(30))):
    """Correlations around ``left`` by method and test, which move by ``spread`` from shuffle to shuffle."""
    noise, rows = np.random.default_rng(0), []
    for (method, test), mean in left.items():
        for number, moved in enumerate(np.linspace(-spread, spread, shuffles)):
            values = mean + moved + noise.normal(0, 0.1, len(names))
            told = {"model": "m", "method": method, "metric": test, "operator": f"shuffle {number}", "error": ""}
            rows += [{**told, "sample": name, "value": value} for name, value in zip(names, values, strict=True)]
    return pd.DataFrame(rows)


def test_means_intervals_and_single_shuffles():
    found = destroyed.left(table({("a", "everything"): 0.2, ("a", "classifier"): 0.9, ("b", "everything"): 0.7}), 0)
    assert found[["test", "method"]].to_numpy().tolist() == [
        ["classifier", "a"],
        ["everything", "a"],
        ["everything", "b"],
    ]
    assert found.left.tolist() == pytest.approx([0.9, 0.2, 0.7], abs=0.03)
    assert (found.low < found.left).all() and (found.left < found.high).all() and (found.high - found.low < 0.1).all()
    assert (found.least <= found.left).all() and (found.shuffles == 5).all() and (found.n == 30).all()


def test_shuffles_that_disagree_widen_the_interval():
    steady, moving = (destroyed.left(table({("a", "everything"): 0.2}, spread), 0).iloc[0] for spread in (0.0, 0.5))
    assert moving.high - moving.low > 5 * (steady.high - steady.low)
    assert moving.least < -0.2 and moving.most > 0.6


def test_pictures_on_one_background_count_as_one():
    one = table({("a", "everything"): 0.2}, names=tuple(f"badged:{i}" for i in range(6)))
    copies = [one.assign(sample=[f"badged:{int(name[7:]) + 44 * n}" for name in one["sample"]]) for n in range(20)]
    columns = ["left", "low", "high"]
    single, many = (destroyed.left(some, 0)[columns].to_numpy() for some in (one, pd.concat(copies)))
    np.testing.assert_allclose(single, many)


def test_the_p_value_is_of_a_mean_that_is_not_one_half():
    far, near, moving = (
        destroyed.left(table({("a", "everything"): mean}, spread), 0).p.item()
        for mean, spread in ((0.2, 0.0), (0.5, 0.0), (0.2, 0.8))
    )
    assert far == 2 / (destroyed.DRAWS + 1) and near > 0.2 and moving > 0.02


def test_maps_that_could_change_are_one_family_and_a_turned_map_has_not_changed():
    means = {("gradient_x_input", "classifier"): -0.9, ("attention", "classifier"): 0.1, ("random", "everything"): 0.1}
    means |= {("gradient_x_input", "everything"): 0.1, ("attention", "everything"): 0.1}
    found = destroyed.judged(table(means), 0).set_index(["test", "method"])
    assert set(found.index) == {
        ("classifier", "gradient_x_input"), ("everything", "gradient_x_input"), ("everything", "attention"),
    }  # fmt: skip
    assert found.left["classifier", "gradient_x_input"] == pytest.approx(0.9, abs=0.03)
    assert found.p.tolist() == pytest.approx([3 * 2 / (destroyed.DRAWS + 1)] * 3), "corrected for three tests"


def test_a_table_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected tests of sanity alone"):
        destroyed.left(made_up(), 0)
    with pytest.raises(ValueError, match="expected tests of sanity alone"):
        destroyed.left(table({("a", "everything"): 0.2}).assign(error="ValueError: no"), 0)
