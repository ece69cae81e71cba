"""The cells of a notebook as HTML: prose with formulas in MathML, code to unfold, figures in full resolution.

Every cell gets its anchor (:func:`sources.anchor`), and headings link to the cell that they stand in. Formulas
are converted by the library math-core; one that it does not know stops the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader
from math_core import LatexError, LatexToMathML
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from xai_utils.workbook.report.findings import told
from xai_utils.workbook.report.sources import Figure, Notebook, anchor, saved_by, verdict_of

TEMPLATES = Path(__file__).resolve().parent / "templates"
SIGNS = {"holds": "✓", "does not hold": "✗", "undecided": "?"}
_MATHML = LatexToMathML(fancy_error=False)
_OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


@dataclass
class Section:
    """A heading of the page: level 2 and deeper, its HTML, and the anchor of its cell."""

    level: int
    html: str
    anchor: str


@dataclass
class Page:
    """The body of a notebook's page and its headings."""

    body: str = ""
    sections: list[Section] = field(default_factory=list)


def formula(latex: str, block: bool, where: str) -> str:
    """Return a formula as MathML.

    Args:
        latex: without its dollar signs.
        block: whether it stands on a line of its own.
        where: notebook and cell, for the error.

    Raises:
        ValueError: a formula that cannot be converted; the message names place and formula.
    """
    try:
        return str(_MATHML.convert_with_local_state(latex.strip(), displaystyle=block))
    except LatexError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{where}: the formula {latex.strip()!r} cannot be converted: {reason}.") from error


class _Prose(IPythonRenderer):
    """Markdown to HTML, with formulas as MathML and links that stay within the site."""

    def __init__(self, page: Page, here: str, where: str, folder: Path, **options: Any) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, **options)
        self.page, self.here, self.where, self.folder = page, here, where, folder

    def inline_math(self, body: str) -> str:
        return formula(body, False, self.where)

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0" role="group">{formula(body, True, self.where)}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        if level > 1:
            self.page.sections.append(Section(level, text, self.here))
        link = f'<a class="here" href="#{self.here}" aria-label="link to this section">#</a>'
        return f"<h{level}>{text} {link}</h{level}>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Point to the site's page of a notebook; name a file of the project that the site does not hold."""
        target, _, fragment = url.partition("#")
        file = self.folder / target
        if not target or _OUTSIDE.match(url) or not file.is_file():
            return str(super().link(text, url, title))
        if file.suffix == ".ipynb":
            return str(super().link(text, f"{file.stem}.html" + (f"#{fragment}" if fragment else ""), title))
        shown = file.resolve()
        path = shown.relative_to(self.folder.parent) if shown.is_relative_to(self.folder.parent) else shown.name
        return f"{text} (<code>{escape(str(path))}</code>)"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Take a figure of the project from the site's own folder."""
        return str(super().image(text, re.sub(r"^(\.\./)+figures/", "figures/", url), title))


class _Exporter(HTMLExporter):
    """nbconvert with the template of this package; one exporter a notebook."""

    def __init__(self, page: Page, notebook: Notebook, folder: Path) -> None:
        super().__init__(
            template_name="base", template_file="cells.html.j2", extra_loaders=[FileSystemLoader(TEMPLATES)]
        )
        self.page, self.stem, self.folder = page, notebook.stem, folder
        values = {claim.statement: told(claim.measured) for claim in notebook.claims if claim.measured}
        self.register_filter("claims", partial(claim_lines, values=values))
        self.register_filter("prose", self.prose)

    def prose(self, source: str, cell: NotebookNode, here: str) -> str:
        """Convert markdown that stands in ``cell``, whose anchor is ``here``."""
        where = f"{self.stem}, {here.replace('-', ' ')}"
        return prose(source, self.page, here, where, self.folder, attachments=cell.get("attachments", {}))


def prose(source: str, page: Page, here: str, where: str, folder: Path, **options: Any) -> str:
    """Return markdown as HTML and add its headings to ``page``.

    Args:
        source: the markdown.
        page: takes the headings of level 2 and deeper.
        here: anchor of the cell, where its headings lead.
        where: notebook and cell, for errors.
        folder: what relative links start from.
        options: of nbconvert's renderer, such as ``attachments``.

    Raises:
        ValueError: a formula that cannot be converted.
    """
    return str(MarkdownWithMath(renderer=_Prose(page, here, where, folder, **options)).render(source))


def inline(text: str, where: str) -> str:
    """Return one line of markdown as HTML without a paragraph around it."""
    html = prose(text, Page(), "", where, TEMPLATES).strip()
    return html.removeprefix("<p>").removesuffix("</p>")


def claim_lines(text: str, values: Mapping[str, str]) -> str:
    """Return printed text as HTML: claims marked by sign and class, and beside them what was measured, by statement."""
    return "\n".join(_line(line, values) for line in text.rstrip("\n").split("\n"))


def _line(line: str, values: Mapping[str, str]) -> str:
    if not (found := verdict_of(line)):
        return escape(line, quote=False)
    kind = found[0].replace(" ", "-")
    value = f'  <span class="value">{values[found[1]]}</span>' if found[1] in values else ""
    sign = f'<b aria-hidden="true">{SIGNS[found[0]]}</b>'
    return f'<span class="claim {kind}">{sign} {escape(line, quote=False)}</span>{value}'


def page_of(notebook: Notebook, figures: Mapping[str, Figure], folder: Path) -> Page:
    """Return the page of a notebook.

    Args:
        notebook: as read.
        figures: the figures of the notebooks' own run by name; they replace the small pictures of the cells that save
            them.
        folder: where the notebooks are, for their links.

    Raises:
        ValueError: a formula that cannot be converted, a figure that is saved but not there.
    """
    page = Page()
    about = [_about(cell, n, notebook, figures) for n, cell in enumerate(notebook.node.cells)]
    page.body, _ = _Exporter(page, notebook, folder).from_notebook_node(
        notebook.node, {"about": about, "title": notebook.title}
    )
    return page


def _about(cell: NotebookNode, position: int, notebook: Notebook, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return what the template needs to know of a cell besides its content."""
    names = saved_by(cell)
    if missing := [name for name in names if name not in figures]:
        raise ValueError(
            f"{notebook.stem} saves {', '.join(missing)}, which is not in figures/; run make golden "
            f"ONLY={notebook.number}."
        )
    tags = cell.metadata.get("tags", [])
    pictures = sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    return {
        "anchor": anchor(position),
        "figures": [figures[name] for name in names],
        "replaced": pictures == len(names),  # else it is unknown which picture is which: all are shown
        "open": bool({"parameters", "nbval-check-output"} & set(tags)),
        "widget": "widget" in tags,
        "lines": len(cell.source.splitlines()),
    }
