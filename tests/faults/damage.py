"""Damage every kind of file that the workbook reads, and see that it is named or made again, never read as if whole.

A *kind* is a file, how it is read, and what it gives when it is whole. After the damage, reading has to raise an error
that names the file, or give just what the whole file gives (a blank more in a JSON file is no damage). Anything else is
silent.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from xai_utils import models, runtime, samples
from xai_utils.samples import folders
from xai_utils.sweep import parts
from xai_utils.sweep import plan as sweep_plan
from xai_utils.workbook import execute, runs
from xai_utils.workbook.report import sources

RAISED = (ValueError, OSError, RuntimeError)  # what the command line turns into one line


def cut(content: bytes, noise: np.random.Generator) -> bytes:
    return content[: int(noise.integers(0, len(content)))]


def flip(content: bytes, noise: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for place in noise.integers(0, len(content), 3):
        damaged[place] ^= 1 << int(noise.integers(8))
    return bytes(damaged)


def blank(content: bytes, noise: np.random.Generator) -> bytes:
    start = int(noise.integers(0, max(1, len(content) - 64)))
    return content[:start] + bytes(min(64, len(content) - start)) + content[start + 64 :]


def nothing(_content: bytes, _noise: np.random.Generator) -> bytes:
    return b""


def other(_content: bytes, noise: np.random.Generator) -> bytes:
    kinds = (
        b"\x89PNG\r\n\x1a\n",
        b"[]",
        b"null",
        b"<html>not found</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
    )
    return kinds[int(noise.integers(len(kinds)))]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (cut, flip, blank, nothing, other)


@dataclass(frozen=True)
class Kind:
    """One file: ``make`` lays it out in a folder and returns its path, ``read`` reads it back."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    again: bool = False  #: a damaged one counts as none, and is made again: reading gives ``None``


def _of_model(name: str, file: str) -> Kind:
    def make(folder: Path) -> Path:
        shutil.copytree(runtime.DATA / "models" / name, folder / "models" / name)
        return folder / "models" / name / file

    def read(path: Path) -> str:
        held, runtime.DATA = runtime.DATA, path.parent.parent.parent
        try:
            found = models.load(name)
            return found.sha256, found.classes, found.preprocessing, str(models.table._reader(found.tokenizer))
        finally:
            runtime.DATA = held

    return Kind(make, read)


def _write(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def _picture(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"dog.{kind}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        return path

    return make


def _part(folder: Path) -> Path:
    path = folder / "part.parquet"
    parts.write(pd.DataFrame({"value": np.arange(500.0)}), path, {"key": "k"})
    return path


def _read_part(path: Path) -> Any:
    found = parts.read(path, "k")
    return None if found is None else found.value.tolist()


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def _places(folder: Path) -> runs.Places:
    return runs.Places(folder, folder / "notebooks", folder / "runs", folder / "figures")


def _finished(ending: str) -> Callable[[Path], Path]:
    """Lay out a run that finished: its copy, its record, a figure."""

    def make(folder: Path) -> Path:
        places = _places(folder)
        places.notebooks.mkdir()
        cells = [{"cell_type": "code", "source": "SEED = 0", "metadata": {"tags": ["parameters"]}, "outputs": [],
                  "execution_count": None, "id": "a"}]  # fmt: skip
        notebook = {
            "cells": cells,
            "metadata": {"kernelspec": KERNEL},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (places.notebooks / "01_dots.ipynb").write_text(json.dumps(notebook))
        (job,) = runs.plan(places)
        job.folder.mkdir(parents=True)
        copy = job.file(".123.partial.ipynb")
        shutil.copy(places.notebooks / "01_dots.ipynb", copy)
        whole = {"notebook": "01_dots", "key": job.key, "status": "finished", "failure": {}, "figures": {}}
        execute._publish(job, copy, whole)
        return job.file(ending)

    return make


def _read_finished(path: Path) -> Any:
    (job,) = runs.plan(_places(path.parent.parent.parent))
    return runs.finished(job)


def _figure(folder: Path) -> Path:
    path = folder / "figures" / "01_dot.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 30), "white").save(path)
    about = dict.fromkeys(sources.PROVENANCE, "") | {"figure": "01_dot", "models": {}}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path.with_suffix(".json")


def _sentences(path: Path) -> Any:
    return [vars(one) for one in samples.bundled.labelled(path)[0]]


PLAN = "seed: 3\ncells:\n  - {models: [minilm-sst2], methods: all, samples: {set: reviews, count: 3}}\n"
RUNS = "default: {}\nbig: {about: more of it, parameters: {SIZE: 3}, notebooks: ['01']}\n"
LABELS = "text,label\na good film,1\na bad film,0\n"

KINDS = {
    "weights of a vision model": _of_model("vit-shortcut", "model.safetensors"),
    "card of a vision model": _of_model("vit-shortcut", "card.json"),
    "weights of an adapter": _of_model("minilm-sst2", "adapter_model.safetensors"),
    "settings of an adapter": _of_model("minilm-sst2", "adapter_config.json"),
    "tokenizer of a Mamba": _of_model("mamba-recall", "tokenizer.json"),
    "settings of a Mamba": _of_model("mamba-recall", "config.json"),
    "picture, PNG": Kind(_picture("png"), lambda path: samples.picture(path).image.tobytes()),
    "plan of a sweep": Kind(_write("plan.yml", PLAN), sweep_plan.read),
    "named runs": Kind(_write("runs.yml", RUNS), lambda path: runs.read(runs.Places(notebooks=path.parent), "big")),
    "part of a sweep": Kind(_part, _read_part, again=True),
    "record of a run": Kind(_finished(".json"), _read_finished, again=True),
    "executed notebook of a run": Kind(_finished(".ipynb"), _read_finished, again=True),
    "record of a figure": Kind(_figure, lambda path: sources.read_figures(path.parent)[0].about),
    "labelled sentences": Kind(_write("own.csv", LABELS), _sentences),
    "classes of photographs": Kind(_write("classes.json", '{"dog": [1, 2]}'), folders._classes),
}  # fmt: skip
#: plain text that no hash guards: another letter in it is another text, and nobody can know
OPEN = (
    "plan of a sweep",
    "named runs",
    "labelled sentences",
    "classes of photographs",
    "record of a figure",
    "picture, PNG",
)


def strike(name: str, folder: Path, noise: np.random.Generator) -> str:
    """Damage one file; return what was silent, or nothing."""
    kind = KINDS[name]
    folder.mkdir(parents=True)
    path = kind.make(folder)
    whole, content = kind.read(path), path.read_bytes()
    damage = DAMAGES[int(noise.integers(len(DAMAGES)))]
    if damage is flip and name in OPEN:
        damage = cut
    path.write_bytes(damage(content, noise))
    if path.read_bytes() == content:
        return ""
    try:
        found = kind.read(path)
    except RAISED as error:
        return "" if _named(str(error), path) else f"{name}, {damage.__name__}: {str(error)[:200]!r} names no file"
    if found == whole or (kind.again and found is None):
        return ""
    if name in OPEN and damage in (cut, blank) and _shorter(path):
        return ""
    return f"{name}, {damage.__name__}: read as if whole"


def _named(said: str, path: Path) -> bool:
    return path.name in said or path.stem in said or path.parent.name in said


def _shorter(path: Path) -> bool:
    """Whether a damaged text is a text of its own: cut between two lines it says less, and nobody can know."""
    return path.suffix in (".yml", ".csv")
