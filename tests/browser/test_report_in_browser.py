"""The report as a person sees it: opened from disk in Chromium, links followed, tables sorted, lists filtered."""

from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

from tests.browser import lab
from tests.workbook.made_up import put_standings, scores
from xai_utils.workbook.report import build

pytestmark = pytest.mark.browser
SECONDS = 30_000  # of the browser, in milliseconds


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build this project's report, with a made-up leaderboard where it has none."""
    home = tmp_path_factory.mktemp("report")
    root = home / "project"
    root.mkdir()
    for name in ("notebooks", "figures"):
        (root / name).symlink_to(lab.ROOT / name)
    (root / "data").mkdir()
    (root / "data/models").symlink_to(lab.ROOT / "data/models")
    put_standings(root, scores(("flow", "rollout", "random")))
    build.build(root, home / "site")
    return home / "site"


@contextmanager
def browsed(**options):
    """Yield a page of a fresh browser; no error may reach the console and nothing but files may be asked for."""
    lab.SHOTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=lab.chromium(), headless=True, args=lab.FLAGS)
        page = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options}).new_page()
        page.set_default_timeout(SECONDS)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.on("request", lambda request: asked.append(request.url))
        try:
            yield page
        finally:
            browser.close()
    assert asked and not [url for url in asked if not url.startswith(("file://", "data:"))]
    assert not said


def column(page, table, number):
    """Return what stands in a column, top to bottom, in the rows that are shown; a minus as Python reads it."""
    cells = page.locator(f"#{table} tbody tr:not([hidden]) td:nth-child({number})")
    return cells.evaluate_all("them => them.map(it => it.textContent.replace('−', '-'))")


def test_every_page_opens_from_disk_with_its_pictures(site):
    with browsed() as page:
        page.goto((site / "index.html").as_uri())
        links = page.locator("header a").evaluate_all("them => them.map(it => it.getAttribute('href'))")
        assert {f"{path.stem}.html" for path in lab.NOTEBOOKS} < set(links) == {p.name for p in site.glob("*.html")}
        for link in links:
            page.locator(f"header a[href='{link}']").click()
            page.wait_for_url(f"**/{link}")
            assert page.locator("main h1").count() == 1
            page.locator("img").evaluate_all("them => them.forEach(it => { it.loading = 'eager'; })")
            page.wait_for_function("() => Array.from(document.images).every(it => it.complete)")
            widths = page.locator("img").evaluate_all("them => them.map(it => it.naturalWidth)")
            assert all(widths) and (widths or link in ("leaderboard.html", "tables.html")), link
            page.screenshot(path=lab.SHOTS / f"report_{link.removesuffix('.html')}.png")


def test_pages_fit_a_narrow_screen(site):
    with browsed(viewport={"width": 420, "height": 900}, color_scheme="dark") as page:
        for path in sorted(site.glob("*.html")):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 420, path.name
            page.screenshot(path=lab.SHOTS / f"report_{path.stem}_narrow.png")


def test_tables_sort_by_click_and_by_keyboard(site):
    with browsed() as page:
        page.goto((site / "leaderboard.html").as_uri() + "#all=1")
        head = page.locator("#leaderboard th", has_text="mean")
        before = [float(value) for value in column(page, "leaderboard", 5)]
        assert head.get_attribute("aria-sort") == "none" and before != sorted(before)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert [float(value) for value in column(page, "leaderboard", 5)] == sorted(before)
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert [float(value) for value in column(page, "leaderboard", 5)] == sorted(before, reverse=True)
        for _ in range(4):  # back from "mean" to "model"
            page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        metrics = page.locator("#leaderboard th", has_text="metric")
        assert (head.get_attribute("aria-sort"), metrics.get_attribute("aria-sort")) == ("none", "ascending")
        assert column(page, "leaderboard", 2) == ["deletion"] * 12 + ["lift"] * 6


def test_findings_are_filtered_and_lead_to_their_cells(site):
    with browsed() as page:
        page.goto((site / "index.html").as_uri())
        rows, told = page.locator("#findings tbody tr"), page.locator("[data-filter] output")
        shown, everything = page.locator("#findings tbody tr:visible"), rows.count()
        assert 0 < shown.count() < everything, "requirements are left out at first"
        page.locator(".facts a", has_text="do not hold").click()
        page.wait_for_function("() => document.querySelector('#by-verdict').value === 'does not hold'")
        assert {text.strip(" ✗") for text in shown.locator(".verdict").all_inner_texts()} == {"does not hold"}
        assert told.inner_text() == f"{shown.count()} of {everything}"
        page.get_by_label("text", exact=True).fill("no claim says this")
        assert shown.count() == page.locator("#findings section:visible").count() == 0
        page.get_by_label("text", exact=True).fill("")
        link = shown.first.locator("a").last
        statement = link.inner_text()
        link.click()
        target = page.locator(":target")
        target.wait_for()
        assert statement in target.inner_text().replace("\n", " ")
        page.wait_for_function(
            """() => {
                const box = document.querySelector(":target").getBoundingClientRect();
                return box.top < window.innerHeight && box.bottom > 0;
            }"""
        )


