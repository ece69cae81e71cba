"""Tiny models that scoring finds by name."""

import pytest
import tiny

from xai_utils import models
from xai_utils.evaluation import probe


@pytest.fixture
def known(monkeypatch):
    """Let tiny models be found by name, and nothing be remembered of the ones before."""
    made = {name: tiny.model(name) for name in ("bert", "timm-vit", "resnet")}
    made["attention"] = tiny.attention_classifier()
    monkeypatch.setattr(models, "shared", lambda name, device="cpu": made[name])
    probe._memory.clear()
    return made
