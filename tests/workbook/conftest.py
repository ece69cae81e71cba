"""Folders of projects made up here."""

import pytest

from tests.workbook import made_up
from xai_utils.workbook import runs


@pytest.fixture
def places(tmp_path):
    (tmp_path / "notebooks").mkdir()
    return runs.Places(tmp_path, tmp_path / "notebooks", tmp_path / "runs", tmp_path / "figures")


@pytest.fixture
def project(tmp_path):
    return made_up.project(tmp_path / "project")
