"""Read the user's own lists and tables, whatever their encoding; every error names the file, and the line if it can."""

from __future__ import annotations

import codecs
import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xai_utils import runtime

#: tried in this order, after the marks with which UTF-16 begins; what was not UTF-8 is said in the record
ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}
T = TypeVar("T")
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


def each(path: Path, rows: Sequence[dict[str, Any]], read: Callable[[int, dict[str, Any]], T]) -> tuple[list[T], str]:
    """Read rows one by one; a bad one is left out, counted and said, and does not end the whole file.

    Args:
        path: where they come from.
        rows: of it.
        read: ``(number from 1, row) -> what it holds``; ``ValueError`` if it cannot be used.

    Returns:
        What was read, and what to say in the record: ``""``, or how many were left out and why the first was.

    Raises:
        ValueError: no row can be used; with the reason of the first.
    """
    found, bad = [], []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read(number, row))
        except ValueError as error:
            bad.append(str(error))
    if not found:
        raise ValueError(f"no row of {path.name} can be used: {bad[0]}")
    if not bad:
        return found, ""
    said = f", {len(bad)} of {len(rows)} rows left out ({bad[0].rstrip('.')})"
    warnings.warn(f"{path.name}{said}", stacklevel=3)
    return found, said


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
