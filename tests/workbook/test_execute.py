"""Runs of notebooks made on the fly: what is executed, what is kept, what is refused, what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tests.workbook.made_up import configure, write
from xai_utils.__main__ import main
from xai_utils.workbook import execute, runs

PICTURE = """\
import os, json
from pathlib import Path
folder = Path(os.environ["XAI_FIGURES"])
(folder / f"{os.environ['XAI_NOTEBOOK'][:2]}_dot.png").write_text(f"{SIZE}")
(folder / f"{os.environ['XAI_NOTEBOOK'][:2]}_dot.json").write_text(json.dumps({"device": "abacus"}))"""
CLAIMS = "print('holds  one')\nprint('holds  two')\nprint('does not hold  three')"


def statuses(records):
    return [record["status"] for record in records]


def test_a_run_leaves_a_copy_a_record_and_figures(places):
    write(places, "01_dots", PICTURE, CLAIMS, "assert __import__('pathlib').Path.cwd().name == 'notebooks'")
    (record,) = execute.figures(places)
    assert json.loads((places.runs / "default/01_dots.json").read_text()) == record
    assert record["status"] == "finished" and record["claims"] == {"held": 2, "not held": 1, "undecided": 0}
    assert set(record["figures"]) == {"01_dot.png", "01_dot.json"} and record["device"].startswith("abacus; ")
    assert record["figures"]["01_dot.png"] == runs.sha256(places.figures / "01_dot.png")
    assert sorted(path.name for path in (places.runs / "default").iterdir()) == [
        "01_dots.ipynb",
        "01_dots.json",
    ]
    assert execute.report([record], places.figures) == 0


def test_a_result_is_kept_until_something_it_depends_on_changes(places):
    write(places, "01_dots", PICTURE)
    configure(places, "big: {parameters: {SIZE: 2}}")
    assert statuses(execute.figures(places)) == ["finished"]
    assert statuses(execute.figures(places)) == ["kept"]
    (places.figures / "01_dot.png").unlink()
    assert statuses(execute.figures(places)) == ["finished"], "a missing figure"
    (places.figures / "01_dot.png").write_text("touched by hand")
    assert statuses(execute.figures(places)) == ["finished"], "a changed figure"
    assert statuses(execute.figures(places, force=True)) == ["finished"]
    assert statuses(execute.figures(places, "big")) == ["finished"]
    assert (places.figures / "big/01_dot.png").read_text() == "2" and (places.figures / "01_dot.png").read_text() == "1"


def test_a_kernel_has_one_thread_unless_more_are_asked_for(places, monkeypatch):
    write(places, "01_dots", "assert __import__('os').environ['OMP_NUM_THREADS'] == WANTED", parameters="WANTED = '1'")
    configure(places, "two: {parameters: {WANTED: '2'}}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert statuses(execute.figures(places)) == ["finished"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert statuses(execute.figures(places, "two")) == ["finished"]


def test_a_damaged_record_or_copy_is_made_again(places):
    write(places, "01_dots", PICTURE)
    execute.figures(places)
    (job,) = runs.plan(places)
    for name in ("01_dots.ipynb", "01_dots.json"):
        file = places.runs / "default" / name
        whole = file.read_bytes()
        assert runs.finished(job)
        for damage in (b"", b"{", b"[]", b"null", b'{"key": 1}', b"\x00\xff", whole[:-9]):
            file.write_bytes(damage)
            assert runs.finished(job) is None, (name, damage)
        file.write_bytes(whole)
    file.write_bytes(b"{")
    assert statuses(execute.figures(places)) == ["finished"] and file.read_bytes() != b"{"


def test_a_damaged_figure_record_does_not_stop_the_catalogue(places):
    write(places, "01_dots", PICTURE)
    execute.figures(places)
    (places.figures / "01_dot.json").write_text("{")
    execute.catalogue(places.figures)
    assert "01_dot.json is damaged" in (places.figures / "README.md").read_text()


def test_a_copy_that_a_full_disk_cut_off_does_not_hide_what_failed(places, monkeypatch):
    def full(_notebook, copy, *_, **__):
        Path(copy).write_text('{"cells": [')
        raise OSError(28, "No space left on device")

    write(places, "01_dots", PICTURE)
    write(places, "02_dots", PICTURE)
    monkeypatch.setattr(execute.papermill, "execute_notebook", full)
    found = [execute.execute(job) for job in runs.plan(places)]
    assert statuses(found) == ["failed", "failed"]
    assert "No space left" in found[0]["failure"]["error"] and execute.report(found, places.figures) == 1


def test_a_failure_is_reported_and_the_others_finish(places, capsys):
    write(places, "01_broken", "1 + 1", "values = {}\nvalues['missing']")
    write(places, "02_dies", "# the kernel goes away\n__import__('os')._exit(1)")
    write(places, "03_dots", PICTURE)
    records = execute.figures(places)
    assert statuses(records) == ["failed", "failed", "finished"]
    assert execute.report(records, places.figures) == 1
    told = capsys.readouterr().out
    assert "01_broken failed in cell [3]: values = {}\n    KeyError: 'missing'" in told
    assert "02_dies failed in cell [2]: # the kernel goes away" in told
    assert not (places.runs / "default/01_broken.ipynb").exists()
    assert (places.runs / "default/01_broken.failed.ipynb").exists()
    write(places, "01_broken", "1 + 1")
    assert statuses(execute.figures(places, only=["1"])) == ["finished"]
    assert not (places.runs / "default/01_broken.failed.ipynb").exists()


def test_golden_twice_writes_the_same_bytes_however_many_run_at_once(places):
    sums = "import torch\ntorch.randn(999_999, generator=torch.Generator().manual_seed(0)).sum().item()"
    prints = "import time\nfor n in range(3):\n    print(n, flush=True)\n    time.sleep(0.05)"
    write(places, "01_dots", PICTURE, prints, sums)
    write(places, "02_slider", "object()", tags=["widget"])
    written = []
    for jobs in (1, 2):
        assert statuses(execute.golden(places, jobs=jobs)) == ["finished", "finished"]
        written.append([path.read_bytes() for path in runs.find_notebooks(places)])
    assert written[0] == written[1]
    dots, slider = (nbformat.reads(content, as_version=4) for content in written[0])
    assert [cell.execution_count for cell in dots.cells[1:]] == [1, 2, 3, 4]
    assert [output.text for output in dots.cells[3].outputs] == ["0\n1\n2\n"]
    assert dots.cells[1].metadata == {"tags": ["parameters"]} and dots.cells[2].metadata == {}
    assert slider.cells[2].outputs == [] and "version" not in slider.metadata.language_info


def test_golden_leaves_a_failing_notebook_as_it_was(places):
    write(places, "01_broken", "1 / 0")
    before = (places.notebooks / "01_broken.ipynb").read_bytes()
    (record,) = execute.golden(places)
    assert record["failure"] == {"cell": "2", "line": "1 / 0", "error": "ZeroDivisionError: division by zero"}
    assert [path.read_bytes() for path in places.notebooks.iterdir()] == [before]


def test_nothing_half_written_when_writing_fails(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        execute.files.write(tmp_path / "record.json", "good so far, then \udc80")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_half_result_and_stops_the_kernel(places):
    told = places.root / "told"
    write(places, "01_dots", PICTURE)
    write(
        places,
        "02_slow",
        f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)",
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from xai_utils.__main__ import main; from xai_utils.workbook import runs\n"
        "runs.places = lambda: runs.Places(*map(Path, sys.argv[1:]))\n"
        "sys.exit(main(['figures']))"
    )
    folders = [str(path) for path in (places.root, places.notebooks, places.runs, places.figures)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *folders], cwd=runs.ROOT, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c
    )
    wait_for(lambda: told.exists() and told.read_text() and (places.runs / "default/01_dots.json").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert sorted(path.name for path in (places.runs / "default").iterdir()) == [
        "01_dots.ipynb",
        "01_dots.json",
    ]
    wait_for(lambda: not alive(int(told.read_text())))


def test_a_cell_that_hangs_is_named_when_its_time_is_over(places, capsys):
    write(places, "01_hangs", "1 + 1", "# for ever\n__import__('time').sleep(600)")
    (record,) = found = execute.figures(places, limit=1)
    assert record["failure"] == {
        "cell": "3",
        "line": "# for ever",
        "error": "it took more than 1 s; LIMIT=SECONDS allows more",
    }
    assert execute.report(found, places.figures) == 1 and f"figures are in {places.figures}" in capsys.readouterr().out


def test_a_process_that_is_killed_is_a_failed_notebook_and_the_others_finish(places):
    write(
        places,
        "01_out_of_memory",
        "# the system ends the kernel's parent\n__import__('os').kill(__import__('os').getppid(), 9)",
    )
    write(places, "02_dots", PICTURE)
    killed, fine = execute.figures(places, jobs=1)
    assert killed["failure"] == {
        "cell": "2", "line": "# the system ends the kernel's parent", "error": "its process was ended by SIGKILL",
    }  # fmt: skip
    assert fine["status"] == "finished" and killed["claims"]["held"] == 0
    assert not list((places.runs / "default").glob("*.partial.ipynb"))


def test_a_second_command_on_the_same_notebooks_is_told(places):
    for number in ("01", "02"):
        write(places, f"{number}_dots", PICTURE)
    with execute.files.alone({places.runs / ".locks/default/01_dots.lock": "01_dots"}):
        with pytest.raises(ValueError, match=f"01_dots is being worked on by another command, process {os.getpid()}"):
            execute.figures(places)
        with pytest.raises(ValueError, match="01_dots is being worked on"):
            execute.golden(places)
        assert statuses(execute.figures(places, only=["2"])) == ["finished"], "other notebooks are free"


def test_the_longest_go_first(places):
    write(places, "01_short", "1")
    write(places, "02_long", *"123")
    assert order(places) == ["02_long", "01_short"], "by its cells"
    configure(places, "default: {seconds: {1: 50}}")
    assert order(places) == ["01_short", "02_long"], "by what is usual"
    configure(places, "default: {seconds: {1: 50, 2: 60}}")
    assert order(places) == ["02_long", "01_short"]
    places.runs.joinpath("default").mkdir(parents=True)
    (places.runs / "default/01_short.json").write_text('{"seconds": 99}')
    assert order(places) == ["01_short", "02_long"], "by what it took before"


def order(places):
    jobs = execute._longest_first(runs.plan(places), runs.read(places).seconds)
    return [job.notebook.stem for job in jobs]


def hear_ctrl_c():
    """Undo what a shell does to a command in the background: it would pass over Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_command_line_refuses_an_unknown_run(capsys):
    assert main(["figures", "--run", "no such run"]) == 2
    assert "error: " in capsys.readouterr().err
