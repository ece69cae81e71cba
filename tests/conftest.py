"""Fixtures shared by the tests."""

import pytest

from xai_utils import models, runtime


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    runtime.quiet()


@pytest.fixture(scope="session")
def minilm(_quiet):
    return models.load("minilm")
