"""Named runs: which notebooks, with which parameters, and whether their results are still valid.

``notebooks/runs.yml`` maps the name of a run to ``about`` (text), ``parameters`` (for every notebook that has
a parameter of that name), ``notebooks`` (numbers; all when left out), ``overrides`` (parameters by number
of the notebook) and ``seconds`` (that a notebook takes, by number). Nothing is executed here; :mod:`execute` does that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import nbformat
import papermill
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as checked

from xai_utils import settings
from xai_utils.files import ROOT, sha256

TAKEN = ("sweeps", "golden")  #: what else lies in runs/
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


@dataclass(frozen=True)
class Places:
    """Folders of a project, absolute; ``root`` holds ``xai_utils``, ``data`` and ``requirements.lock``."""

    root: Path = ROOT
    notebooks: Path = ROOT / "notebooks"
    runs: Path = ROOT / "runs"
    figures: Path = ROOT / "figures"


def places() -> Places:
    """Return the project's folders; ``$XAI_FIGURES`` moves that of the figures."""
    moved = os.environ.get("XAI_FIGURES")
    return Places(figures=Path(moved).resolve()) if moved else Places()


Number = Annotated[str, BeforeValidator(lambda number: _two_digits(number))]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Run:
    """One entry of ``runs.yml``; numbers of notebooks have two digits."""

    name: str
    about: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    notebooks: list[Number] = field(default_factory=list)
    overrides: dict[Number, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[Number, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Job:
    """One notebook to execute: its parameters and key, and the folders of its copy and of its figures."""

    notebook: Path
    parameters: dict[str, Any]
    key: str
    folder: Path
    figures: Path

    def file(self, ending: str) -> Path:
        """Return ``folder/NN_words`` with an ending such as ``".json"``."""
        return self.folder / f"{self.notebook.stem}{ending}"

    def drawn(self) -> dict[str, Path]:
        """Return the figure files that carry this notebook's number, by name."""
        return {path.name: path for path in sorted(self.figures.glob(f"{self.notebook.stem[:2]}_*.*"))}


def plan(places: Places, name: str = "default", only: Iterable[str | int] = ()) -> list[Job]:
    """Return the jobs of a run, or those with the numbers in ``only``; refuse names that nothing knows."""
    run = read(places, name)
    notebooks = find_notebooks(places, run.notebooks)
    parameters, around = parameters_of(run, notebooks), surroundings(places.root)
    wanted = set(find_notebooks(places, only)) & set(notebooks)
    if not wanted:
        raise ValueError(f"run {name} has only these notebooks: {', '.join(path.stem for path in notebooks)}.")
    drawn = target(places, name)
    return [
        Job(path, parameters[path], key_of(path, parameters[path], around), places.runs / name, drawn)
        for path in notebooks
        if path in wanted
    ]


def target(places: Places, name: str) -> Path:
    """Return the folder of a run's figures."""
    return places.figures if name == "default" else places.figures / name


def find_notebooks(places: Places, only: Iterable[str | int] = ()) -> list[Path]:
    """Return ``notebooks/NN_words.ipynb`` in order, all or those with the numbers in ``only``."""
    found = {path.name[:2]: path for path in sorted(places.notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise ValueError(f"no notebook called NN_words.ipynb in {places.notebooks}.")
    wanted = [_two_digits(number) for number in only]
    _refuse_unknown("notebook", wanted, found)
    return [path for number, path in found.items() if number in wanted or not wanted]


def read(places: Places, name: str = "default") -> Run:
    """Read one run from ``notebooks/runs.yml``; a misspelt run or field is refused."""
    file = places.notebooks / "runs.yml"
    stated = settings.load(file) if file.exists() else {}
    if not isinstance(stated or {}, dict):
        raise ValueError(f"{file.name} holds a {type(stated).__name__}, expected names of runs, each with its fields.")
    listed = {"default": {}, **(stated or {})}
    _refuse_unknown(f"run of {file.name}", [name], listed)
    if not _NAME.fullmatch(name) or name in TAKEN:
        raise ValueError(
            f"the run {name!r} should be called by letters, digits, - and _, and not {' or '.join(TAKEN)}, because "
            "folders carry its name."
        )
    entry = listed[name] or {}
    if not isinstance(entry, dict):
        raise ValueError(f"{file.name}: run {name} is {entry!r}, expected fields such as parameters.")
    return settings.check(entry, Run, f"{file.name}, run {name}", given={"name": name})


def parameters_of(run: Run, notebooks: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Return the parameters of each of the run's notebooks; refuse a name that none of them knows."""
    known = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks}
    numbered = {path.name[:2]: names for path, names in known.items()}
    _refuse_unknown(f"parameter of run {run.name}", run.parameters, set().union(*known.values()))
    _refuse_unknown(f"notebook among the overrides of run {run.name}", run.overrides, numbered)
    for number, values in run.overrides.items():
        _refuse_unknown(f"parameter of notebook {number}", values, numbered[number])
    return {
        path: {name: value for name, value in run.parameters.items() if name in names}
        | run.overrides.get(path.name[:2], {})
        for path, names in known.items()
    }


def _two_digits(number: Any) -> str:
    if not re.fullmatch(r"\d{1,2}", str(number)):
        raise ValueError("expected the number of a notebook, such as 3 or 03")
    return str(number).zfill(2)


def _refuse_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            hint = settings.meant(str(name), known)
            raise ValueError(f"unknown {kind}: {name}.{hint} Known: {', '.join(sorted(known)) or 'none'}.")


def surroundings(root: Path) -> dict[str, str]:
    """Hash everything outside a notebook that its results depend on: package, lock file, data."""
    files = [*root.glob("xai_utils/**/*.py"), root / "requirements.lock", *root.glob("data/**/*")]
    return {path.relative_to(root).as_posix(): sha256(path) for path in sorted(files) if path.is_file()}


def key_of(notebook: Path, parameters: Mapping[str, Any], around: Mapping[str, str]) -> str:
    """Return the key of a result; equal cells, parameters and :func:`surroundings` give equal keys."""
    cells = nbformat.read(notebook, as_version=4).cells
    sources = [(cell.cell_type, cell.metadata.get("tags", []), cell.source) for cell in cells]
    everything = json.dumps([sources, parameters, around], sort_keys=True, default=str)
    return hashlib.sha256(everything.encode()).hexdigest()


def finished(job: Job) -> dict[str, Any] | None:
    """Return the record of this very job if it finished and its copy and figures are there as they were written.

    A record or a copy that is damaged, cut off or from an earlier version counts as none: the notebook is run again.
    """
    if not (job.file(".json").exists() and job.file(".ipynb").exists()):
        return None
    try:
        record: dict[str, Any] = json.loads(job.file(".json").read_text(encoding="utf-8"))
        same = (record["key"], record["status"], record["copy"]) == (job.key, "finished", sha256(job.file(".ipynb")))
        here = {name: sha256(path) for name, path in job.drawn().items() if name in record["figures"]}
        return record if same and here == record["figures"] else None
    except (ValueError, KeyError, TypeError):
        return None


def seconds(job: Job) -> float | None:
    """Return how long the notebook took when it last ended, if that is known."""
    try:
        return float(json.loads(job.file(".json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
