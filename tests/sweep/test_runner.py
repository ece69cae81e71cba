"""The sweep: nothing lost, nothing doubled, and the same numbers whoever does the work."""

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace

import distributed
import pandas as pd
import psutil
import pytest
import sweep_cells
import yaml
from places import ROOT

from xai_utils import sweep
from xai_utils.__main__ import main
from xai_utils.sweep import cluster as engine
from xai_utils.sweep import parts, runner, work
from xai_utils.sweep import plan as sweep_plan
from xai_utils.sweep.cluster import Where

CELLS = [{"models": ["plain"], "methods": ["counts"], "samples": {"set": "reviews", "count": 24}}]
PLAN = sweep_plan.Plan("trial", CELLS, seed=3, shard=4, scoring="sweep_cells")


def with_methods(*methods):
    return replace(PLAN, cells=[{**CELLS[0], "methods": list(methods)}])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "parts"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    made = tmp_path / "notes"
    made.mkdir()
    monkeypatch.setenv("SWEEP_NOTES", str(made))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), *sys.path]))
    return made


def noted(notes):
    return [line for file in notes.iterdir() if file.name.isdigit() for line in file.read_text().splitlines()]


def run(plan, folder, **options):
    return sweep.run(plan, folder, quiet=True, **options)


# Plan


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


# Resuming


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


def test_nothing_finished_is_said(folder):
    with pytest.raises(ValueError, match="no part of this sweep is finished"):
        run(PLAN, folder, finished_only=True)


# Failures


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


def test_nan_is_never_silent(folder):
    found = run(with_methods("nan", "constant"), folder)
    assert found.table.value.isna().equals(found.table.error != "")
    assert found.failures().error.str.contains("is nan").all() and len(found.failures())
    assert (found.table[found.table.method == "constant"].value == 1).all()


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


def test_scores_that_are_there_twice_are_refused(folder, monkeypatch):
    scored = sweep_cells.score_shard
    monkeypatch.setattr(sweep_cells, "score_shard", lambda *given: 2 * scored(*given))
    with pytest.raises(ValueError, match="48 scores are there twice"):
        run(PLAN, folder)


# Workers


def test_two_workers_one_killed(folder, notes):
    """The numbers of one worker, though one of two dies in the middle: nothing lost, nothing doubled."""
    plan = replace(with_methods("counts", "fails"), shard=2)
    alone = run(plan, folder / "alone")
    for file in notes.iterdir():
        file.unlink()
    (notes / "slow").touch()
    seen, over = {}, threading.Event()

    def kill():
        while not over.is_set():
            busy = [file for file in notes.iterdir() if file.name.isdigit() and len(file.read_text().split("\n")) > 2]
            if len(busy) == 2:
                processes = [psutil.Process(int(file.name)) for file in busy]
                seen["addresses"] = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == "LISTEN"}
                seen["environ"] = processes[0].environ()
                seen["dead"] = int(busy[0].name)
                os.kill(seen["dead"], signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        both = run(plan, folder / "both", where=Where(workers=2))
    finally:
        over.set()
        killer.join()
    assert "dead" in seen, "both workers had something to do"
    assert seen["addresses"] == {"127.0.0.1"}
    assert seen["environ"].items() >= {k: str(v) for k, v in engine.WORKER.items()}.items()
    assert "MALLOC_TRIM_THRESHOLD_" not in seen["environ"], "it makes workers slow"
    assert both.table.equals(alone.table)
    calls = (notes / str(seen["dead"])).read_text().splitlines()
    assert len(calls) >= 2 and len(noted(notes)) > 24, "what the dead one had in hand was done again"
    assert len(list((folder / "both").glob("*.parquet"))) == 24 and both.missing == 0


def test_a_cluster_that_cannot_help_says_so(folder, monkeypatch):
    """A scheduler without workers, then with one that lacks the package, then with one that has other code."""
    where = Where(scheduler="", join=0.2)
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        preload="import sys; sys.modules['xai_utils'] = None",
    ) as cluster:  # fmt: skip
        where = replace(where, scheduler=cluster.scheduler_address)
        with pytest.raises(ConnectionError, match="no worker for"):
            run(PLAN, folder, where=where)
        cluster.scale(1)
        with pytest.raises(RuntimeError, match="1 of 1 workers lack the package xai_utils"):
            run(PLAN, folder, where=replace(where, join=30))
    assert not list(folder.glob("*.parquet"))


def test_no_scheduler_is_said_at_once(folder):
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tcp://127.0.0.1:9"):
        run(PLAN, folder, where=Where(scheduler="tcp://127.0.0.1:9", connect=0.5))
    assert time.monotonic() - start < 10
    with pytest.raises(ValueError, match="expected an address such as"):
        Where(scheduler="localhost")
    with pytest.raises(ValueError, match="workers is 0"):
        Where(workers=0)


def test_a_worker_that_differs_is_unfit(monkeypatch):
    here = work.surroundings("sweep_cells")
    work.Fitness("sweep_cells", here)()
    with pytest.raises(work.Unfit, match="another version of torch"):
        work.Fitness("sweep_cells", {**here, "version": {**here["version"], "torch": "1.0"}})()
    shard = sweep_plan.expand(PLAN)[0]
    for other, said in (({"code": "x"}, "code"), ({"weights": "x"}, "weights"), ({"inputs": "x"}, "samples")):
        with pytest.raises(work.Unfit, match=f"other {said}"):
            work.fill(replace(shard, **other))
    assert [type(found).__name__ for _, found in engine.each(work.fill, [shard, replace(shard, code="x")])] == [
        "Filled",
        "Unfit",
    ]


# The table and the command


def test_the_command_writes_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    file = tmp_path / "films.yml"
    file.write_text(yaml.safe_dump({"scoring": "sweep_cells", "cells": [{**CELLS[0], "methods": ["counts", "fails"]}]}))
    assert main(["sweep", str(file)]) == 0
    said = capsys.readouterr().out
    assert "0 parts kept, 4 done" in said and "failed  fails on plain" in said
    table, about = parts.read(tmp_path / "films.parquet"), parts.provenance(tmp_path / "films.parquet")
    assert tuple(table.columns) == work.COLUMNS and about["weights"] == {"plain": "one"}
    assert about["plan"]["name"] == "films" and set(about["inputs"]) == {"reviews"} and "torch" in about["version"]
    assert str(tmp_path) not in str(about)
    assert main(["sweep", str(tmp_path / "none.yml")]) == 2 and "error: no plan" in capsys.readouterr().err
    assert main(["sweep", str(file), "--scheduler", "nowhere"]) == 2


def test_the_cost_of_a_sweep():
    table = sweep.cost_table({"rollout": 0.1, "lime": 0.9}, efficiency=0.8, samples=36_000)
    assert table.workers.tolist() == [1, 8, 64] and table.hours.tolist() == pytest.approx([10, 10 / 6.4, 10 / 51.2])
    assert table.hours_amdahl.tolist() == pytest.approx([10, 10 * (0.25 + 0.75 / 8), 10 * (0.25 + 0.75 / 64)])
    two = sweep.cost_table(1.0, 0.8, 3600, workers=(2,)).iloc[0]
    assert two.hours == pytest.approx(two.hours_amdahl) == pytest.approx(1 / 1.6), "both agree on what was measured"
    for wrong in ({"seconds": 0.0}, {"efficiency": 0.4}, {"samples": 0}, {"workers": (0,)}):
        with pytest.raises(ValueError):
            sweep.cost_table(**{"seconds": 1.0, "efficiency": 0.9, **wrong})
