"""The sweep: nothing lost, nothing doubled."""

from dataclasses import replace

import pytest
import sweep_cells
import yaml

from tests.sweep.trial import CELLS, PLAN, noted, run
from xai_utils import files, sweep
from xai_utils.__main__ import main
from xai_utils.sweep import parts, runner, work
from xai_utils.sweep import plan as sweep_plan


def test_finished_parts_are_kept(folder, notes):
    first = run(PLAN, folder)
    assert (first.kept, first.done, len(first.table)) == (0, 6, 48)
    again = run(PLAN, folder)
    assert (again.kept, again.done) == (6, 0) and again.table.equals(first.table)
    assert len(noted(notes)) == 6


def test_an_interrupted_sweep_goes_on(folder, notes, monkeypatch):
    whole = run(PLAN, folder / "whole")
    scored = sweep_cells.score_shard

    def stops(model, method, samples, metrics, seed):
        if len(list((folder / "cut").glob("*.parquet"))) == 2:
            raise KeyboardInterrupt
        return scored(model, method, samples, metrics, seed)

    monkeypatch.setattr(sweep_cells, "score_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        run(PLAN, folder / "cut")
    monkeypatch.setattr(sweep_cells, "score_shard", scored)
    so_far = run(PLAN, folder / "cut", finished_only=True)
    assert (so_far.kept, so_far.done, so_far.missing) == (2, 0, 4) and so_far.table.equals(whole.table[:16])
    rest = run(PLAN, folder / "cut")
    assert (rest.kept, rest.done) == (2, 4) and rest.table.equals(whole.table)
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("changed", [{"seed": 4}, {"metrics": ["length"]}, {"shard": 7}, {"threads": 2}])
def test_other_parameters_are_noticed(folder, changed):
    run(PLAN, folder)
    assert run(replace(PLAN, **changed), folder).kept == 0


def test_other_weights_and_samples_are_noticed(folder, monkeypatch):
    run(PLAN, folder)
    other = replace(PLAN, cells=[{**CELLS[0], "samples": {"set": "reviews", "count": 25}}])
    assert run(other, folder).kept == 0
    run(PLAN, folder)
    monkeypatch.setitem(sweep_cells.WEIGHTS, "plain", "trained longer")
    assert run(PLAN, folder).kept == 0


def test_nothing_finished_is_said(folder):
    with pytest.raises(ValueError, match="no part of this sweep is finished"):
        run(PLAN, folder, finished_only=True)


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("the disk is away")])
def test_a_failure_that_may_pass_is_tried_again(folder, monkeypatch, error):
    scored = sweep_cells.score_shard

    def fails(*given):
        raise error

    monkeypatch.setattr(sweep_cells, "score_shard", fails)
    first = run(PLAN, folder)
    assert first.missing == 6 and len(first.failures()) == 24
    monkeypatch.setattr(sweep_cells, "score_shard", scored)
    assert len(run(PLAN, folder).failures()) == 0


def test_scores_that_are_there_twice_are_refused(folder, monkeypatch):
    scored = sweep_cells.score_shard
    monkeypatch.setattr(sweep_cells, "score_shard", lambda *given: 2 * scored(*given))
    with pytest.raises(ValueError, match="48 scores are there twice"):
        run(PLAN, folder)


def test_the_command_writes_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(sweep_plan, "SCORINGS", ("sweep_cells",))
    file = tmp_path / "films.yml"
    file.write_text(yaml.safe_dump({"scoring": "sweep_cells", "cells": [{**CELLS[0], "methods": ["counts", "fails"]}]}))
    assert main(["sweep", str(file)]) == 1, "some samples failed"
    said = capsys.readouterr().out
    assert "0 parts kept, 4 done" in said and "failed  fails on plain" in said
    table, about = parts.read(tmp_path / "films.parquet"), parts.provenance(tmp_path / "films.parquet")
    assert tuple(table.columns) == work.COLUMNS and about["weights"] == {"plain": "one"}
    assert about["plan"]["name"] == "films" and set(about["inputs"]) == {"reviews"} and "torch" in about["version"]
    assert str(tmp_path) not in str(about)
    assert main(["sweep", str(tmp_path / "none.yml")]) == 2 and "error: no plan" in capsys.readouterr().err
    assert main(["sweep", str(file), "--scheduler", "nowhere"]) == 2


@pytest.mark.parametrize(("method", "seed", "code"), [("counts", 0, 0), ("fails", 0, 1), ("broken", 0, 2)])
def test_the_exit_code_says_whether_all_some_or_none_are_scored(tmp_path, monkeypatch, capsys, method, seed, code):
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(sweep_plan, "SCORINGS", ("sweep_cells",))
    file = tmp_path / "films.yml"
    file.write_text(yaml.safe_dump({"scoring": "sweep_cells", "cells": [{**CELLS[0], "methods": [method]}]}))
    assert main(["sweep", str(file)]) == code
    assert ("failed  " in capsys.readouterr().out) == bool(code)


def test_the_cost_of_a_sweep():
    table = sweep.cost_table(1.0, efficiency=0.8, samples=36_000)
    assert table.workers.tolist() == [1, 8, 64] and table.hours.tolist() == pytest.approx([10, 10 / 6.4, 10 / 51.2])
    assert table.hours_amdahl.tolist() == pytest.approx([10, 10 * (0.25 + 0.75 / 8), 10 * (0.25 + 0.75 / 64)])
    two = sweep.cost_table(1.0, 0.8, 3600, workers=(2,)).iloc[0]
    assert two.hours == pytest.approx(two.hours_amdahl) == pytest.approx(1 / 1.6), "both agree on what was measured"
    for wrong in ({"seconds": 0.0}, {"efficiency": 0.4}, {"samples": 0}, {"workers": (0,)}):
        with pytest.raises(ValueError):
            sweep.cost_table(**{"seconds": 1.0, "efficiency": 0.9, **wrong})


def test_a_second_sweep_of_one_plan_is_told(folder):
    with files.alone({folder / ".lock": "the sweep trial"}):
        with pytest.raises(ValueError, match="the sweep trial is being worked on by another command"):
            run(PLAN, folder)
    assert run(PLAN, folder).done == 6
