"""JupyterLab in headless Chromium, served with copies of the notebooks; what the browser tests share."""

import ast
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import ROOT
from playwright.sync_api import Page, sync_playwright

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOTS = ROOT / "screenshots"
PATIENCE = 300  # seconds, for a slow machine
HOOK = re.search(r"pre_save_hook=(\S+)", (ROOT / "Makefile").read_text())[1]  # as ``make explore`` has it
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Every cell is in the page, in view or not; JupyterLab asks nobody for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


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


def copied(notebook: Path, folder: Path) -> None:
    """Copy a notebook without outputs; one that has more than the explorer's needs no more than its widgets do."""
    content = json.loads(notebook.read_text())
    if not notebook.name.startswith("10"):
        content["cells"] = for_widgets(content["cells"])
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    (folder / notebook.name).write_text(json.dumps(content))


def for_widgets(cells: list[dict]) -> list[dict]:
    """Return the parameters, the widgets and, from the last one back, the statements that make what these need."""
    wanted: set[str] = set()
    kept: list[dict] = []
    for cell in reversed([cell for cell in cells if cell["cell_type"] == "code"]):
        source, lines = "".join(cell["source"]), []
        whole = {"parameters", "widget"} & set(cell["metadata"].get("tags", ()))
        for statement in reversed(ast.parse(source).body):
            made, used = names(statement)
            if whole or made & wanted:
                wanted = wanted - made | used
                lines.insert(0, ast.get_source_segment(source, statement))
        if lines:
            kept.insert(0, {**cell, "source": "\n".join(lines)})
    return kept


def names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the names that a statement makes, and those that it needs."""
    found = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    imported = {alias.asname or alias.name for node in ast.walk(statement) for alias in getattr(node, "names", ())}
    made = {node.id for node in found if isinstance(node.ctx, ast.Store)} | imported
    return made, {node.id for node in found if isinstance(node.ctx, ast.Load)}


@contextmanager
def served(home: Path, copy: Callable[[Path, Path], object] = copied) -> Iterator[str]:
    """Serve copies of all notebooks from a folder of its own; yield the address with NAME for the notebook's name."""
    (home / "served").mkdir()
    for notebook in NOTEBOOKS:
        copy(notebook, home / "served")
    settings = home / "settings/@jupyterlab"
    for extension, choice in SETTINGS.items():
        (settings / extension).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{extension}.jupyterlab-settings").write_text(json.dumps(choice))
    port, token = free_port(), secrets.token_hex(16)
    folders = {
        name: str(home / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "IPYTHONDIR",
            "XAI_FIGURES",
            "XAI_VIEWS",
        )
    }
    environment = {
        **os.environ, **folders, "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'served'}", "--ServerApp.port_retries=0",
        "--LabApp.expose_app_in_browser=True", f"--ContentsManager.pre_save_hook={HOOK}",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(port, token):
            assert server.poll() is None and time.monotonic() < end, (home / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/NAME?token={token}&reset"  # without the tabs of the notebook before
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@contextmanager
def browsing(profile: Path, shot: str) -> Iterator[Page]:
    """Yield a page of a fresh browser; nothing may be asked of another machine. What it shows last is kept."""
    SHOTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=FLAGS,
            viewport={"width": 1400, "height": 1000},
        )  # fmt: skip
        page, asked = browser.pages[0], []
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(PATIENCE * 1000)
        try:
            yield page
        finally:
            page.screenshot(path=SHOTS / f"{shot}.png")
            browser.close()
        foreign = {url for url in asked if url.startswith("http") and not url.startswith("http://127.0.0.1:")}
        assert len(asked) > 10 and not foreign, foreign


@contextmanager
def opened(address: str, notebook: Path, profile: Path) -> Iterator[Page]:
    """Open a notebook in JupyterLab and wait for its kernel; shut the kernel down afterwards."""
    with browsing(profile, f"{notebook.stem}_end") as page:
        page.goto(address.replace("NAME", notebook.name), timeout=PATIENCE * 1000)
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        wait_for(lambda: kernel(page) == "idle", PATIENCE, "the kernel")
        try:
            yield page
        finally:  # or it stays in memory, models and all, while the other notebooks run
            page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


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


def run_all(page: Page) -> None:
    """Run every cell from the menu and wait until the last one is done."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    wait_for(lambda: finished(page), 2 * PATIENCE, "every cell")
    assert "stderr" not in {output.get("name") for cell in cells(page) for output in cell["outputs"]}
