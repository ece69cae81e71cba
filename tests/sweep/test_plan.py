"""Plans: what they come to, and mistakes in them."""

import copy

import pytest
import yaml

from tests.sweep.trial import CELLS
from xai_utils.sweep import plan as sweep_plan


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Let the plans of these tests name a scoring that needs no model."""
    monkeypatch.setattr(sweep_plan, "SCORINGS", ("sweep_cells",))


def test_a_plan_comes_to_shards(tmp_path):
    file = tmp_path / "small.yml"
    cells = [
        {"models": ["plain", "other"], "methods": "all", "samples": {"set": "reviews", "name": "films", "count": 10}}
    ]
    file.write_text(yaml.safe_dump({"shard": 4, "scoring": "sweep_cells", "metrics": ["length"], "cells": cells}))
    found = sweep_plan.expand(sweep_plan.read(file))
    assert len(found) == 3 * (5 + 1)
    assert [(one.start, one.stop) for one in found[:3]] == [(0, 4), (4, 8), (8, 10)]
    assert {(one.label, one.metrics, one.seed) for one in found} == {("films", ("length",), 0)}
    assert {one.weights for one in found if one.model == "other"} == {"two"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shard": 0}, r"plan\.yml, line \d+: shard is 0: input should be greater than or equal to 1"),
        ({"shard": "8"}, "shard is '8': input should be a valid integer"),
        ({"shard": [8]}, "shard is a list of 1"),
        ({"shard": None}, "shard is nothing"),
        ({"shard": 2.5}, "shard is 2.5"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 100_000}, "threads is 100000: input should be less than or equal to 256"),
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"seed": -1}, "seed is -1"),
        ({"cells": []}, "cells is a list of 0: list should have at least 1 item"),
        ({"metrics": []}, "metrics is a list of 0"),
        ({"metrics": None}, "metrics is nothing"),
        ({"cells": [{**CELLS[0], "models": "plain"}]}, r"cells\[0\]\.models is 'plain': input should be a valid list"),
        ({"cells": [{**CELLS[0], "models": None}]}, r"cells\[0\]\.models is nothing"),
        ({"cells": [{**CELLS[0], "methods": None}]}, r"cells\[0\]\.methods is nothing"),
        ({"cells": [{**CELLS[0], "samples": None}]}, r"cells\[0\]\.samples is nothing"),
        ({"cells": [{**CELLS[0], "samples": {"set": ["reviews"]}}]}, r"set of samples is \['reviews'\]"),
        ({"cells": [{**CELLS[0], "samples": {"set": "reviews", "count": "4"}}]}, "count is '4'"),
        ({"scoring": "os"}, r"scoring of plan\.yml is 'os', expected one of: sweep_cells"),
        ({"speed": 3}, "unknown field 'speed'"),
        ({"metrics": ["beauty"]}, "metric is 'beauty'"),
        ({"cells": [{"models": ["plain"]}]}, "the field 'cells\\[0\\].methods' is missing"),
        ({"cells": [{**CELLS[0], "methods": ["magic"]}]}, "method for plain is 'magic'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "reviews", "count": 0}}]}, "count is 0"),
        ({"cells": [{**CELLS[0], "samples": {"set": "dreams"}}]}, "set of samples is 'dreams'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "scenes", "size": 3}}]}, "no option 'size'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "pictures", "path": "$NOWHERE_AT_ALL"}}]}, "not set"),
        ({"cells": [*CELLS, *copy.deepcopy(CELLS)]}, "in two cells"),
    ],
)
def test_a_mistake_in_the_plan_is_named(tmp_path, wrong, said):
    file = tmp_path / "plan.yml"
    file.write_text(yaml.safe_dump({"scoring": "sweep_cells", "cells": CELLS, **wrong}))
    with pytest.raises(ValueError, match=said):
        sweep_plan.expand(sweep_plan.read(file))


def test_what_is_no_plan_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a \.yml"):
        sweep_plan.read(tmp_path / "none.yml")
    for text, said in (("a: [", "no plain YAML: line 1"), ("- 1", "holds a list")):
        (tmp_path / "bad.yml").write_text(text)
        with pytest.raises(ValueError, match=said):
            sweep_plan.read(tmp_path / "bad.yml")
