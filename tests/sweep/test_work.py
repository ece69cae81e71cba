"""What a worker does: scores, failures, and whether it is fit."""

import shutil
from dataclasses import replace
from importlib.util import find_spec

import pytest
import sweep_cells
from places import ROOT

from tests.sweep.trial import CELLS, PLAN, run, with_methods
from xai_utils.sweep import cluster, work
from xai_utils.sweep import plan as sweep_plan


def test_other_code_is_noticed(folder, tmp_path, monkeypatch):
    shutil.copy(ROOT / "tests/sweep_cells.py", tmp_path / "copied_cells.py")
    monkeypatch.syspath_prepend(tmp_path)
    plan, file = replace(PLAN, scoring="copied_cells"), tmp_path / "copied_cells.py"
    work.surroundings.cache_clear()
    run(plan, folder)
    file.write_text(file.read_text().replace('"""Scoring', '"""Well: scoring') + "\n# a remark\n")
    work.surroundings.cache_clear()
    assert run(plan, folder).kept == 6, "prose is no code"
    file.write_text(file.read_text().replace("% 5", "% 6"))
    work.surroundings.cache_clear()
    assert run(plan, folder).kept == 0
    work.surroundings.cache_clear()


def test_a_failure_costs_only_its_own_sample(folder):
    found = run(with_methods("counts", "fails"), folder)
    texts = {text.name: text for text in sweep_plan.sets.take(CELLS[0]["samples"], 0, 24)}
    bad = {name for name, text in texts.items() if len(text.text) % 5 == 0}
    failed = found.failures()
    assert 0 < len(bad) < 24 and set(failed["sample"]) == bad and set(failed.method) == {"fails"}
    assert failed.error.str.match(r"ValueError: the text has \d+ characters").all() and failed.value.isna().all()
    assert failed.traceback.str.contains('File "sweep_cells.py"').all()
    assert not failed.traceback.str.contains(str(ROOT / "tests")).any()
    assert len(found.table) == 48 + len(bad) + 2 * (24 - len(bad)) and found.missing == 0
    assert run(with_methods("counts", "fails"), folder).kept == 12, "it fails again, so it is finished"
    assert 0 < run(with_methods("counts", "fails"), folder, again=True).done <= 6


def test_a_text_that_is_too_long_is_a_row_with_its_error(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"text,label\na warm film,pos\n{'dull ' * 600},neg\na dull plot,neg\n")
    cell = sweep_plan.Cell(["minilm-sst2"], ["length"], {"set": "labelled", "path": str(file)})
    shard, short = (
        sweep_plan.expand(sweep_plan.Plan("long", [replace(cell, samples=cell.samples | more)], metrics=["sparseness"]))
        for more in ({}, {"words": 100})
    )
    rows = work.fill(shard[0]).rows
    assert [(row["sample"], row["error"] == "") for row in rows] == [
        ("mine 0", True),
        ("mine 1", False),
        ("mine 2", True),
    ]
    assert "602 tokens, but minilm-sst2 reads at most 512" in rows[1]["error"]
    assert [row["sample"] for row in work.fill(short[0]).rows][1] == "mine 1, first 100 of 600 words"


def test_nan_is_never_silent(folder):
    found = run(with_methods("nan", "constant"), folder)
    assert found.table.value.isna().equals(found.table.error != "")
    assert found.failures().error.str.contains("is nan").all() and len(found.failures())
    assert (found.table[found.table.method == "constant"].value == 1).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "4 samples have no score"),
        ([{"sample": "nobody", "metric": "m", "operator": "", "value": 1.0, "seconds": 0.0}], "of a sample of the"),
        ([{"sample": "nobody", "value": 1.0}], "expected sample, metric"),
    ],
)
def test_scores_that_make_no_sense_are_failures(folder, monkeypatch, rows, said):
    monkeypatch.setattr(sweep_cells, "score_shard", lambda *given: rows)
    failed = run(PLAN, folder).failures()
    assert len(failed) == 24 and (failed.error.str.contains(said) | (said[0] == "4")).all()


def test_a_worker_that_differs_is_unfit(monkeypatch):
    here = work.surroundings("sweep_cells")
    work.Fitness("sweep_cells", here)()
    with pytest.raises(work.Unfit, match="another version of torch"):
        work.Fitness("sweep_cells", {**here, "version": {**here["version"], "torch": "1.0"}})()
    shard = sweep_plan.expand(PLAN)[0]
    for other, said in (({"code": "x"}, "code"), ({"weights": "x"}, "weights"), ({"inputs": "x"}, "samples")):
        with pytest.raises(work.Unfit, match=f"other {said}"):
            work.fill(replace(shard, **other))
    assert [type(found).__name__ for _, found in cluster.each(work.fill, [shard, replace(shard, code="x")])] == [
        "Filled",
        "Unfit",
    ]


def test_what_counts_for_no_number_is_there_and_left_out_of_the_hash():
    assert all(find_spec(name) for name in work.BESIDE)
    code = work.surroundings("xai_utils.evaluation.scoring")["code"]
    assert not set(work.BESIDE) & set(code) and {"xai_utils.evaluation.scoring", "xai_utils.sweep.work"} < set(code)
