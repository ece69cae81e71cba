"""Notebooks that a reader only opens stay as they are, byte by byte, although JupyterLab saves them by itself."""

import shutil

import pytest

from tests.browser import lab

pytestmark = pytest.mark.browser


def test_every_notebook_is_saved_as_it_was_opened(tmp_path):
    """With its kernel running, which is what JupyterLab writes into the file as soon as it saves."""
    with lab.served(tmp_path, copy=shutil.copy) as address:
        for notebook in lab.NOTEBOOKS:
            with lab.opened(address, notebook, tmp_path / notebook.stem) as page:
                page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")
                stored = tmp_path / "served" / notebook.name
                assert stored.stat().st_mtime_ns > notebook.stat().st_mtime_ns, "it was saved"
                assert stored.read_bytes() == notebook.read_bytes(), notebook.name
