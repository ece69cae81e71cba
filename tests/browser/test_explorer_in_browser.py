"""The explorer as a person uses it, in JupyterLab and as an app: drag, hover, click, type, export, make mistakes."""

import hashlib
import http.client
import io
import os
import re
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from tests.browser import lab
from xai_utils import models, samples
from xai_utils.widgets.explorer import decided, view

pytestmark = pytest.mark.browser
(NOTEBOOK,) = [path for path in lab.NOTEBOOKS if path.name.startswith("10")]
SENTENCE = "a dull film with one bright scene"


class Seen:
    """The explorer in a page."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".linked").first
        self.root.wait_for()

    @property
    def title(self) -> str:
        return self.root.locator(".linked-title").inner_text()

    @property
    def status(self) -> str:
        return self.root.locator(".linked-status").inner_text()

    @property
    def message(self) -> str:
        return " ".join(self.page.locator("p[role=alert]:not(.linked-lost)").all_inner_texts())

    def drawing(self) -> str:
        """Return what is painted on the main picture."""
        return self.root.locator(".linked-picture").evaluate("it => it.toDataURL()")

    def box(self, label: str):
        """Return the text field with this label."""
        return self.page.get_by_label(label, exact=True)

    def choose(self, label: str, value: str) -> None:
        field = self.box(label)
        field.fill(value)
        field.press("Tab")

    def until(self, condition, what: str) -> None:
        lab.wait_for(condition, lab.PATIENCE, f"{what}; the message is: {self.message!r}")


def test_in_jupyterlab(address, tmp_path):
    with lab.opened(address, NOTEBOOK, tmp_path) as page:
        assert len(lab.cells(page)) > 10, "the whole notebook"
        lab.run_all(page)
        seen = Seen(page)
        seen.root.scroll_into_view_if_needed()
        page.screenshot(path=lab.SHOTS / "10_explorer_picture.png")
        check_dragging(seen, 5)  # four methods, and rollout after the change
        check_hovering_and_clicking(seen)
        check_a_sentence_and_a_second_model(seen)
        check_mistakes(seen)
        assert not lab.errors(page)


def check_dragging(seen, count):
    slider = seen.page.locator(".widget-hslider", has_text="layer").first.locator(".noUi-handle")
    for layer in (6, 5):
        before = seen.drawing()
        slider.focus()
        seen.page.keyboard.press("ArrowLeft")
        seen.until(lambda layer=layer: f"layer {layer}," in seen.title, f"layer {layer}")
        seen.until(lambda before=before: seen.drawing() != before, "a redraw")
    maps = seen.root.locator(".linked-maps canvas")
    assert maps.count() == count
    assert all(maps.nth(n).evaluate("it => it.width") == 200 for n in range(count))


def check_hovering_and_clicking(seen):
    picture = seen.root.locator(".linked-picture")
    before, said = seen.drawing(), seen.status
    assert said.startswith("[CLS] reads: ")
    picture.hover(position={"x": 150, "y": 90})
    assert seen.status.startswith("4,7 reads: ") and seen.drawing() != before
    seen.root.locator(".linked-title").hover()
    assert seen.status == said and seen.drawing() == before
    picture.click(position={"x": 150, "y": 90})
    seen.root.locator(".linked-title").hover()
    seen.until(lambda: seen.status.startswith("4,7 reads: "), "the chosen patch")
    picture.press("ArrowRight")
    seen.until(lambda: seen.status.startswith("4,8 reads: "), "the patch on its right")
    seen.root.locator(".linked-heads button").nth(2).click()
    seen.until(lambda: "head 1" in seen.title, "head 1 enlarged")
    seen.page.get_by_label("numbers as a table").check()
    rows = seen.root.locator(".linked-table tbody tr")
    seen.until(lambda: rows.count() == 197, "the table")
    assert "read by 4,8" in seen.root.locator(".linked-table thead").inner_text()
    seen.page.get_by_label("numbers as a table").uncheck()


def check_taking_away(seen):
    """Masking tells the probability that the package gives; the first five of a map go beside random ones."""
    model = models.load("vit-scenes")
    shown = view.capture(model, samples.picture("scene:3:2"), None)
    assert seen.root.locator(".linked-decision").inner_text() == decided.said(model, shown.logits)
    assert seen.root.locator(".linked-input img").is_visible()
    told, taken = seen.root.locator(".linked-told"), seen.root.get_by_role("button", name="take away by click")
    taken.click()
    seen.root.locator(".linked-picture").click(position={"x": 150, "y": 90})
    patch = view.names_of(shown).index("4,7") - shown.batch.prefix
    seen.until(lambda: told.count() and decided.told(shown, [patch]) in told.inner_text(), "the new probability")
    taken.click()
    seen.root.get_by_role("button", name="put all back").click()
    seen.until(lambda: not told.count(), "the whole input")
    seen.root.locator(".linked-best").last.click()
    seen.until(lambda: told.count() and "as many at random" in told.inner_text(), "five of a map and five at random")
    if "XAI_SHOT" in os.environ:  # the README's picture is this very moment
        keep_small(seen.page.screenshot(), os.environ["XAI_SHOT"])
    seen.root.get_by_role("button", name="put all back").click()
    seen.until(lambda: not told.count(), "the whole input")


def check_overview(seen):
    """A click in the overview enlarges that head; lines begin at the chosen patch and end at what it reads."""
    seen.page.get_by_role("checkbox", name="all layers and heads").check()
    seen.page.get_by_label("lines", exact=True).check()
    seen.until(lambda: seen.root.locator(".linked-lines path").count() == 24, "the lines")
    some = seen.root.locator(".linked-overview button")
    seen.until(lambda: some.count() == 36, "twelve layers of three heads")
    seen.page.get_by_role("button", name="layer 3, head 1").click()
    seen.until(lambda: seen.title.endswith("layer 3, head 1"), "the head that was clicked")
    assert seen.page.get_by_role("button", name="layer 3, head 1").get_attribute("aria-pressed") == "true"
    seen.root.locator(".linked-overview").scroll_into_view_if_needed()
    seen.page.screenshot(path=lab.SHOTS / "10_explorer_overview.png")


def check_two_browsers(first, where):
    """A second page has a kernel of its own: what is chosen in one changes nothing in the other."""
    page, said = first.page.context.new_page(), first.title
    page.goto(where, timeout=lab.PATIENCE * 1000)
    second = Seen(page)
    second.until(lambda: "layer 7, mean of heads" in second.title, "the first view again")
    second.root.locator(".linked-heads button").last.click()
    second.until(lambda: second.title.endswith("layer 7, head 2"), "head 2 enlarged")
    assert first.title == said
    page.close()


def check_a_kernel_that_dies(seen, server):
    """The page says so, and keeps what it shows."""
    lost = seen.root.get_by_text("The kernel does not answer")
    assert not lost.is_visible()
    before = seen.drawing()
    for child in psutil.Process(server.pid).children(recursive=True):
        child.kill()
    seen.until(lost.is_visible, "a line about the kernel")
    assert seen.drawing() == before


def keep_small(shot: bytes, path: str) -> None:
    """Write a screenshot in 256 colours."""
    whole = Image.open(io.BytesIO(shot)).convert("RGB")
    few = whole.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    assert os.path.getsize(path) <= 200_000, f"{path} is too large for a README"


def check_keyboard(page):
    """Tab reaches every control that is not grey, those of the picture too."""
    wanted = page.evaluate(
        """() => {
            const kinds = "input, select, textarea, button, summary, .noUi-handle, canvas[tabindex]";
            const all = document.querySelectorAll(kinds);
            window.controls = Array.from(all).filter((it) => !it.disabled && it.tabIndex >= 0 && it.offsetParent
                && !it.closest("[disabled]"));
            window.controls[0].focus();
            return window.controls.map((it) => it.ariaLabel || it.innerText || it.title || it.outerHTML);
        }"""
    )
    reached = {0}
    for _ in range(len(wanted) + 10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => window.controls.indexOf(document.activeElement)"))
    assert len(wanted) > 40 and set(range(len(wanted))) <= reached, [
        name for place, name in enumerate(wanted) if place not in reached
    ]


def check_a_sentence_and_a_second_model(seen):
    seen.choose("model", "minilm-sst2")
    seen.until(lambda: "minilm-sst2" in seen.title, "the text model")
    seen.choose("input", SENTENCE)
    words = seen.root.locator(".linked-main .linked-token")
    seen.until(lambda: "dull" in words.all_inner_texts(), "the sentence")
    words.get_by_text("dull", exact=True).hover()
    assert seen.status.startswith("dull reads: ")
    words.get_by_text("bright", exact=True).click()
    seen.root.locator(".linked-title").hover()
    seen.until(lambda: seen.status.startswith("bright reads: "), "the chosen word")
    seen.choose("second model", "bert12-sst2")
    seen.until(lambda: seen.page.locator(".linked").count() == 2, "a second picture")
    second = seen.page.locator(".linked").nth(1)
    assert "bert12-sst2" in second.locator(".linked-title").inner_text()
    assert second.locator(".linked-status").inner_text().startswith("bright reads: ")
    seen.page.screenshot(path=lab.SHOTS / "10_explorer_sentence.png")
    seen.page.get_by_role("button", name="Export view").click()
    seen.until(lambda: "written into" in seen.message and ".yml" in seen.message, "the export")


def check_mistakes(seen):
    for label, wrong, words in (
        ("model", "hf:no/such", "not in the hub cache"),
        ("model", "minilm-sst2", ""),
        ("input", " ", "at least one word"),
        ("second model", "vit-scenes", "same kind"),
    ):
        seen.choose(label, wrong)
        seen.until(lambda words=words: words in seen.message and bool(words) == bool(seen.message), wrong)
    assert "minilm-sst2" in seen.title and "Traceback" not in seen.message


def test_as_an_app(tmp_path):
    port, before = lab.free_port(), kept()
    command = [sys.executable, "-m", "xai_utils", "app", "--no-browser", f"--port={port}"]
    views = str(tmp_path / "views")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(lab.ROOT), "XAI_VIEWS": views}
    environment.pop("XAI_FIGURES", None)
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + lab.PATIENCE
        while not answers(port):
            assert server.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.5)
        token = re.search(r"token=(\w+)", (tmp_path / "log").read_text())[1]
        check_who_is_answered(port, token)
        with lab.browsing(tmp_path / "profile", "10_explorer_app") as page:
            page.goto(f"http://127.0.0.1:{port}/?token={token}", timeout=lab.PATIENCE * 1000)
            seen = Seen(page)
            page.set_viewport_size({"width": 1280, "height": 800})
            assert seen.root.locator(".linked-picture").bounding_box()["y"] < 300, "the picture is in the first screen"
            page.screenshot(path=lab.SHOTS / "10_explorer_app_first.png")
            check_dragging(seen, 4)
            assert page.get_by_label("class", exact=True).get_attribute("placeholder") == "predicted"
            check_taking_away(seen)
            check_keyboard(page)
            check_overview(seen)
            check_two_browsers(seen, page.url)
            check_a_kernel_that_dies(seen, server)
            assert kept() == before, "the app writes into exported_views only"
            assert not page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count()
    finally:
        server.terminate()
        server.wait(30)


def kept() -> dict[str, str]:
    """Return the hash of the explorer's notebook and of every figure and record of it."""
    found = [*(lab.ROOT / "figures").glob("10_*"), NOTEBOOK]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in found if file.is_file()}


def check_who_is_answered(port: int, token: str) -> None:
    """The page is for who has the token, under a name of the loopback: nobody else gets a page or a kernel."""
    assert reply(port, "/") == (302, "/login")
    assert reply(port, f"/?token={token[:-1]}x") == (302, "/login")
    assert reply(port, f"/?token={token}", host="example.org")[0] == 403
    assert reply(port, "/", host="example.org")[0] == 403
    kernel = "/api/kernels/00000000-0000-0000-0000-000000000000"
    assert reply(port, kernel)[0] == 403
    socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
              "Sec-WebSocket-Version": "13", "Origin": "http://example.org"}  # fmt: skip
    assert reply(port, f"{kernel}/channels", **socket)[0] == 403
    assert reply(port, f"{kernel}/channels?token={token}", **socket)[0] in (403, 404), "never 101, a connection"


def reply(port: int, path: str, host: str = "", **headers: str) -> tuple[int, str]:
    """Return status and where a request is sent on to, without its question."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}", **headers})
        answer = connection.getresponse()
        return answer.status, (answer.getheader("Location") or "").partition("?")[0]
    finally:
        connection.close()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/voila/static/voila.js")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()
