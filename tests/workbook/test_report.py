"""The report: what it reads, what it refuses by name, that its links hold, and that a failure leaves the old site."""

import json
import re
from itertools import pairwise

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from PIL import Image
from places import ROOT
from scipy import stats as scipy_stats

from xai_utils import files
from xai_utils.__main__ import main
from xai_utils.workbook.report import build, links, pages, tables
from xai_utils.workbook.report import cells as report_cells
from xai_utils.workbook.report import sources as report_sources

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRINTED = (
    "holds  rows = 1 ± 1e-05\ndoes not hold  a < b\ndoes not hold  c is better than d (undecided)\nother text <&>\n"
)
FORMULA = re.compile(r"(?<!\\)\$\$.+?\$\$|(?<![\\$])\$[^$]+?\$", re.DOTALL)


def picture(path, shape=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape, "white").save(path)


def record(path, **changes):
    about = {
        "figure": path.stem, "caption": f"What {path.stem} shows.", "notebook": "01_small", "parameters": {"SEED": 0},
        "device": "cpu", "models": {"tiny": {"source": "tiny", "revision": None, "state_sha256": "ab" * 32}},
        "data": {"sentence": "a <b> film"}, "versions": {"python": "3.11"},
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(about | changes))


def notebook(number, *, saves=(), cells=()):
    shown = v4.new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    saving = [
        v4.new_code_cell(f'figures.save(fig, "{name}", "caption")', execution_count=3, outputs=[shown])
        for name in saves
    ]
    node = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f"# {number} · Small *title*\n\n**Question.** Is $x_1$ small,\nor not?\n\nMore."),
            v4.new_code_cell("SEED = 0", execution_count=1, metadata={"tags": ["parameters"]}),
            v4.new_markdown_cell("## A finding about $A_\\ell$\n\n$$\\sum_i a_i = 1$$"),
            *saving,
            v4.new_code_cell("explore()", execution_count=4, metadata={"tags": ["widget"]}),
            *cells,
            v4.new_code_cell(
                "claims.near()",
                execution_count=5,
                metadata={"tags": ["nbval-check-output"]},
                outputs=[v4.new_output("stream", name="stdout", text=PRINTED)],
            ),
        ]
    )
    node.metadata["language_info"] = {"name": "python"}
    return node


@pytest.fixture
def project(tmp_path):
    """Lay out a project of two notebooks, one figure in two runs, and one model card."""
    root = tmp_path / "project"
    for folder in ("notebooks", "figures", "data/models/tiny"):
        (root / folder).mkdir(parents=True)
    nbformat.write(notebook("01", saves=["01_rows"]), root / "notebooks/01_small.ipynb")
    nbformat.write(notebook("02"), root / "notebooks/02_other.ipynb")
    for run, parameters in (("", {"SEED": 0}), ("deit/", {"SEED": 7})):
        picture(root / f"figures/{run}01_rows.png")
        record(root / f"figures/{run}01_rows.png", parameters=parameters)
    card = {"name": "tiny", "about": "a tiny model", "measured": {"accuracy": 0.9, "n": 10}}
    (root / "data/models/tiny/card.json").write_text(json.dumps(card))
    return root


def scores(samples=5, seeds=1):
    noise = np.random.default_rng(0)
    names = [(model, method, metric, operator) for model in ("tiny", "large") for method in ("rollout", "flow")
             for metric, operator in (("deletion", "zero"), ("deletion", "blur"), ("lift", None))]  # fmt: skip
    rows = [
        (*name[:2], f"s{sample}", *name[2:], noise.normal(), 0.5)
        for name in names
        for sample in range(samples)
        for _ in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["model", "method", "sample", "metric", "operator", "value", "seconds"])


def put_scores(root, table):
    (root / "data/sweeps").mkdir(parents=True, exist_ok=True)
    table.to_parquet(root / build.LEADERBOARD)


def soup(site, name):
    return BeautifulSoup((site / name).read_text(), "html.parser")


# --- the whole site ---------------------------------------------------------------------------------------------------


