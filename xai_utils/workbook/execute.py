"""Run the notebooks without a browser.

``figures`` executes copies of the notebooks under ``runs/<run>/`` (see :mod:`runs`). A notebook that finished
before for the same sources, parameters, package, lock file and data is left alone, so an interrupted command
continues where it stopped. ``golden`` re-executes the committed notebooks in place with their own parameters
and cleans them, so that two such commands write the same bytes. A record beside each copy says what was made.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table
from traitlets.config import Config

from xai_utils import files
from xai_utils.workbook import frames, parallel, runs, saved
from xai_utils.workbook.runs import Job, Places

CLAIMS = {"held": "holds  ", "not held": "does not hold  ", "undecided": "undecided  "}
LIMIT = 1800.0  #: seconds that one cell may take
ENCRYPTED = Config(KernelManager={"transport_encryption": "auto"})  # else every kernel warns that it is not
VOLATILE = (
    "metadata.papermill metadata.widgets metadata.signature metadata.language_info.version "
    "cell.metadata.papermill cell.metadata.execution cell.metadata.ExecuteTime cell.metadata.widgets "
    "cell.metadata.collapsed cell.metadata.scrolled"
).split()


def figures(
    places: Places,
    name: str = "default",
    only: Iterable[str] = (),
    force: bool = False,
    jobs: int | None = None,
    limit: float = LIMIT,
) -> list[dict[str, Any]]:
    """Execute what is not up to date in a run; return all its records, those of kept notebooks included.

    Args:
        places: folders of the project.
        name: of the run, see :mod:`runs`.
        only: numbers of notebooks; none means all.
        force: also what is up to date.
        jobs: notebooks at once, see :func:`parallel.at_once`.
        limit: seconds that one cell may take.

    Raises:
        ValueError: an unknown name; or another process runs one of the notebooks.
    """
    planned = runs.plan(places, name, only)
    kept = {} if force else {job: record for job in planned if (record := runs.finished(job))}
    found = {job: {**record, "status": "kept"} for job, record in kept.items()}
    with files.alone({_lock(places, job): job.notebook.stem for job in planned if job not in found}):
        for job, record in _executed(places, [job for job in planned if job not in found], jobs, limit):
            found[job] = record
            catalogue(job.figures)
    return [found[job] for job in planned]


def golden(
    places: Places, only: Iterable[str] = (), jobs: int | None = None, limit: float = LIMIT
) -> list[dict[str, Any]]:
    """Re-execute the committed notebooks in place with their own parameters; a failing one stays as it is.

    Args and errors as in :func:`figures`.
    """
    planned = [Job(path, {}, "", places.runs / ".golden", places.figures) for path in runs.find_notebooks(places, only)]
    found = {}
    with files.alone({_lock(places, job): job.notebook.stem for job in planned}):
        for job, record in _executed(places, planned, jobs, limit):
            found[job] = record
            if record["status"] == "finished":
                executed = nbformat.read(job.file(".ipynb"), as_version=4)
                files.write(job.notebook, nbformat.writes(clean(executed)) + "\n")
            catalogue(places.figures)
    return [found[job] for job in planned]


def _lock(places: Places, job: Job) -> Path:
    """Return the file that says that a notebook's figures are being drawn into a folder."""
    run = job.folder.name.replace(".golden", "default")  # both draw the same figures
    return places.runs / ".locks" / run / f"{job.notebook.stem}.lock"


