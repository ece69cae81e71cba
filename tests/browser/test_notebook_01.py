"""Notebook 01 as a person sees it: JupyterLab in headless Chromium, every cell run, one slider moved by keyboard."""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = next((ROOT / "notebooks").glob("01_*.ipynb"))
SHOTS = ROOT / "screenshots"
PATIENCE = 300  # seconds, for a slow machine
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Every cell is in the page, in view or not; JupyterLab asks nobody for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = pytest.mark.browser


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("no Chromium here, so nothing was seen; install it: apt-get update && apt-get install -y chromium")


def free_port() -> int:
    with socket.socket() as waiting:
        waiting.bind(("127.0.0.1", 0))
        return waiting.getsockname()[1]


def answers(port: int, token: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/api/status?token={token}")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Serve a copy of the notebook, outputs stripped, from a folder of its own; yield its address."""
    home = tmp_path_factory.mktemp("lab")
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    (home / "served").mkdir()
    (home / "served" / NOTEBOOK.name).write_text(json.dumps(notebook))
    settings = home / "settings/@jupyterlab"
    for extension, choice in SETTINGS.items():
        (settings / extension).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{extension}.jupyterlab-settings").write_text(json.dumps(choice))
    port, token = free_port(), secrets.token_hex(16)
    folders = {
        name: str(home / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XAI_FIGURES")
    }
    environment = {
        **os.environ, **folders, "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'served'}", "--ServerApp.port_retries=0",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(port, token):
            assert server.poll() is None and time.monotonic() < end, (home / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture
def page(lab, tmp_path):
    """Open the notebook in a fresh browser; nothing may be asked of another machine."""
    SHOTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium(), headless=True, args=FLAGS,
            viewport={"width": 1400, "height": 1000},
        )  # fmt: skip
        opened, asked = browser.pages[0], []
        opened.on("request", lambda request: asked.append(request.url))
        opened.set_default_timeout(PATIENCE * 1000)
        opened.goto(lab, timeout=PATIENCE * 1000)
        try:
            yield opened
        finally:
            opened.screenshot(path=SHOTS / "notebook_01_end.png")
            browser.close()
        foreign = {url for url in asked if url.startswith("http") and not url.startswith("http://127.0.0.1:")}
        assert len(asked) > 10 and not foreign


def cells(page: Page) -> list[dict]:
    """Return every code cell's number and outputs."""
    return page.evaluate(
        """() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells)
            .filter(cell => cell.type === 'code')
            .map(cell => ({number: cell.executionCount, outputs: cell.outputs.toJSON()}))"""
    )


def kernel(page: Page) -> str:
    """Return what the kernel is doing."""
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status ?? 'none'")


def wait_for(condition, seconds: int, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.5)


def errors(page: Page) -> list[str]:
    """Return every error in the notebook, without the colours of the terminal."""
    kinds = [output for cell in cells(page) for output in cell["outputs"] if output["output_type"] == "error"]
    return [f"{output['ename']}: {output['evalue']}" for output in kinds]


def finished(page: Page) -> bool:
    """Say whether every cell has run and the kernel rests; an error ends the waiting."""
    assert not errors(page), errors(page)
    return all(cell["number"] for cell in cells(page)) and kernel(page) == "idle"


def test_every_cell_runs_and_a_slider_redraws(page):
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    wait_for(lambda: kernel(page) == "idle", PATIENCE, "the kernel")
    page.screenshot(path=SHOTS / "notebook_01_opened.png")
    assert len(cells(page)) > 10 and not any(cell["number"] for cell in cells(page))

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    wait_for(lambda: finished(page), 2 * PATIENCE, "every cell")
    streams = {output.get("name") for cell in cells(page) for output in cell["outputs"]}
    assert "stderr" not in streams and "stdout" in streams

    explorer = page.locator(".jp-OutputArea-output", has=page.locator(".widget-image")).first
    slider = explorer.locator(".widget-hslider", has_text="layer").first
    image, note = explorer.locator(".widget-image").first, explorer.locator(".widget-html").first
    explorer.scroll_into_view_if_needed()
    image.wait_for()
    explorer.screenshot(path=SHOTS / "notebook_01_widget_before.png")

    def seen() -> tuple[str, str]:
        """Return what tells one picture and one note from another; the note ends in the time it took."""
        return image.get_attribute("src"), note.inner_text().partition(" (")[0]

    def looks_right() -> bool:
        return note.inner_text().startswith("strongest: ") and image.evaluate("it => it.naturalWidth") > 300

    readout = slider.locator(".widget-readout")
    layer, last = int(readout.inner_text()), seen()
    assert looks_right()
    slider.locator(".noUi-handle").focus()
    for step in (1, 2):
        page.keyboard.press("ArrowLeft")
        wait_for(
            lambda before=last: all(new != old for new, old in zip(seen(), before, strict=True)), PATIENCE, "a redraw"
        )
        last = seen()
        assert int(readout.inner_text()) == layer - step and looks_right()
    explorer.screenshot(path=SHOTS / "notebook_01_widget_after.png")
    assert not errors(page)
