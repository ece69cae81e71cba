"""The start of a notebook: draws, device and what is recorded."""

import gc
import json
import logging
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from xai_utils import runtime


@pytest.fixture(autouse=True)
def record(monkeypatch):
    monkeypatch.setattr(runtime, "record", runtime.Record())
    return runtime.record


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(())), float(np.random.randn())


def test_the_same_seed_draws_the_same_everywhere():
    runtime.start({"SEED": 3, "DEVICE": "cpu"})
    first = draws()
    runtime.start({"SEED": 3, "DEVICE": "cpu"})
    assert draws() == first
    runtime.start({"SEED": 4, "DEVICE": "cpu"})
    assert not set(draws()) & set(first)


def test_upper_case_literals_are_the_parameters(record):
    names = {
        "SEED": 1,
        "DEVICE": "cpu",
        "LAYER": -1,
        "DISCARD": 0.9,
        "EXACT": True,
        "MODELS": ["a", "b"],
        "TARGET": None,
        "LAYERS": (0, -1),
        "RULES": {"attention": [0.5, None], "depth": {3: True}},
    }
    tables = {"TABLE": {"a": os}, "PAIR": (1, print), "DEEP": [{"a": {1, 2}}], "KEYS": {(0, 1): 1}}
    runtime.start({**names, **tables, "lower": 1, "_HIDDEN": 2, "Mixed": 3, "MODULE": os, "FUNCTION": print})
    assert record.parameters == names


def test_a_new_start_begins_a_new_record(record):
    record.models["old"], record.data["old"] = {"source": "old"}, "old"
    runtime.start({"SEED": 1, "OTHER": 2, "DEVICE": "cpu"})
    assert (record.models, record.data) == ({}, {})
    runtime.start({"SEED": 1, "DEVICE": "cpu"})
    assert record.parameters == {"SEED": 1, "DEVICE": "cpu"}


def test_the_record_names_versions_but_no_time_and_no_place(record):
    runtime.start({"SEED": 1, "DEVICE": "cpu"})
    found = record.as_dict()
    assert found == runtime.record.as_dict() == json.loads(json.dumps(found))
    assert set(found) == {"parameters", "device", "models", "data", "versions"}
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", *runtime.LIBRARIES} == set(found["versions"])
    assert found["device"] == "cpu" and str(runtime.ROOT) not in json.dumps(found)


def test_the_device_is_the_named_one():
    assert runtime.start({"SEED": 1, "DEVICE": "cpu"}) == torch.device("cpu")
    chosen = runtime.start({"SEED": 1})
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert chosen.type == runtime.device().type == best
    torch.ones(1, device=chosen)


def test_threads_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        runtime.start({"SEED": 1, "DEVICE": "cpu"}, threads=before + 1)
        assert torch.get_num_threads() == before + 1
        runtime.start({"SEED": 1, "DEVICE": "cpu"})
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_libraries_are_quiet():
    transformers.logging.set_verbosity_info()
    runtime.quiet()
    assert transformers.logging.get_verbosity() == logging.ERROR
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    said = (
        "from xai_utils import runtime; runtime.quiet(); from datasets.utils import are_progress_bars_disabled as off"
    )
    told = subprocess.run([sys.executable, "-c", f"{said}; print(off())"], capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"


def test_a_notebook_collects_garbage_as_python_does_and_not_what_was_imported():
    gc.set_threshold(50_000)
    runtime.start({"SEED": 1, "DEVICE": "cpu"})
    assert gc.get_threshold()[0] == 700 and gc.get_freeze_count() > 100_000
    gc.unfreeze()


# Refusals


def test_a_device_that_fails_without_a_message_is_named(monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ValueError, match="DEVICE is 'cpu', which torch cannot use here: AssertionError"):
        runtime.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"DEVICE is '{name}', which torch cannot use here: .*Try 'auto' or 'cpu'"):
        runtime.device(name)
    with pytest.raises(ValueError, match=f"DEVICE is '{name}'"):
        runtime.start({"SEED": 1, "DEVICE": name})


def test_a_refused_device_leaves_the_record_alone(record):
    record.parameters = {"SEED": 9}
    with pytest.raises(ValueError, match="abacus"):
        runtime.start({"SEED": 1, "DEVICE": "abacus"})
    assert record.parameters == {"SEED": 9}


def test_a_missing_seed_is_named_with_what_is_there():
    with pytest.raises(ValueError, match=r"no SEED among the parameters \(LAYER, MODEL\)"):
        runtime.start({"LAYER": 1, "MODEL": "x", "seed": 3})
    with pytest.raises(ValueError, match=r"none at all"):
        runtime.start({})


def test_every_worker_has_a_gpu_of_its_own(monkeypatch):
    assert runtime.own_device("cpu", 3) == torch.device("cpu")
    monkeypatch.setattr(runtime, "device", lambda name: torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(runtime.own_device("cuda", place)) for place in (0, 1)] == ["cuda", "cuda:1"]
    assert str(runtime.own_device("cuda:1", 1)) == "cuda:1"
    with pytest.raises(ValueError, match="worker 3 has no GPU of its own: there are 2"):
        runtime.own_device("cuda", 2)


def test_a_list_given_as_one_string_is_said():
    with pytest.raises(ValueError, match=r"METHODS is 'rollout', expected a list.* -y 'METHODS: \[rollout\]'"):
        runtime.start({"SEED": 0, "METHODS": "rollout", "DEVICE": "cpu"})
