"""Every page of the report: titles, gallery, claims, leaderboard, tables."""

import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tests.workbook.made_up import picture, put_standings, record, soup
from xai_utils.workbook.report import build, pages, tables


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


def test_the_leaderboard_page(project, tmp_path):
    build.build(project, tmp_path / "site")
    assert "There is no leaderboard here yet" in soup(tmp_path / "site", "leaderboard.html").text
    put_standings(project)
    build.build(project, tmp_path / "site")
    page = soup(tmp_path / "site", "leaderboard.html")
    rows, heads = page.select("tr[data-item]"), [head.text for head in page.select("th")]
    own = "model,metric,operator,method,mean,95 % interval,plot,gain,its 95 % interval,no answer,n,seconds,better"
    assert len(rows) == 12 and heads == own.split(",")
    for row in rows:
        mean, gain = (row.select("td")[heads.index(name)] for name in ("mean", "gain"))
        for one in (mean, gain):
            assert float(one.text.replace("−", "-")) == pytest.approx(float(one["data-value"]), abs=5e-4)
        assert [row.select("td")[place].text for place in (9, 10, 11)] == ["0.250", "1,200", "0.500"]
        assert row.select("td")[-1].text[0] in "↑↓" and len(row.select(".plot i, .plot b")) == 2
    assert all(row.select("td")[1]["title"] for row in rows), "every metric is explained"


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
