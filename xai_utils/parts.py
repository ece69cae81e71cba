"""Tables kept as parquet parts: whole or not there, with what made them inside the file, and checked when read.

A part carries the *key* of everything that made it: a hash of weights, inputs, parameters, seed, versions and code. It
counts as finished only if its key is the one asked for and every page of the file passes its checksum.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

PACKAGE = Path(__file__).resolve().parent
LABEL = b"xai_utils"  #: under which a part carries its provenance


def write(table: pd.DataFrame, file: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a table to a file beside ``file`` and rename it, so that ``file`` is never half-written.

    Args:
        table: the rows.
        file: of the part; its folder is made if need be.
        provenance: what made it, ready for JSON; :func:`read` compares its ``"key"``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = pyarrow.Table.from_pandas(table, preserve_index=False)
    about = json.dumps({**(provenance or {}), "rows": len(table)}, sort_keys=True)
    stored = stored.replace_schema_metadata({**(stored.schema.metadata or {}), LABEL: about.encode()})
    temporary = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        parquet.write_table(stored, temporary, write_page_checksum=True)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read(file: Path, key: str | None = None) -> pd.DataFrame | None:
    """Return the rows of a part, or ``None`` where it is missing, cut off, damaged or made by something else.

    Args:
        file: of the part.
        key: that its provenance has to carry; ``None`` takes any.
    """
    about = provenance(file)
    if about is None or (key is not None and about.get("key") != key):
        return None
    try:
        table = parquet.read_table(file, page_checksum_verification=True).to_pandas()
    except (OSError, ValueError, pyarrow.ArrowException):
        return None
    return table if len(table) == about["rows"] else None


def provenance(file: Path) -> dict[str, Any] | None:
    """Return what made a part, or ``None`` for a file that is missing, cut off or no part."""
    try:
        found = (parquet.read_metadata(file).metadata or {}).get(LABEL)
        return None if found is None else json.loads(found)
    except (OSError, ValueError, pyarrow.ArrowException):
        return None


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to a file beside ``path`` and rename it, so that ``path`` is never half-written."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def key(things: Mapping[str, Any]) -> str:
    """Hash everything that makes a part; equal things give equal keys, in whatever order they are named."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()


def sources(file: Path, without: Iterable[str] = (), package: Path = PACKAGE) -> dict[str, str]:
    """Hash the code of a module, and of every module of the package that it leads to.

    Comments, docstrings and layout do not count, so that better prose does not call for a new sweep.

    Args:
        file: of the module.
        without: modules of the package to leave out, with what only they lead to.
        package: its folder.

    Returns:
        Hash by name of the module.
    """
    found: dict[str, str] = {}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one.is_file() and one.stem not in {*found, *without}:
            tree = ast.parse(one.read_text(encoding="utf-8"))
            waiting += [package / f"{name}.py" for name in _imported(tree, package.name)]
            found[one.stem] = hashlib.sha256(ast.dump(_bare(tree)).encode()).hexdigest()
    return dict(sorted(found.items()))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules of one package that a module imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith(f"{package}."))


def _bare(tree: ast.Module) -> ast.Module:
    """Take the docstrings out of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return tree
