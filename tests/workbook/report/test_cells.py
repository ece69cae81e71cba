"""Cells as HTML: figures in full, claims marked, links within the site, formulas in MathML."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from places import ROOT

from tests.workbook.made_up import NOTEBOOKS, soup
from xai_utils.workbook.report import build, cells, sources

FORMULA = re.compile(r"(?<!\\)\$\$.+?\$\$|(?<![\\$])\$[^$]+?\$", re.DOTALL)


def test_a_page_shows_the_figure_in_full_and_marks_claims(project, tmp_path):
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "01_small.html")
    images = page.select("article img")
    assert [image["src"] for image in images] == ["figures/01_rows.png"]
    assert images[0]["alt"] == "What 01_rows shows." and (images[0]["width"], images[0]["height"]) == ("40", "20")
    assert len(page.select("article .cell")) == len(page.select("article .cell[id]")) == 6
    assert [one["class"][1] for one in page.select(".claim")] == ["holds", "does-not-hold", "undecided"]
    assert "other text <&>" in page.select_one("pre.output").text
    assert len(page.find_all("math")) == 4  # two in the prose, one in a heading and the contents
    folded = {one.parent["id"]: one.has_attr("open") for one in page.select("details.code")}
    assert folded == {"cell-1": True, "cell-3": False, "cell-4": False, "cell-5": True}
    assert "make explore" in page.select_one("#cell-4 .note").text


@pytest.fixture(scope="module")
def own():
    return {figure.name: figure for figure in sources.read_figures(ROOT / "figures") if not figure.run}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_widget_is_shown_as_its_stored_frame(path, own):
    notebook = sources.read_notebook(path)
    page = BeautifulSoup(cells.page_of(notebook, own, path.parent).body, "html.parser")
    widgets = [n for n, cell in enumerate(notebook.node.cells) if "widget" in cell.metadata.get("tags", [])]
    assert [one.find_parent(id=True)["id"] for one in page.select(".note")] == [sources.anchor(n) for n in widgets]
    for place in widgets:
        (output,) = notebook.node.cells[place].outputs
        (image,) = page.find(id=sources.anchor(place)).select("img")
        assert image["src"] == f"data:image/png;base64,{output.data['image/png']}"
        assert image["alt"].startswith("still frame of the widget")


def test_pictures_that_cannot_be_told_apart_all_stay(project, tmp_path):
    path = project / "notebooks/01_small.ipynb"
    node = nbformat.read(path, as_version=4)
    node.cells[3].outputs.append(node.cells[3].outputs[0].copy())
    nbformat.write(node, path)
    build.build(project, tmp_path / "site")
    sources = [image["src"][:10] for image in soup(tmp_path / "site", "01_small.html").select("article img")]
    assert sources == ["data:image", "data:image", "figures/01"]


def test_links_to_notebooks_and_files_of_the_project(project):
    folder = project / "notebooks"
    (project / "data/README.md").write_text("x")

    def html(text):
        return cells.prose(text, cells.Page(), "cell-1", "here", folder)

    assert '<a href="02_other.html#cell-3">two</a>' in html("[two](02_other.ipynb#cell-3)")
    assert "data (<code>data/README.md</code>)" in html("[data](../data/README.md)")
    assert '<a href="https://a.org">web</a>' in html("[web](https://a.org)")
    assert 'src="figures/01_rows.png"' in html("![rows](../figures/01_rows.png)")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_every_notebook_becomes_mathml(path):
    for position, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            where = f"{path.stem}, cell {position}"
            html = cells.prose(cell.source, cells.Page(), "x", where, path.parent)
            page = BeautifulSoup(html, "html.parser")
            for code in page.select("code, pre"):
                code.extract()
            plain = re.sub(r"`[^`]*`|```.*?```", "", cell.source, flags=re.DOTALL)
            assert len(page.find_all("math")) == len(FORMULA.findall(plain)), where
            assert not re.search(r"\$|\\[a-zA-Z]", page.text), where


def test_formulas_show_what_they_say():
    text = BeautifulSoup(cells.formula(r"\frac{a}{b} \le \alpha", True, "here"), "html.parser")
    assert text.math["display"] == "block" and text.mfrac and text.text.replace(" ", "") == "ab≤α"
