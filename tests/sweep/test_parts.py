"""Parts are whole and of this code, or they are done again."""

from dataclasses import replace

import pandas as pd
import pytest

from tests.sweep.trial import PLAN, run
from xai_utils.sweep import parts, plan, work


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "gone"])
def test_a_damaged_part_is_done_again(folder, damage):
    first = run(PLAN, folder)
    victim = sorted(folder.glob("*.parquet"))[2]
    bytes_ = victim.read_bytes()
    if damage == "cut":
        victim.write_bytes(bytes_[: len(bytes_) // 2])
    elif damage == "flipped":
        victim.write_bytes(bytes_[:60] + bytes([bytes_[60] ^ 1]) + bytes_[61:])  # one bit within the first page
    elif damage == "empty":
        victim.write_bytes(b"")
    elif damage == "foreign":
        pd.DataFrame({"a": [1]}).to_parquet(victim)
    else:
        victim.unlink()
    again = run(PLAN, folder)
    assert (again.kept, again.done) == (5, 1) and again.table.equals(first.table)


def test_a_part_of_the_flat_house_is_done_again_and_never_mixed(folder):
    """Parts made when modules had no rooms: their keys were made from bare names of the same code."""
    first = run(PLAN, folder)
    here = work.surroundings("sweep_cells")
    flat = {**here, "code": {name.rpartition(".")[2]: code for name, code in here["code"].items()}}
    assert flat != here
    made = replace(plan.expand(PLAN)[2], code=parts.key(flat)).made_of()
    (file,) = (one for one in folder.glob("*.parquet") if parts.provenance(one)["start"] == made["start"])
    parts.write(parts.read(file).assign(value=-1.0), file, {**made, "key": parts.key(made), "passing": False})
    again = run(PLAN, folder)
    assert (again.kept, again.done) == (5, 1) and again.table.equals(first.table)


def test_equal_things_give_equal_keys_in_whatever_order():
    assert parts.key({"a": 1, "b": 2}) == parts.key({"b": 2, "a": 1}) != parts.key({"a": 1, "b": 3})