def test_a_site_holds_every_page_picture_and_record(project, tmp_path):
    site = tmp_path / "site"
    counts = build.build(project, site)
    assert counts == {"pages": 6, "figures": 2, "claims": 6, "leaderboard": 0}
    assert sorted(path.name for path in site.glob("*.html")) == [
        "01_small.html", "02_other.html", "claims.html", "gallery.html", "index.html", "leaderboard.html",
    ]  # fmt: skip
    for name in ("figures/01_rows.png", "figures/01_rows.json", "figures/deit/01_rows.png", "static/site.css"):
        assert (site / name).is_file(), name
    assert links.problems(site) == []
    assert str(tmp_path) not in "".join(path.read_text() for path in site.rglob("*.html"))


def test_every_page_has_one_title_a_language_and_headings_without_gaps(project, tmp_path):
    build.build(project, tmp_path / "site")
    for path in (tmp_path / "site").glob("*.html"):
        page = soup(path.parent, path.name)
        levels = [int(heading.name[1]) for heading in page.find_all(re.compile("h[1-6]"))]
        assert levels[0] == 1 and levels.count(1) == 1, path.name
        assert all(after <= before + 1 for before, after in pairwise(levels)), path.name
        assert page.html["lang"] == "en" and page.title.text and page.find("main")


def test_two_builds_write_the_same_bytes(project, tmp_path):
    for name in ("one", "two"):
        build.build(project, tmp_path / name)
    first = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.*")}
    assert len(first) > 10
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "two" / name).read_bytes(), name


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


def test_pictures_that_cannot_be_told_apart_all_stay(project, tmp_path):
    path = project / "notebooks/01_small.ipynb"
    node = nbformat.read(path, as_version=4)
    node.cells[3].outputs.append(node.cells[3].outputs[0].copy())
    nbformat.write(node, path)
    build.build(project, tmp_path / "site")
    sources = [image["src"][:10] for image in soup(tmp_path / "site", "01_small.html").select("article img")]
    assert sources == ["data:image", "data:image", "figures/01"]


def test_the_gallery_names_what_made_each_figure(project, tmp_path):
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "gallery.html")
    own, other = page.select("[data-item]")
    assert own.select_one("a[href='01_small.html#cell-3']") and other.select_one("a[href='01_small.html#cell-3']")
    assert (own["data-run"], other["data-run"], other["data-model"]) == ("default", "deit", "tiny")
    assert not own.select("code.changed") and [one.text for one in other.select("code.changed")] == ["SEED = 7"]
    assert "ab" * 32 in other.text and "a <b> film" in other.text and other.select_one("a[href$='deit/01_rows.json']")


def test_the_claims_link_to_their_cells(project, tmp_path):
    build.build(project, tmp_path / "site")
    rows = soup(tmp_path / "site", "claims.html").select("tr[data-item]")
    found = [(row["data-verdict"], row.select("a")[1].text, row.select("a")[1]["href"]) for row in rows[:3]]
    assert found == [
        ("holds", "rows = 1 ± 1e-05", "01_small.html#cell-5"),
        ("does not hold", "a < b", "01_small.html#cell-5"),
        ("undecided", "c is better than d", "01_small.html#cell-5"),
    ]


def test_a_figure_of_no_notebook_here_is_shown_without_a_cell(project, tmp_path):
    picture(project / "figures/real/09_ranking.png")
    record(project / "figures/real/09_ranking.png", notebook="09_faithfulness", models={})
    build.build(project, tmp_path / "site")
    item = soup(tmp_path / "site", "gallery.html").select_one("[data-run=real]")
    assert "Made by 09_faithfulness" in item.text and item.find_parent("section")["aria-labelledby"] == "others"


# --- what is refused --------------------------------------------------------------------------------------------------


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


