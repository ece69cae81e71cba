"""Several jobs at once: their order, how many, what is told, what is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from xai_utils.__main__ import main
from xai_utils.workbook import parallel
from xai_utils.workbook.runs import Job


def job(name, folder=Path()):
    return Job(Path(f"{name}.ipynb"), {}, "", folder, folder)


def slowly(job, told):
    """Say when it began and ended; run in a process of its own."""
    told(1, 2)
    begun = time.monotonic()
    time.sleep(1)
    return {"name": job.notebook.stem, "span": (begun, time.monotonic()), "process": os.getpid()}


def badly(job, told):
    if job.notebook.stem == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit(3)


def for_ever(job, told):
    (job.folder / job.notebook.stem).write_text(str(os.getpid()))
    time.sleep(600)


def together(work, jobs, most):
    with parallel.Show(len(jobs)) as show:
        return {one.notebook.stem: found for one, found in parallel.run(work, jobs, most, show)}


def most_at_once(records):
    spans = [record["span"] for record in records]
    return max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans)


@pytest.mark.parametrize("most", [1, 3])
def test_as_many_run_at_once_as_may(most, capsys):
    found = together(slowly, [job(name) for name in "abc"], most)
    assert set(found) == set("abc") and all(found[name]["name"] == name for name in "abc")
    assert most_at_once(found.values()) <= most and len({one["process"] for one in found.values()}) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "a begins" and "3 of 3" in told[-1] and len(told) == 6


def test_what_ends_a_process_is_told():
    found = together(badly, [job("killed"), job("gives up")], 2)
    assert found == {"killed": "its process was ended by SIGKILL", "gives up": "its process gave up (3)"}


def test_who_stops_early_leaves_no_process(tmp_path):
    jobs = [job(name, tmp_path) for name in "ab"]
    with parallel.Show(2) as show:
        begun = parallel.run(for_ever, jobs, 2, show)

        def interrupted(one, cell, count):
            raise KeyboardInterrupt

        show.cell = interrupted
        process = parallel._Running.begin(for_ever, jobs[0])
        while not (tmp_path / "a").exists():
            time.sleep(0.05)
        parallel._end([process])
        assert not process.process.is_alive()
        begun.close()


def test_jobs_are_bounded_by_memory_and_by_what_is_asked(monkeypatch):
    monkeypatch.setattr(parallel.psutil, "virtual_memory", lambda: type("", (), {"available": 12 * parallel.GIB}))
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 16)
    assert parallel.at_once(1) == (1, "")
    assert parallel.at_once(2) == (2, "")
    found, why = parallel.at_once(None)
    assert found == 3 and why == "3 at once, not 16: 12.0 GiB of memory are free, and one may need 4.0"
    assert parallel.at_once(4, 13 * parallel.GIB)[0] == 1, "one always runs"


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused(jobs, capsys):
    assert main(["figures", f"--jobs={jobs}"]) == 2
    assert "--jobs" in capsys.readouterr().err


def test_a_parent_that_is_killed_takes_its_jobs_along(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.workbook.test_parallel import for_ever, job, together\n"
        "if __name__ == '__main__':\n    together(for_ever, [job('a', Path(sys.argv[1]))], 1)"
    )
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path)], env=environment)
    wait_for(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(int((tmp_path / "a").read_text())))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
