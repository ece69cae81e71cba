"""What the report is made of: executed notebooks, figures with their provenance, model cards; read and checked.

Nothing is executed here. Whatever the report could not show honestly is refused by name: a notebook that was not
executed, a figure without its record or the other way round, a file that is no JSON.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image, UnidentifiedImageError

from xai_utils import files

PROVENANCE = ("figure", "caption", "notebook", "parameters", "device", "models", "data", "versions")
TABLES = (".csv", ".parquet")
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = (HOLDS, FAILS, UNDECIDED)
_CLAIM = re.compile(r"(holds|does not hold|undecided)  (\S.*?)$")
_REQUIRED = re.compile(r" (= \S+( ± \S+)?|= ['\"\[({].*|[≤≥] \S+)$")  # as claims that raise write
_TITLE = re.compile(r"# (\d\d) · (\S.*)")
_QUESTION = re.compile(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """An effect with the ends of its 95 % interval, its corrected p and the table that holds them."""

    effect: float
    low: float | None
    high: float | None
    p: float
    table: str


@dataclass(frozen=True)
class Claim:
    """One printed claim or finding; ``cell`` is the anchor of the cell that printed it."""

    statement: str
    verdict: str
    notebook: str
    cell: str
    measured: Measured | None = None

    @property
    def required(self) -> bool:
        """Return whether the notebook stops where the claim fails: an equality or a bound that the code must meet."""
        return self.verdict == HOLDS and bool(_REQUIRED.search(self.statement))


@dataclass(frozen=True)
class Figure:
    """A picture with its record; ``run`` is the folder below ``figures`` (empty: the notebooks' own parameters)."""

    name: str
    run: str
    about: dict[str, Any]
    size: tuple[int, int]
    files: tuple[Path, ...]

    @property
    def folder(self) -> str:
        """Return the picture's folder in the site."""
        return f"figures/{self.run}" if self.run else "figures"

    @property
    def picture(self) -> str:
        """Return the picture's path in the site."""
        return f"{self.folder}/{self.name}.png"

    @property
    def anchor(self) -> str:
        """Return the anchor in the gallery."""
        return "-".join(["figure", *self.run.split("/"), self.name] if self.run else ["figure", self.name])


@dataclass(frozen=True)
class Notebook:
    """An executed notebook; ``drawn`` maps each figure that it saves to the anchor of the saving cell."""

    stem: str
    title: str
    question: str
    node: NotebookNode
    parameters: dict[str, Any]
    drawn: dict[str, str]
    claims: tuple[Claim, ...]

    @property
    def number(self) -> str:
        """Return the two digits that the name begins with."""
        return self.stem[:2]

    @property
    def page(self) -> str:
        """Return the page's path in the site."""
        return f"{self.stem}.html"


def anchor(position: int) -> str:
    """Return the anchor of a cell, counted from 0 over all kinds of cells."""
    return f"cell-{position}"


def read_notebook(path: Path) -> Notebook:
    """Read an executed notebook.

    Raises:
        ValueError: no notebook, no title or question, code without execution count, an error among the outputs, or no
            output at all; the message names the notebook.
    """
    try:
        node = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its own kinds, json's and plain ones
        raise ValueError(f"{path.name} cannot be read as a notebook: {str(error).splitlines()[0]}") from error
    _require_executed(path.name, node)
    opening = node.cells[0].source
    title, question = _TITLE.match(opening), _QUESTION.search(opening)
    if not title or not question or title[1] != path.name[:2]:
        raise ValueError(f"{path.name} should open with '# {path.name[:2]} · Title' and '**Question.** one sentence'.")
    return Notebook(
        stem=path.stem,
        title=title[2].strip(),
        question=" ".join(question[1].split()),
        node=node,
        parameters=_literals(node),
        drawn={name: anchor(n) for n, cell in enumerate(node.cells) for name in saved_by(cell)},
        claims=tuple(claims_of(path.stem, node)),
    )


def _require_executed(name: str, node: NotebookNode) -> None:
    code = [cell for cell in node.cells if cell.cell_type == "code" and cell.source.strip()]
    if not code or not any(cell.outputs for cell in code):
        raise ValueError(f"{name} has no outputs, and the report executes nothing; run make golden ONLY={name[:2]}.")
    for cell in code:
        line = cell.source.strip().splitlines()[0]
        if not cell.execution_count:
            raise ValueError(f"{name} was not executed from top to bottom, see the cell {line!r}; run make golden.")
        if any(output.output_type == "error" for output in cell.outputs):
            raise ValueError(f"{name} holds an error below the cell {line!r}; mend it and run make golden.")


def _literals(node: NotebookNode) -> dict[str, Any]:
    """Return the parameters of the first cell tagged so; one that is no literal is left out."""
    for cell in node.cells:
        if "parameters" in cell.metadata.get("tags", []):
            pairs = [one for one in ast.parse(cell.source).body if isinstance(one, ast.Assign)]
            return {ast.unparse(one.targets[0]): ast.literal_eval(one.value) for one in pairs}
    return {}


def saved_by(cell: NotebookNode) -> list[str]:
    """Return the names of the figures that a cell saves, in the order of their calls."""
    if cell.cell_type != "code" or "figures.save" not in cell.source:
        return []
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    saving = [call for call in calls if ast.unparse(call.func) == "figures.save" and len(call.args) > 1]
    names = [call.args[1] for call in sorted(saving, key=lambda call: call.lineno)]
    return [name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)]


