"""Every model that the explorer loads here is a tiny one."""

import pytest
import tiny

from xai_utils import models


@pytest.fixture(autouse=True)
def models_are_tiny(monkeypatch):
    def load(name, device):
        if name not in tiny.ALL + tiny.OTHER:
            raise ValueError(f"no model {name!r}.")
        return tiny.model(name)

    monkeypatch.setattr(models, "load", load)
