"""Folders of a trial sweep."""

import os
import sys

import pytest
from places import ROOT


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "parts"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Return where workers note down what they do."""
    made = tmp_path / "notes"
    made.mkdir()
    monkeypatch.setenv("SWEEP_NOTES", str(made))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), *sys.path]))
    return made