def claims_of(stem: str, node: NotebookNode) -> Iterator[Claim]:
    """Yield the claims and findings that a notebook printed, in order."""
    for position, cell in enumerate(node.cells):
        for output in cell.get("outputs", []):
            for line in output.get("text", "").splitlines():
                if verdict := verdict_of(line):
                    yield Claim(verdict[1], verdict[0], stem, anchor(position))


def verdict_of(line: str) -> tuple[str, str] | None:
    """Return verdict and statement of a line written by :mod:`claims`, or nothing for any other line."""
    if not (match := _CLAIM.fullmatch(line)):
        return None
    return match[1], match[2]


def read_figures(folder: Path) -> list[Figure]:
    """Read every picture below ``folder``, the notebooks' own first, then the folders of the runs.

    Raises:
        ValueError: a picture without record, a record without picture or table, a malformed record, no PNG.
    """
    _require_pairs(folder)
    found = sorted(folder.rglob("*.png"), key=lambda path: (path.parent.relative_to(folder).parts, path.name))
    return [_figure(path, path.parent.relative_to(folder).as_posix()) for path in found if _shown(path, folder)]


def _shown(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _require_pairs(folder: Path) -> None:
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".png" and _shown(path, folder) and not path.with_suffix(".json").exists():
            raise ValueError(f"figures/{name} has no record {path.stem}.json beside it; run make golden.")
        owners = (path.with_suffix(ending).exists() for ending in (".png", *TABLES))
        if path.suffix == ".json" and _shown(path, folder) and not any(owners):
            raise ValueError(f"figures/{name} records a figure or table that is not there; run make golden.")


def _figure(path: Path, run: str) -> Figure:
    about = read_json(path.with_suffix(".json"))
    if missing := [key for key in PROVENANCE if key not in about]:
        raise ValueError(f"{path.stem}.json lacks {', '.join(missing)}; make golden writes it again.")
    if about["figure"] != path.stem:
        raise ValueError(f"{path.stem}.json is the record of {about['figure']!r}; make golden writes it again.")
    if about.get("files", {}).get(path.name, files.sha256(path)) != files.sha256(path):
        raise ValueError(f"{path.name} is not the picture that {path.stem}.json describes; make golden writes both.")
    try:
        with Image.open(path) as picture:
            size = picture.size
    except UnidentifiedImageError as error:
        raise ValueError(f"{path.name} is no picture; make golden writes it again.") from error
    beside = [path.with_suffix(kind) for kind in (".png", ".json", ".pdf", ".csv")]
    return Figure(path.stem, "" if run == "." else run, about, size, tuple(one for one in beside if one.exists()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is refused with the name of the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.parent.name}/{path.name} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.parent.name}/{path.name} holds a {type(content).__name__}, expected an object.")
    return content


def read_models(root: Path, figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Return one entry for each model: those with a card in ``data/models``, then those only named by figures."""
    cards = {path.parent.name: read_json(path) for path in sorted(root.glob("data/models/*/card.json"))}
    used: dict[str, set[str]] = {}
    sources: dict[str, dict[str, Any]] = {}
    for figure in figures:
        for name, about in figure.about["models"].items():
            used.setdefault(name, set()).add(str(figure.about["notebook"]))
            sources.setdefault(name, about)
    names: Sequence[str] = [*cards, *sorted(sources.keys() - cards.keys())]
    return [
        {"name": name, "card": cards.get(name), "source": sources.get(name), "used": sorted(used.get(name, ()))}
        for name in names
    ]
