"""The app's own settings; that they keep strangers out is tried in a browser's place by ``tests/browser``."""

import subprocess
import sys

import nbformat
import pytest

from xai_utils import models, runtime
from xai_utils.__main__ import main
from xai_utils.methods import METHODS
from xai_utils.widgets import explorer
from xai_utils.workbook import serve


@pytest.fixture
def app():
    one = serve.App()
    one.initialize(["--token", "--no-browser", "--port=0", str(serve.NOTEBOOK)])
    yield one
    serve.App.clear_instance()


def test_only_names_of_the_loopback_are_answered_and_a_token_is_asked_for(app):
    settings = app.init_settings()
    assert settings["allow_remote_access"] is False and settings["local_hostnames"] == ["localhost"]
    assert len(app.identity_provider.token) > 30 and app.identity_provider.token_generated
    assert app.connection_url.endswith(f"?token={app.identity_provider.token}")


def test_the_server_imports_no_model():
    """Or the kernel, and with it the first picture, waits for what only the kernel needs."""
    asked = "import sys; from xai_utils.workbook import serve; print({'torch', 'transformers'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_the_command_says_what_it_takes(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(serve, "serve", lambda *arguments: asked.append(arguments))
    assert main(["app", "--port", "9000", "--no-browser"]) == 0 and asked == [(9000, False, serve.NOTEBOOK)]
    assert main(["app", "--prt", "9"]) == 2 and "Did you mean --port?" in capsys.readouterr().err


def test_the_page_asks_for_a_first_view_that_the_models_can_give(monkeypatch):
    """What it then shows is looked at in a browser; here models are tiny."""
    (cell,) = nbformat.read(serve.NOTEBOOK, as_version=4).cells
    asked = []
    monkeypatch.setattr(runtime, "record", runtime.Record())
    monkeypatch.setattr(explorer, "explore", lambda request, device: asked.append(request))
    exec(compile(cell.source, "the page", "exec"), {})
    (request,) = asked
    assert request.model in models.MODELS and set(request.methods) <= set(METHODS)
    assert request == explorer.Request(methods=request.methods, layer=7)
