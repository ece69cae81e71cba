"""Running text from files or a hub, one passage at a time: what masked language models learn from and are read on."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xai_utils import check, runtime

#: Kinds of file that are read, and by which builder of ``datasets``.
BUILDERS = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".parquet": "parquet"}


def stream(source: str, split: str = "train", column: str = "text") -> Iterator[str]:
    """Yield the passages of a corpus in its own order, cleaned by :func:`clean`; nothing is held in memory.

    Args:
        source: a file (``.txt``: one passage a line; ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``: one a row), a
            folder of such files (read in the order of their names), or of a hub ``owner/name`` or
            ``owner/name:configuration``.
        split: of a hub's data set; files have only ``"train"``.
        column: name of the text column, upper or lower case.

    Raises:
        ValueError: the file or folder holds nothing that can be read, or no such column; it says what there is.
        OSError: the hub's data set is neither cached nor reachable.
    """
    path = Path(source)
    named = path.is_dir() or path.suffix in BUILDERS
    rows = _of_files(path) if named else _of_hub(source, split)
    runtime.record.data[f"passages {path.name if named else source}"] = "files" if named else split
    wanted = ""
    for row in rows:
        if wanted not in row:  # another file may call it otherwise
            wanted = _column(row, column, source)
        if text := clean(row[wanted] or ""):
            yield text


def clean(text: str) -> str:
    """Undo the tokenisation of WikiText: its headings vanish, ``<unk>`` becomes [UNK], marks move to their words."""
    if text.lstrip().startswith("= "):
        return ""
    text = re.sub(r" ?@([-,.])@ ?", r"\1", text.replace("<unk>", "[UNK]"))
    text = re.sub(r" ([,.;:!?)\]])", r"\1", re.sub(r"([(\[]) (?!UNK)", r"\1", text))
    return " ".join(re.sub(r" ('(?:s|re|ve|d|m|ll)?\b)", r"\1", text).split())


def sentences(passage: str) -> list[str]:
    """Cut a passage after full stops, question and exclamation marks that a capital letter, digit or quote follows."""
    return [part for part in re.split(r'(?<=[.!?])\s+(?=["A-Z0-9\[])', passage) if part]


def _of_files(path: Path) -> Iterator[dict[str, Any]]:
    import datasets

    files = sorted(p for p in path.iterdir() if p.suffix in BUILDERS) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f"{path.name} holds no file of {', '.join(BUILDERS)}; one passage a line, or a text column.")
    for file in files:
        tabs = {"sep": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
        builder: Any = BUILDERS[file.suffix]
        yield from datasets.load_dataset(builder, data_files=str(file), split="train", streaming=True, **tabs)


def _of_hub(source: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    name, _, configuration = source.partition(":")
    with said_if_missing(f"the corpus {source} ({split})", "name a file or folder of your own texts"):
        yield from datasets.load_dataset(name, configuration or None, split=split, streaming=True)


@contextmanager
def said_if_missing(what: str, instead: str) -> Iterator[None]:
    """Turn what ``datasets`` raises without a network or cache into an ``OSError`` that says what to do."""
    try:
        yield
    except (OSError, ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OSError(
            f"{what} could not be read: {reason} Connect once, set HF_HOME to a cache that holds it, or {instead}."
        ) from error


def _column(row: dict[str, Any], column: str, source: str) -> str:
    names = {name.lower(): name for name in row}
    check.one_of(f"text column of {Path(source).name}", column.lower(), tuple(names))
    return names[column.lower()]
