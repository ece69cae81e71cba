"""The same numbers whoever does the work: two workers, one killed; clusters that cannot help."""

import threading
import time
from dataclasses import replace

import distributed
import psutil
import pytest

from tests.sweep.trial import PLAN, noted, run, with_methods
from xai_utils.sweep import cluster
from xai_utils.sweep.cluster import Where


def test_two_workers_both_killed(folder, notes):
    """The numbers of one worker, though both of two die in the middle: nothing lost, nothing doubled."""
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
                for process in processes:
                    process.kill()
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
    assert seen["environ"].items() >= {k: str(v) for k, v in cluster.WORKER.items()}.items()
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
    ) as helpers:  # fmt: skip
        where = replace(where, scheduler=helpers.scheduler_address)
        with pytest.raises(ConnectionError, match="no worker for"):
            run(PLAN, folder, where=where)
        helpers.scale(1)
        with pytest.raises(RuntimeError, match="1 of 1 workers lack the package xai_utils"):
            run(PLAN, folder, where=replace(where, join=30))
    assert not list(folder.glob("*.parquet"))


def test_a_sweep_whose_workers_are_gone_ends_with_what_is_done(folder, notes):
    (notes / "slow").touch()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as helpers:  # fmt: skip
        where = Where(scheduler=helpers.scheduler_address, lost=1)

        def leave():
            while len(noted(notes)) < 3:
                time.sleep(0.02)
            helpers.scale(0)

        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(ConnectionError, match="all workers are gone, and no new one has come for 1 s"):
            run(replace(PLAN, shard=1), folder, where=where)
        leaving.join()
    kept = len(list(folder.glob("*.parquet")))
    assert 1 <= kept < 24 and run(replace(PLAN, shard=1), folder).kept == kept


def test_no_scheduler_is_said_at_once(folder):
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tcp://127.0.0.1:9"):
        run(PLAN, folder, where=Where(scheduler="tcp://127.0.0.1:9", connect=0.5))
    assert time.monotonic() - start < 10
    with pytest.raises(ValueError, match="expected an address such as"):
        Where(scheduler="localhost")
    with pytest.raises(ValueError, match="workers is 0"):
        Where(workers=0)