def test_the_gallery_filters_and_code_unfolds(site):
    with browsed() as page:
        page.goto((site / "gallery.html").as_uri())
        page.get_by_label("notebook", exact=True).select_option("01_attention_rollout")
        page.get_by_label("run").select_option("default")
        items = page.locator("#gallery [data-item]:visible")
        drawn = len(list((lab.ROOT / "figures").glob("01_*.png")))
        assert items.count() == drawn and page.locator("#gallery h2:visible").count() == 1
        items.first.locator("figcaption a").first.click()
        page.wait_for_url("**/01_attention_rollout.html#cell-*")
        folded = page.locator("details.code:not([open])")
        assert folded.count() > 5
        page.get_by_role("button", name="Show all code").press("Enter")
        assert folded.count() == 0


def test_without_scripts_everything_is_there(site):
    with browsed(java_script_enabled=False) as page:
        page.goto((site / "index.html").as_uri())
        assert page.locator("#findings tbody tr").first.is_visible() and not page.locator("form:visible").count()
        page.goto((site / "leaderboard.html").as_uri())
        assert page.locator("#leaderboard tbody tr").count() == 6 and page.get_by_text("the others are in").is_visible()
        page.goto((site / "01_attention_rollout.html").as_uri())
        page.locator("details.code:not([open]) summary").first.click()
        assert page.locator("details.code[open]").nth(1).is_visible()
        assert page.locator("math").first.is_visible()


def test_the_leaderboard_opens_on_a_few_rows_and_holds_all(site):
    with browsed() as page:
        page.goto((site / "leaderboard.html").as_uri())
        chosen = {name: page.get_by_label(name, exact=True).input_value() for name in ("model", "metric")}
        assert chosen == {"model": "tiny", "metric": "deletion"}
        assert len(column(page, "leaderboard", 5)) == 6
        assert page.locator("[data-filter] output").inner_text() == "6 of 18"
        page.get_by_label("model", exact=True).select_option("large")
        page.get_by_label("metric", exact=True).select_option("lift")
        assert set(zip(column(page, "leaderboard", 1), column(page, "leaderboard", 2), strict=True)) == {
            ("large", "lift")
        }
        plots = page.locator("#leaderboard tbody tr:not([hidden]) .plot i")
        ends = plots.evaluate_all("them => them.map(it => [parseFloat(it.style.left), parseFloat(it.style.right)])")
        told = page.evaluate("LEADERBOARD.filter(one => one[0] === 'large' && one[1] === 'lift').map(one => one[6])")
        assert len(ends) == 3 and ends == [pytest.approx([low, 100 - high]) for low, high, _ in told]


def test_the_choice_stands_in_the_address_and_comes_back(site):
    with browsed() as page:
        page.goto((site / "leaderboard.html").as_uri())
        metrics = page.get_by_label("metric", exact=True)
        wanted = metrics.locator("option").last.inner_text()
        metrics.select_option(wanted)
        told, address = page.locator("[data-filter] output").inner_text(), page.url
        assert f"metric={wanted}" in address
    with browsed() as page:
        page.goto(address)
        assert page.get_by_label("metric", exact=True).input_value() == wanted
        assert page.locator("[data-filter] output").inner_text() == told


def test_the_search_needs_no_mouse(site):
    with browsed(viewport={"width": 390, "height": 844}) as page:
        page.goto((site / "gallery.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("rollout undecided notebook 01")
        hits = page.locator("[data-search] li a")
        assert 1 < hits.count() <= 12 and all("undecided" in text for text in hits.all_inner_texts())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
        first = hits.first.get_attribute("href")
        assert page.evaluate("document.activeElement.getAttribute('href')") == first
        page.keyboard.press("Escape")
        assert not hits.count() and page.evaluate("document.activeElement.type") == "search"
        page.keyboard.type("rollout undecided notebook 01")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/{first}")
        page.keyboard.press("/")
        page.keyboard.type("no such words")
        assert page.locator("[data-search] ul").inner_text() == "0 found" and not hits.count()
