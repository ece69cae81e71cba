"""The pages of the report: what was read, laid out by the templates in ``templates``.

All templates escape; what is HTML already (cells, formulas) comes as ``Markup``. A page needs no script to be read;
``site.js`` adds sorting and filters to what stands there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from xai_utils.workbook.report.cells import SIGNS, TEMPLATES, Page, inline, page_of
from xai_utils.workbook.report.findings import told
from xai_utils.workbook.report.sources import VERDICTS, Claim, Figure, Notebook
from xai_utils.workbook.report.tables import SHOWN, Table, number, opened

STATIC = ("site.css", "site.js")
PLURAL = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided"}


@dataclass(frozen=True)
class Material:
    """Everything that the report shows; ``folder`` is where the notebooks are."""

    notebooks: Sequence[Notebook]
    figures: Sequence[Figure]
    models: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]] | None
    tables: Sequence[Table]
    folder: Path

    @property
    def own(self) -> dict[str, Figure]:
        """Return the figures drawn with the notebooks' own parameters, by name."""
        return {figure.name: figure for figure in self.figures if not figure.run}

    @property
    def claims(self) -> list[Claim]:
        """Return all claims in the order of the notebooks."""
        return [claim for notebook in self.notebooks for claim in notebook.claims]


def pages(material: Material) -> Iterator[tuple[str, str]]:
    """Yield name and content of every page of the site.

    Raises:
        ValueError: from :func:`cells.page_of`.
    """
    environment = _environment(material)
    bodies = []
    for place, notebook in enumerate(material.notebooks):
        page = page_of(notebook, material.own, material.folder)
        bodies.append(page)
        around = {"before": _at(material.notebooks, place - 1), "after": _at(material.notebooks, place + 1)}
        yield (
            notebook.page,
            _render(environment, "notebook", here=notebook.page, notebook=notebook, page=page, **around),
        )
    for name in ("index", "gallery", "leaderboard", "tables"):
        yield f"{name}.html", _render(environment, name, here=f"{name}.html")
    yield "static/index.js", _script("INDEX", searched(material.notebooks, bodies))
    yield "static/leaderboard.js", _script("LEADERBOARD", [row["cells"] for row in material.rows or ()])


def _script(name: str, value: Any) -> str:
    return f"const {name} = {json.dumps(value, ensure_ascii=False, separators=(',', ':'))};\n"


def _at(notebooks: Sequence[Notebook], place: int) -> Notebook | None:
    return notebooks[place] if 0 <= place < len(notebooks) else None


def _render(environment: Environment, template: str, **values: Any) -> str:
    return environment.get_template(f"{template}.html.j2").render(**values)


def _environment(material: Material) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    numbered = {notebook.stem: notebook for notebook in material.notebooks}
    environment.globals.update(
        material=material,
        numbered=numbered,
        counts={notebook.stem: count(notebook.claims) for notebook in material.notebooks},
        findings=(found := [claim for claim in material.claims if not claim.required]),
        found=count(found),
        cells={name: f"{one.page}#{cell}" for one in material.notebooks for name, cell in one.drawn.items()},
        verdicts=VERDICTS,
        signs=SIGNS,
        plural=PLURAL,
        drawn=lambda notebook: drawn(notebook, material.figures),
        version=version("xai-utils"),
        changed=lambda figure: changed(figure, numbered),
        owner=lambda figure: owner(figure, numbered),
        question=lambda notebook: Markup(inline(notebook.question, f"{notebook.stem}, question")),
        body=_body,
        runs=list(dict.fromkeys(figure.run for figure in material.figures)),
        opened=opened(material.rows) if material.rows else {},
        shown=SHOWN,
    )
    environment.filters.update(number=number, literal=literal)
    return environment


def _body(page: Page) -> Markup:
    return Markup(page.body)  # made by our own templates, which escape


def searched(notebooks: Sequence[Notebook], bodies: Sequence[Page]) -> list[tuple[str, str, str]]:
    """Return what the search looks through: text, what stands below it, and address.

    All notebooks come first, then their headings, then the claims.
    """
    both = list(zip(notebooks, bodies, strict=True))
    titles = [(f"{one.number} · {one.title}", one.question, one.page) for one in notebooks]
    headings = [
        (str(Markup(section.html).striptags()), f"notebook {one.number}", f"{one.page}#{section.anchor}")
        for one, page in both
        for section in page.sections
    ]
    said = [(claim, one.page) for one in notebooks for claim in one.claims]
    return titles + headings + [(claim.statement, _note(claim), f"{page}#{claim.cell}") for claim, page in said]


def _note(claim: Claim) -> str:
    value = f", {told(claim.measured)}" if claim.measured else ""
    return f"{claim.verdict}{value}; notebook {claim.notebook[:2]}"


def count(claims: Sequence[Claim]) -> dict[str, int]:
    """Count claims by verdict, every verdict named."""
    found = Counter(claim.verdict for claim in claims)
    return {verdict: found[verdict] for verdict in VERDICTS}


def drawn(notebook: Notebook, figures: Sequence[Figure]) -> list[Figure]:
    """Return a notebook's figures in the order of its cells, its own run first."""
    order = {name: place for place, name in enumerate(notebook.drawn)}
    found = [figure for figure in figures if figure.name in order]
    return sorted(found, key=lambda figure: (figure.run, order[figure.name]))


def owner(figure: Figure, numbered: Mapping[str, Notebook]) -> Notebook | None:
    """Return the notebook whose cell saves a figure, if it is among those shown."""
    return next((one for one in numbered.values() if figure.name in one.drawn), None)


def changed(figure: Figure, numbered: Mapping[str, Notebook]) -> dict[str, Any]:
    """Return the parameters of a figure that differ from those that its notebook stands with."""
    drawer = owner(figure, numbered)
    own = drawer.parameters if drawer else {}
    parameters = figure.about["parameters"].items()
    return {name: value for name, value in parameters if name in own and _json(own[name]) != _json(value)}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def literal(value: Any) -> str:
    """Write a parameter as in Python's parameter cell."""
    return repr(value) if not isinstance(value, dict) else _json(value)
