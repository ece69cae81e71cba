"""Fixtures shared by the tests."""

import pytest
from places import ROOT

from xai_utils import models, runtime, settings

#: seconds that the longest files take, about; of a notebook as notebooks/runs.yml says
LONG = {
    "test_notebooks_in_lab.py": 100, "test_explorer_in_browser.py": 60, "test_notebooks_are_opened.py": 50,
    "test_precision.py": 43, "test_language_in_browser.py": 30, "test_kept_page_in_browser.py": 30, "test_twins.py": 90,
    "test_on_prompts.py": 22, "test_report_in_browser.py": 20, "test_language.py": 18, "test_on_objects.py": 16,
    "test_bundled.py": 14, "test_hubs.py": 12,
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the longest files first, so that no core idles at the end; within a file nothing changes."""
    usual = settings.load(ROOT / "notebooks/runs.yml")["default"]["seconds"]
    items.sort(key=lambda item: -usual.get(item.path.name[:2], LONG.get(item.path.name, 0)))


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    runtime.quiet()


@pytest.fixture(scope="session")
def minilm(_quiet):
    return models.load("minilm")
