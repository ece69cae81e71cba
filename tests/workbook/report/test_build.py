"""The whole site: what it holds, that it is the same twice, and that a failure leaves the old one."""

import nbformat
import pytest
from nbformat import v4
from places import ROOT

from tests.workbook.made_up import NOTEBOOKS
from xai_utils import files
from xai_utils.__main__ import main
from xai_utils.workbook.report import build, links


def test_a_site_holds_every_page_picture_and_record(project, tmp_path):
    site = tmp_path / "site"
    counts = build.build(project, site)
    assert counts == {"pages": 6, "figures": 2, "claims": 6, "leaderboard": 0}
    assert sorted(path.name for path in site.glob("*.html")) == [
        "01_small.html", "02_other.html", "gallery.html", "index.html", "leaderboard.html",
        "tables.html",
    ]  # fmt: skip
    for name in (
        "figures/01_rows.png",
        "figures/01_rows.json",
        "figures/deit/01_rows.png",
        "static/site.css",
        "static/index.js",
    ):
        assert (site / name).is_file(), name
    assert links.problems(site) == []
    assert str(tmp_path) not in "".join(path.read_text() for path in site.rglob("*.html"))


def test_two_builds_write_the_same_bytes(project, tmp_path):
    for name in ("one", "two"):
        build.build(project, tmp_path / name)
    first = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.*")}
    assert len(first) > 10
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def change(root, edit):
    path = root / "notebooks/01_small.ipynb"
    node = nbformat.read(path, as_version=4)
    edit(node)
    nbformat.write(node, path)


def strip(node):
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def fail(node):
    node.cells[3].outputs = [v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (strip, r"01_small\.ipynb has no outputs.*make golden ONLY=01"),
        (fail, r"01_small\.ipynb holds an error below the cell 'figures\.save"),
        (lambda node: node.cells[3].update(execution_count=None), r"01_small\.ipynb was not executed"),
        (lambda node: node.cells[0].update(source="# Title"), r"01_small\.ipynb should open with '# 01 · Title'"),
        (
            lambda node: node.cells[2].update(source=r"so $\nosuch{x}$"),
            r"01_small, cell 2: the formula '.*nosuch\{x\}'",
        ),
        (lambda node: node.cells[2].update(source=r"so $\frac{1}{$"), r"01_small, cell 2: the formula"),
        (lambda node: node.cells[2].update(source="see [it](nowhere.ipynb)"), r"'nowhere\.ipynb' leads to nothing"),
        (lambda node: node.cells[2].update(source="see [it](#nowhere)"), r"'#nowhere' names an anchor"),
        (lambda node: node.cells[2].update(source="![x](https://a.org/x.png)"), r"loaded from elsewhere"),
        (lambda node: node.cells[3].update(source='figures.save(fig, "01_gone")'), r"01_small saves 01_gone, which"),
    ],
)
def test_a_bad_notebook_is_named_and_the_old_site_stays(project, tmp_path, edit, message):
    site = tmp_path / "site"
    build.build(project, site)
    before = {path: path.read_bytes() for path in site.rglob("*.*")}
    change(project, edit)
    with pytest.raises(ValueError, match=message):
        build.build(project, site)
    assert {path: path.read_bytes() for path in site.rglob("*.*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "site"]


def test_a_folder_that_is_no_report_is_not_replaced(project, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="precious exists and is no report"):
        build.build(project, tmp_path / "precious")
    assert (tmp_path / "precious/thesis.txt").read_text() == "years of work"


def test_the_command_says_what_it_built_or_what_is_wrong(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "ROOT", project)
    assert main(["report", "--out", str(tmp_path / "site")]) == 0
    assert "6 pages, 2 figures, 6 claims, no leaderboard yet" in capsys.readouterr().out
    (project / "figures/01_rows.json").write_text("{")
    assert main(["report", "--out", str(tmp_path / "site")]) == 2
    assert "error: figures/01_rows.json is no JSON" in capsys.readouterr().err


def test_this_project_can_be_reported():
    material = build.read(ROOT)
    assert [one.stem for one in material.notebooks] == [path.stem for path in NOTEBOOKS]
    assert all(one.claims for one in material.notebooks if one.drawn)
    assert {name for one in material.notebooks for name in one.drawn} == material.own.keys()
    printed = [
        line
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        for line in output.get("text", "").splitlines()
        if line.startswith(("holds  ", "does not hold  ", "undecided  "))
    ]
    assert len(printed) == len(material.claims) > 100