def _executed(
    places: Places, jobs: Sequence[Job], asked: int | None, limit: float
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Execute jobs in processes of their own, and yield each with its record as it ends."""
    if not jobs:
        return
    most, why = parallel.at_once(asked)
    if why and len(jobs) > most:
        print(why)
    ordered = _longest_first(jobs, runs.read(places).seconds)
    with parallel.Show(len(jobs)) as show:
        for job, record in parallel.run(functools.partial(execute, limit=limit), ordered, most, show):
            yield job, _died(job, record) if isinstance(record, str) else record


def _longest_first(jobs: Sequence[Job], usual: Mapping[str, float]) -> list[Job]:
    """Put what took longest before first; what never ran by its usual seconds, or as if each code cell took two."""

    def long(job: Job) -> float:
        return runs.seconds(job) or usual.get(job.notebook.name[:2]) or 2.0 * len(_cells(job.notebook))

    return sorted(jobs, key=long, reverse=True)


def _died(job: Job, why: str) -> dict[str, Any]:
    """Record a notebook whose process ended without a word."""
    partial_copies = sorted(job.folder.glob(f"{job.notebook.stem}.*.partial.ipynb"))
    where = _last_started(partial_copies[-1]) if partial_copies else {"cell": "0", "line": "it did not begin"}
    for copy in partial_copies:
        copy.unlink()
    return _record(job, where | {"error": why}, {}, datetime.now(UTC), 0.0, job.file(".none"))


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs between two runs: times, versions, widget states; of a widget its still frame stays."""
    from nbstripout import strip_output  # a development tool, needed here only

    stills = frames.stills(notebook)
    notebook = strip_output(notebook, keep_output=True, keep_count=True, keep_id=False, extra_keys=VOLATILE)
    frames.lighten(notebook)
    saved.as_stored({"type": "notebook", "content": notebook})
    for place, cell in enumerate(notebook.cells):
        if place in stills:
            cell.outputs = stills[place]
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill adds an empty list to every cell
    return notebook


def execute(job: Job, told: parallel.Told = lambda cell, count: None, limit: float = LIMIT) -> dict[str, Any]:
    """Run one notebook, write its copy, then its record, and return the record; a failure is not raised.

    Args:
        job: what to run.
        told: called as each code cell begins.
        limit: seconds that one cell may take; a cell beyond it fails.
    """
    for folder in (job.folder, job.figures):
        folder.mkdir(parents=True, exist_ok=True)
    before = {name: path.stat().st_mtime_ns for name, path in job.drawn().items()}
    started, clock, copy = datetime.now(UTC), time.perf_counter(), job.file(f".{os.getpid()}.partial.ipynb")
    failure = _run(job, copy, told, limit)
    drawn = {name: path for name, path in job.drawn().items() if path.stat().st_mtime_ns != before.get(name)}
    return _publish(job, copy, _record(job, failure, drawn, started, time.perf_counter() - clock, copy))


def _record(
    job: Job, failure: dict[str, str], drawn: Mapping[str, Path], started: datetime, seconds: float, copy: Path
) -> dict[str, Any]:
    return {
        "notebook": job.notebook.stem,
        "key": job.key,
        "parameters": job.parameters,
        "status": "failed" if failure else "finished",
        "failure": failure,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "memory": round(_peak() / 2**30, 2),
        "device": _device(list(drawn.values())),
        "figures": {name: runs.sha256(path) for name, path in drawn.items()},
        "claims": _count_claims(copy),
    }


def _peak() -> int:
    """Return the most bytes that a kernel of this process has held."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def _publish(job: Job, partial: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Give the executed copy its name, then write the record, with the copy's hash: no record without its copy."""
    job.file(".failed.ipynb").unlink(missing_ok=True)
    copy = job.file(".failed.ipynb" if record["failure"] else ".ipynb")
    if partial.exists():
        os.replace(partial, copy)
    whole = {**record, "copy": files.sha256(copy) if copy.exists() else ""}
    files.write(job.file(".json"), json.dumps(whole, indent=1, default=str) + "\n")
    return whole


def _run(job: Job, partial: Path, told: parallel.Told, limit: float) -> dict[str, str]:
    """Execute into ``partial``; return what failed, or nothing. An interruption removes the copy and passes on."""
    partial.unlink(missing_ok=True)
    count = len(_cells(job.notebook))
    begun = iter(range(1, count + 2))  # one cell more, with the run's parameters
    try:
        with _environment(job):
            papermill.execute_notebook(
                str(job.notebook),
                str(partial),
                job.parameters,
                kernel_name="python3",
                cwd=str(job.notebook.parent),
                progress_bar=False,
                execution_timeout=limit,
                on_cell_execute=lambda cell, cell_index: told(next(begun), count),
                coalesce_streams=True,  # where a stream is cut depends on the moment
                config=ENCRYPTED,
            )
    except KeyboardInterrupt:
        partial.unlink(missing_ok=True)
        raise
    except Exception as error:  # a broken notebook or a dead kernel must not stop the other notebooks
        return _last_started(partial) | {"error": _said(error, limit)}
    return {}


def _said(error: Exception, limit: float) -> str:
    if isinstance(error, CellTimeoutError):
        return f"it took more than {limit:g} s; LIMIT=SECONDS allows more"
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


@contextmanager
def _environment(job: Job) -> Iterator[None]:
    """Set what the kernel inherits, and put the old environment back."""
    old = dict(os.environ)
    os.environ.update(XAI_FIGURES=str(job.figures), XAI_NOTEBOOK=job.notebook.stem, PYTHONHASHSEED="0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums, and so the bytes of figures, depend on the number of threads
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this installation's kernel, not one of the same name at home
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(old)


def _cells(notebook: Path) -> list[NotebookNode]:
    """Return the code cells; none if the kernel never started, or if the copy was cut off by a full disk."""
    try:
        return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    except (OSError, ValueError):
        return []


def _last_started(notebook: Path) -> dict[str, str]:
    """Return number and first line of the code cell that began last."""
    begun = [cell for cell in _cells(notebook) if cell.metadata.get("papermill", {}).get("start_time")]
    line = begun[-1].source.partition("\n")[0] if begun else "the kernel did not start"
    return {"cell": str(len(begun)), "line": line}


def _count_claims(notebook: Path) -> dict[str, int]:
    printed = [out.text for cell in _cells(notebook) for out in cell.outputs if out.get("name") == "stdout"]
    lines = [line for text in printed for line in text.splitlines()]
    return {name: sum(line.startswith(start) for line in lines) for name, start in CLAIMS.items()}


def _device(drawn: Sequence[Path]) -> str:
    """Return one line: what the figures say they were computed on, then the machine."""
    named = {
        json.loads(path.read_text(encoding="utf-8")).get("device", "?") for path in drawn if path.suffix == ".json"
    }
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{', '.join(sorted(named)) or '?'}; {machine}, Python {platform.python_version()}"


def catalogue(folder: Path) -> None:
    """Write ``README.md`` beside the figures: models and caption of each; the name begins with the notebook."""
    about = {path.stem: _record_of(path) for path in sorted(folder.glob("[0-9][0-9]_*.json"))}
    lines = [
        f"| {_links(folder, name)} | {', '.join(one.get('models', ()))} | {one.get('caption', '')} |"
        for name, one in about.items()
    ]
    head = (
        "# Figures\n\nWritten by the notebooks; the JSON beside each says what made it, the CSV holds its numbers.\n\n"
    )
    table = "| figure or table | models | caption |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    files.write(folder / "README.md", head + table)


def _links(folder: Path, name: str) -> str:
    """Return links to a figure and its numbers, or to a table alone."""
    drawn, counted = ((folder / f"{name}.{kind}").exists() for kind in ("png", "csv"))
    table = f"[{'CSV' if drawn else name}]({name}.csv)"
    return " · ".join(([f"[{name}]({name}.png)"] if drawn or not counted else []) + ([table] if counted else []))


def _record_of(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return {"caption": f"its record {path.name} is damaged; run the notebook again"}


def report(records: Sequence[Mapping[str, Any]], figures: Path) -> int:
    """Print a table of the notebooks, where the figures are, then every failure; return the exit code."""
    heads = "notebook", "status", "seconds", "GiB", "figures", *(f"claims {name}" for name in CLAIMS)
    table = Table(*heads)
    for record in records:
        drawings = sum(not name.endswith((".json", ".csv")) for name in record["figures"])
        counts = [f"{record['seconds']:.1f}", record.get("memory", "?"), drawings, *record["claims"].values()]
        table.add_row(record["notebook"], record["status"], *map(str, counts))
    Console().print(table)
    print(f"figures are in {figures}")
    failed = [record for record in records if record["failure"]]
    for record in failed:
        where = record["failure"]
        print(f"{record['notebook']} failed in cell [{where['cell']}]: {where['line']}\n    {where['error']}")
    return 1 if failed else 0
