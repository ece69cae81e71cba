"""Read the user's own lists and tables, whatever their encoding; every error names the file, and the line if it can."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xai_utils import runtime

#: tried in this order, after the marks with which UTF-16 begins; what was not UTF-8 is said in the record
ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_of(path: Path) -> str:
    """Return what a text file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text in an encoding of :data:`ENCODINGS` or UTF-16.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.name}.")
    content = path.read_bytes()
    tried = {"utf-16": "UTF-16"} if content.startswith(MARKS) else ENCODINGS
    for encoding, name in tried.items():
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if name != "UTF-8":
            runtime.record.data[f"encoding of {path.name}"] = name
        return text
    raise ValueError(f"{path.name} is no text in UTF-8, UTF-16 with its mark, or Windows-1252; save it as UTF-8.")


def json_of(path: Path) -> Any:
    """Return what a JSON file holds; errors as :func:`text_of`, and ``ValueError`` if it is no JSON."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is no JSON: {error.msg} in line {error.lineno}.") from None


def rows_of(path: Path, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Args:
        path: ``.csv`` (commas) or ``.tsv`` (tabs) with a header, or ``.jsonl``, one object a line. A field of a CSV is
            always a text: ``NA`` and ``null`` are texts like any other.
        needed: columns that have to be there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, no row, a column is missing, or a row that does not fit the header; with its line.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise ValueError(f"{path.name} ends in {path.suffix!r}, expected {', '.join(readers)}.")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise ValueError(f"{path.name} has no row; expected the columns {' and '.join(needed)}.")
    for line, row in rows:
        if missing := sorted(set(needed) - set(row)):
            raise ValueError(
                f"{path.name}, line {line}, lacks the column {' and '.join(missing)}; it has {', '.join(row)}."
            )
    return [row for _, row in rows]


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(
        io.StringIO(text_of(path), newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    try:
        for row in reader:
            if None in row or None in row.values():
                fields = len(reader.fieldnames or ())
                raise ValueError(
                    f"{path.name}, line {reader.line_num}, does not have the {fields} fields of the header."
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path.name}, line {reader.line_num}: {error}.") from None


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}, line {number}, is no JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, line {number}, holds a {type(row).__name__}, expected an object.")
        yield number, row
