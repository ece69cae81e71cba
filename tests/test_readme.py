"""What the README says of real models is what the stored table says."""

import re

import pytest
from places import ROOT

from xai_utils.sweep import standings

README = (ROOT / "README.md").read_text()
SAID = {
    "DeiT-tiny": ("deit_tiny", ("coco", "average_precision", ""), ("coco", "delta_af", "mean"),
                  ("imagenet", "delta_af", "mean")),
    "minilm-sst2": ("minilm-sst2", ("eraser", "average_precision", ""), ("eraser", "delta_af", "mask"),
                    ("sst2", "delta_af", "mask")),
}  # fmt: skip


def rows_of(head):
    """Return the cells of the table whose first heading is ``head``, that heading's row first."""
    lines = re.search(rf"^\| {re.escape(head)} \|.*?\n\n", README, re.DOTALL | re.MULTILINE)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return [rows[0], *rows[2:]]


@pytest.mark.parametrize("head", SAID)
def test_results_on_real_models_are_those_of_the_stored_table(head):
    found = standings.read(ROOT / "figures/real/real.csv")
    model, *columns = SAID[head]
    heads, *rows = rows_of(head)
    for place, (label, metric, operator) in enumerate(columns, 1):
        own = standings.chosen(found[found.set == label], model, metric, operator).set_index("method")
        told = {method: f"{one['mean']:.2f} [{one.low:.2f}, {one.high:.2f}]" for method, one in own.iterrows()}
        assert {row[0]: row[place] for row in rows} == told
        numbers = re.findall(r"\d+", heads[place]) or re.findall(r"\d+", heads[place - 1])  # "there": as before
        assert own.n.unique().tolist() == [int(numbers[0])]
