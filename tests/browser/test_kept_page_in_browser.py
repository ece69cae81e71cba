"""An exported page as a person sees it: opened from disk, without a kernel, every layer and head to be chosen."""

import pytest
from playwright.sync_api import sync_playwright

from tests.browser import lab
from xai_utils.widgets.explorer import Request, captured, page, view

pytestmark = pytest.mark.browser
ASKED = Request(model="minilm-sst2", sample="a dull film with one bright scene", methods=("rollout",), layer=2)


def reads(one, row):
    """Say what a row reads most, as the page does."""
    names, most = view.names_of(one), row.topk(4)
    return ", ".join(f"{names[i]} {value:#.3g}" for value, i in zip(*(part.tolist() for part in most), strict=True))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    shown, file = captured(ASKED), tmp_path_factory.mktemp("kept") / "view.html"
    file.write_text(page.page(ASKED, shown, "a kept view"))
    return file.as_uri(), shown["first"]


def test_layers_heads_and_positions_are_chosen_without_a_kernel(kept):
    address, one = kept
    said = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=lab.chromium(), headless=True, args=lab.FLAGS)
        seen = browser.new_page()
        seen.on("console", lambda message: said.append(message.text))
        seen.on("pageerror", lambda error: said.append(str(error)))
        seen.goto(address)
        layers, heads = one.attention.shape[:2]
        seen.locator(".linked-overview button").nth(layers * heads - 1).wait_for()
        title, status = seen.locator(".linked-title"), seen.locator(".linked-status")
        assert status.inner_text() == f"[CLS] reads: {reads(one, one.attention[2, :, 0].mean(0))}"
        seen.get_by_role("button", name="layer 4, head 1", exact=True).press("Enter")
        assert title.inner_text() == "minilm-sst2: layer 4, head 1"
        assert status.inner_text() == f"[CLS] reads: {reads(one, one.attention[4, 1, 0])}"
        before = seen.locator(".linked-overview canvas").first.evaluate("it => it.toDataURL()")
        seen.locator(".linked-main .linked-token").get_by_text("bright", exact=True).click()
        title.hover()
        place = view.names_of(one).index("bright")
        assert status.inner_text() == f"bright reads: {reads(one, one.attention[4, 1, place])}"
        assert seen.locator(".linked-overview canvas").first.evaluate("it => it.toDataURL()") != before
        seen.locator(".linked-heads").get_by_role("button", name="mean").click()
        assert title.inner_text() == "minilm-sst2: layer 4, mean of heads"
        assert status.inner_text() == f"bright reads: {reads(one, one.attention[4, :, place].mean(0))}"
        browser.close()
    assert not said
