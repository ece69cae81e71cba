"""One JupyterLab for all tests of a process."""

import pytest

from tests.browser import lab


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with lab.served(tmp_path_factory.mktemp("lab")) as where:
        yield where
