"""Plans: what they come to, and mistakes in them."""

import pytest
import yaml

from tests.sweep.trial import CELLS
from xai_utils.sweep import plan as sweep_plan


def test_a_plan_comes_to_shards(tmp_path):
    file = tmp_path / "small.yml"
    cells = [
        {"models": ["plain", "other"], "methods": "all", "samples": {"set": "reviews", "name": "films", "count": 10}}
    ]
    file.write_text(yaml.safe_dump({"shard": 4, "scoring": "sweep_cells", "metrics": ["length"], "cells": cells}))
    found = sweep_plan.expand(sweep_plan.read(file))
    assert len(found) == 3 * (4 + 1)
    assert [(one.start, one.stop) for one in found[:3]] == [(0, 4), (4, 8), (8, 10)]
    assert {(one.label, one.metrics, one.seed) for one in found} == {("films", ("length",), 0)}
    assert {one.weights for one in found if one.model == "other"} == {"two"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shard": 0}, "shard is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"cells": []}, "no cells"),
        ({"speed": 3}, "unknown field 'speed'"),
        ({"metrics": ["beauty"]}, "metric is 'beauty'"),
        ({"cells": [{"models": ["plain"]}]}, "expected models, methods, samples"),
        ({"cells": [{**CELLS[0], "methods": ["magic"]}]}, "method for plain is 'magic'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "reviews", "count": 0}}]}, "count is 0"),
        ({"cells": [{**CELLS[0], "samples": {"set": "dreams"}}]}, "set of samples is 'dreams'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "scenes", "size": 3}}]}, "no option 'size'"),
        ({"cells": [{**CELLS[0], "samples": {"set": "pictures", "path": "$NOWHERE_AT_ALL"}}]}, "not set"),
        ({"cells": [*CELLS, *CELLS]}, "in two cells"),
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
    for text, said in (("a: [", "no YAML"), ("- 1", "holds a list")):
        (tmp_path / "bad.yml").write_text(text)
        with pytest.raises(ValueError, match=said):
            sweep_plan.read(tmp_path / "bad.yml")
