"""Every page of the report: titles, gallery, claims, leaderboard, tables."""

import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tests.workbook.made_up import picture, put_standings, record, scores, soup
from xai_utils.workbook.report import build, cells, tables


def test_every_page_has_one_title_a_language_and_headings_without_gaps(project, tmp_path):
    build.build(project, tmp_path / "site")
    for path in (tmp_path / "site").glob("*.html"):
        page = soup(path.parent, path.name)
        levels = [int(heading.name[1]) for heading in page.find_all(re.compile("h[1-6]"))]
        assert levels[0] == 1 and levels.count(1) == 1, path.name
        assert all(after <= before + 1 for before, after in pairwise(levels)), path.name
        assert page.html["lang"] == "en" and page.title.text and page.find("main")


def test_the_gallery_names_what_made_each_figure(project, tmp_path):
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "gallery.html")
    own, other = page.select("[data-item]")
    assert own.select_one("a[href='01_small.html#cell-3']") and other.select_one("a[href='01_small.html#cell-3']")
    assert (own["data-run"], other["data-run"], other["data-model"]) == ("default", "deit", "tiny")
    assert not own.select("code.changed") and [one.text for one in other.select("code.changed")] == ["SEED = 7"]
    assert "ab" * 32 in other.text and "a <b> film" in other.text and other.select_one("a[href$='deit/01_rows.json']")


def test_the_overview_opens_on_findings_with_what_was_measured(project, tmp_path):
    rows = {
        "claim": ["a < b", "c is better than d"],
        "mean": [-0.25, 0.125],
        "low": [-0.5, None],
        "high": [-0.125, None],
    }
    pd.DataFrame(rows | {"p": [0.012, 0.3]}).to_csv(project / "figures/01_tests.csv", index=False)
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "index.html")
    first = page.select("section.finding")[0]
    found = [[cell.text for cell in row.select("td")] for row in first.select("tr[data-item]")]
    assert found == [
        ["✓ holds", "rows = 1 ± 1e-05", "–", "–", "–"],
        ["✗ does not hold", "a < b", "−0.250", "−0.500 to −0.125", "0.012"],
        ["? undecided", "c is better than d", "0.125", "–", "0.300"],
    ]
    assert {link["href"] for link in first.select("td a")} == {"01_small.html#cell-5"}
    kinds = [(row["data-kind"], row["data-verdict"]) for row in first.select("tr[data-item]")]
    assert kinds == [("required", "holds"), ("finding", "does not hold"), ("finding", "undecided")]
    assert [one.text.split() for one in page.select(".facts li")[:2]] == [
        "4 findings: ✓ 0 hold , ✗ 2 do not hold , ? 2 undecided".replace(" ,", ",").split(),
        "2 requirements that the code must meet".split(),
    ]
    printed = soup(tmp_path / "site", "01_small.html").select_one("pre.output").text
    assert "a < b  −0.250 [−0.500, −0.125], p = 0.012" in printed and "c is better than d  0.125, p = 0.300" in printed


def test_what_the_search_finds_is_there(project, tmp_path):
    site = tmp_path / "site"
    build.build(project, site)
    index = json.loads((site / "static/index.js").read_text().removeprefix("const INDEX = ").removesuffix(";\n"))
    assert [text for text, _, _ in index] == [
        *("01 · Small *title*", "02 · Small *title*", "A finding about Aℓ", "A finding about Aℓ"),
        *("rows = 1 ± 1e-05", "a < b", "c is better than d") * 2,
    ]
    assert index[-1][1:] == ["undecided; notebook 02", "02_other.html#cell-4"]
    for _, _, address in index:
        name, _, anchor = address.partition("#")
        assert not anchor or soup(site, name).find(id=anchor), address


def test_on_paper_nothing_is_cut_off_and_nothing_asks_to_be_clicked():
    paper = (cells.TEMPLATES / "site.css").read_text().partition("@media print")[2]
    hidden = paper.partition("display: none")[0]
    assert all(one in hidden for one in ("header", ".filter"))  # the search stands in the header
    assert ".tall, .low { max-height: none; }" in paper and ".scroll, .formula, .output { overflow: visible; }" in paper


def test_a_figure_of_no_notebook_here_is_shown_without_a_cell(project, tmp_path):
    picture(project / "figures/real/09_ranking.png")
    record(project / "figures/real/09_ranking.png", notebook="09_faithfulness", models={})
    build.build(project, tmp_path / "site")
    item = soup(tmp_path / "site", "gallery.html").select_one("[data-run=real]")
    assert "Made by 09_faithfulness" in item.text and item.find_parent("section")["aria-labelledby"] == "others"


def test_the_leaderboard_page(project, tmp_path):
    build.build(project, tmp_path / "site")
    assert "There is no leaderboard here yet" in soup(tmp_path / "site", "leaderboard.html").text
    put_standings(project)
    build.build(project, tmp_path / "site")
    site, table = tmp_path / "site", scores()
    page = soup(site, "leaderboard.html")
    rows, heads = page.select("tr[data-item]"), [head.text for head in page.select("th")]
    own = "model,metric,operator,method,mean,95 % interval,plot,gain,its 95 % interval,no answer,n,seconds,better"
    assert len(rows) == 4 and heads == own.split(","), "it opens on one model and one metric"
    assert {(row["data-model"], row["data-metric"]) for row in rows} == {("tiny", "deletion")}
    for row, (_, said) in zip(rows, table.iterrows(), strict=False):
        texts = [cell.text.replace("−", "-") for cell in row.select("td")]
        for name in ("mean", "gain"):
            assert float(texts[heads.index(name)]) == pytest.approx(said[name], abs=5e-4)
        assert texts[9:12] == ["0.250", "1,200", "0.500"]
        assert texts[-1][0] in "↑↓" and len(row.select(".plot i, .plot b")) == 2
    held = json.loads((site / "static/leaderboard.js").read_text().removeprefix("const LEADERBOARD = ").rstrip(";\n"))
    assert [one[:2] for one in held] == table[["model", "metric"]].to_numpy().tolist(), "the script adds every row"
    shown = [[cell.text for cell in row.select("td")] for row in rows]
    assert [one[:6] + one[7:] for one in held[:4]] == [one[:6] + one[7:] for one in shown]
    assert {one.text for one in page.select("dt")} == {"deletion", "lift"} and all(
        one.text for one in page.select("dd")
    )
    assert (site / "static/leaderboard.csv").read_bytes() == (project / build.LEADERBOARD).read_bytes()


def test_tables_among_the_figures_are_shown_with_their_record(project, tmp_path):
    real = project / "figures/real"
    real.mkdir()
    pd.DataFrame({"method": ["rollout", None], "value": [0.25, np.nan]}).to_csv(real / "imagenet.csv", index=False)
    (real / "imagenet.json").write_text(json.dumps({"caption": "On 250 pictures.", "seed": 3}))
    long = tables.SHOWN + 1
    pd.DataFrame({"n": range(long)}).to_parquet(real / "long.parquet")
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "tables.html")
    first, second = page.select("section")
    assert first.h2.text == "On 250 pictures." and first.select_one("a[href='figures/real/imagenet.json']")
    assert [cell.text for cell in first.select("td")] == ["rollout", "0.250", "–", "–"]
    assert f"{long} rows, of which the first {tables.SHOWN}" in second.text
    assert len(second.select("tbody tr")) == long - 1
    assert (tmp_path / "site/figures/real/long.parquet").is_file()