def test_bad_files_are_named(project, tmp_path):
    def refused(message):
        with pytest.raises(ValueError, match=message):
            build.build(project, tmp_path / "site")
        assert not (tmp_path / "site").exists()

    own = project / "figures/01_rows.json"
    whole = own.read_text()
    for text, message in (
        (whole[:-20], r"figures/01_rows\.json is no JSON"),
        ("[]", r"01_rows\.json holds a list"),
        (json.dumps({"figure": "01_rows"}), r"01_rows\.json lacks caption, notebook, parameters"),
        (json.dumps(json.loads(whole) | {"figure": "01_other"}), r"01_rows\.json is the record of '01_other'"),
    ):
        own.write_text(text)
        refused(message)
    own.unlink()
    refused(r"figures/01_rows\.png has no record")
    own.write_text(whole)
    (project / "figures/deit/01_rows.png").unlink()
    refused(r"figures/deit/01_rows\.json records a figure or table that is not there")
    (project / "figures/deit/01_rows.png").write_text("no picture")
    refused(r"01_rows\.png is no picture")
    picture(project / "figures/deit/01_rows.png")
    (project / "data/models/tiny/card.json").write_text("{")
    refused(r"tiny/card\.json is no JSON")
    (project / "data/models/tiny/card.json").write_text("{}")
    (project / "notebooks/02_other.ipynb").write_text("{")
    refused(r"02_other\.ipynb cannot be read")
    for path in (project / "notebooks").iterdir():
        path.unlink()
    refused("no notebook")


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


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<a href='b.html#there'>x</a><a href='https://arxiv.org/abs/1'>x</a><a href='mailto:a@b.c'>x</a>", ""),
        ("<a href='c.html'>x</a>", "'c.html' leads to nothing"),
        ("<a href='b.html#gone'>x</a>", "names an anchor that b.html does not have"),
        ("<a href='../a.html'>x</a>", "leads to nothing"),
        ("<a href='/a.html'>x</a>", "is absolute"),
        ("<a href='file:///a.html'>x</a>", "is no address on the web"),
        ("<a href='javascript:run()'>x</a>", "is no address on the web"),
        ("<img src='gone.png' alt='x'>", "leads to nothing"),
        ("<img src='https://a.org/x.png' alt='x'>", "is loaded from elsewhere"),
        ("<img src='b.html'>", "has no alternative text"),
        ("<script src='//cdn.org/x.js'></script>", "is loaded from elsewhere"),
        ("<link rel='stylesheet' href='https://cdn.org/x.css'>", "is loaded from elsewhere"),
        ("<p id='one'></p><p id='one'></p>", "the anchor 'one' occurs 2 times"),
    ],
)
def test_links_are_checked(tmp_path, body, problem):
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text("<p id='there'>x</p>")
    found = links.problems(tmp_path)
    assert (not found) if not problem else any(problem in one for one in found), found


def test_a_sheet_may_load_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a.css").write_text("p { background: url('https://a.org/x.png') }")
    assert links.problems(tmp_path)


def test_links_to_notebooks_and_files_of_the_project(project):
    folder = project / "notebooks"
    (project / "data/README.md").write_text("x")

    def html(text):
        return report_cells.prose(text, report_cells.Page(), "cell-1", "here", folder)

    assert '<a href="02_other.html#cell-3">two</a>' in html("[two](02_other.ipynb#cell-3)")
    assert "data (<code>data/README.md</code>)" in html("[data](../data/README.md)")
    assert '<a href="https://a.org">web</a>' in html("[web](https://a.org)")
    assert 'src="figures/01_rows.png"' in html("![rows](../figures/01_rows.png)")


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_every_notebook_becomes_mathml(path):
    for position, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            where = f"{path.stem}, cell {position}"
            html = report_cells.prose(cell.source, report_cells.Page(), "x", where, path.parent)
            page = BeautifulSoup(html, "html.parser")
            for code in page.select("code, pre"):
                code.extract()
            plain = re.sub(r"`[^`]*`|```.*?```", "", cell.source, flags=re.DOTALL)
            assert len(page.find_all("math")) == len(FORMULA.findall(plain)), where
            assert not re.search(r"\$|\\[a-zA-Z]", page.text), where


def test_formulas_show_what_they_say():
    text = BeautifulSoup(report_cells.formula(r"\frac{a}{b} \le \alpha", True, "here"), "html.parser")
    assert text.math["display"] == "block" and text.mfrac and text.text.replace(" ", "") == "ab≤α"


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_leaderboard_is_a_mean_with_n_and_interval(tmp_path):
    table = scores(samples=6, seeds=2)
    table.to_parquet(tmp_path / "leaderboard.parquet")
    rows = tables.leaderboard(tmp_path / "leaderboard.parquet")
    assert len(rows) == 2 * 2 * 3
    one = next(row for row in rows if (row.model, row.metric, row.method) == ("tiny", "lift", "flow"))
    assert (one.operator, one.n, one.missing, one.seconds) == (tables.NONE, 6, 0, 0.5)
    chosen = table[(table.model == "tiny") & (table.metric == "lift") & (table.method == "flow")]
    values = chosen.groupby("sample")["value"].mean()
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (one.mean, one.low, one.high) == pytest.approx((values.mean(), expected.low, expected.high))


def test_missing_values_are_counted_not_averaged(tmp_path):
    table = scores(samples=3)
    first = (table.model == "tiny") & (table.method == "flow") & (table.operator == "zero")
    table.loc[table.index[first][:2], "value"] = np.nan
    table.to_parquet(tmp_path / "leaderboard.parquet")
    rows = tables.leaderboard(tmp_path / "leaderboard.parquet")
    one = next(row for row in rows if (row.model, row.operator, row.method) == ("tiny", "zero", "flow"))
    assert (one.n, one.missing, one.low, one.high) == (1, 2, None, None) and one.mean is not None
    assert sum(row.missing for row in rows) == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns=["operator", "value"]), "lacks the columns operator, value"),
        (lambda table: table.head(0), "has no row"),
        (lambda table: table.assign(value="high"), "texts or infinite numbers in 'value'"),
        (lambda table: table.assign(seconds=np.inf), "texts or infinite numbers in 'seconds'"),
    ],
)
def test_a_bad_leaderboard_is_refused(tmp_path, edit, message):
    edit(scores()).to_parquet(tmp_path / "leaderboard.parquet")
    with pytest.raises(ValueError, match=rf"leaderboard\.parquet .*{message}"):
        tables.leaderboard(tmp_path / "leaderboard.parquet")


def test_a_cut_off_leaderboard_is_refused(tmp_path):
    scores().to_parquet(tmp_path / "leaderboard.parquet")
    whole = (tmp_path / "leaderboard.parquet").read_bytes()
    (tmp_path / "leaderboard.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as a table"):
        tables.leaderboard(tmp_path / "leaderboard.parquet")


def test_the_leaderboard_page(project, tmp_path):
    build.build(project, tmp_path / "site")
    assert "There is no leaderboard here yet" in soup(tmp_path / "site", "leaderboard.html").text
    put_scores(project, scores())
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "leaderboard.html")
    rows, heads = page.select("tr[data-item]"), [head.text for head in page.select("th")]
    assert len(rows) == 12 and heads == "model,metric,operator,method,mean,95 % interval,n,seconds".split(",")
    for row in rows:
        shown, exact = row.select("td")[4].text.replace("−", "-"), row.select("td")[4]["data-value"]
        assert float(shown) == pytest.approx(float(exact), abs=5e-4)


def test_tables_among_the_figures_are_shown_with_their_record(project, tmp_path):
    real = project / "figures/real"
    real.mkdir()
    pd.DataFrame({"method": ["rollout", None], "value": [0.25, np.nan]}).to_csv(real / "imagenet.csv", index=False)
    (real / "imagenet.json").write_text(json.dumps({"caption": "On 250 pictures.", "seed": 3}))
    long = tables.SHOWN + 1
    pd.DataFrame({"n": range(long)}).to_parquet(real / "long.parquet")
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "leaderboard.html")
    first, second = page.select("section")
    assert first.h2.text == "On 250 pictures." and "seed" in first.dl.text
    assert [cell.text for cell in first.select("td")] == ["rollout", "0.250", "–", "–"]
    assert f"The first {tables.SHOWN} of {long} rows" in second.text
    assert len(second.select("tbody tr")) == long - 1
    assert (tmp_path / "site/figures/real/long.parquet").is_file()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (1234, "1,234"), (-0.5, "−0.500"), (0.00012, "1.20e−04"), (0.0, "0.000"), (2.5e7, "2.50e+07")],
)
def test_numbers_are_written_for_people(value, shown):
    assert pages.number(value) == shown


# --- this project -----------------------------------------------------------------------------------------------------


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
        if line.startswith(("holds  ", "does not hold  "))
    ]
    assert len(printed) == len(material.claims) > 100


def test_verdicts_are_read_as_claims_prints_them(capsys):
    from xai_utils import claims

    claims.equal("sign", 1, 1)
    claims.finding("better", -1.0, -0.5)
    claims.finding("larger", -1.0, 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert [report_sources.verdict_of(line) for line in [*lines, "holdsno", "the sum holds  x"]] == [
        ("holds", "sign = 1"), ("does not hold", "better"), ("undecided", "larger"), None, None,
    ]  # fmt: skip
