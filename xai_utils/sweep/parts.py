"""Tables kept as parquet parts: whole or not there, with what made them inside the file, and checked when read.

A part carries the *key* of everything that made it: a hash of weights, inputs, parameters, seed, versions and code. It
counts as finished only if its key is the one asked for and every page of the file passes its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

from xai_utils import files

LABEL = b"xai_utils"  #: under which a part carries its provenance


def write(table: pd.DataFrame, file: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a table to a file beside ``file`` and rename it, so that ``file`` is never half-written.

    Args:
        table: the rows.
        file: of the part; its folder is made if need be.
        provenance: what made it, ready for JSON; :func:`read` compares its ``"key"``.
    """
    stored = pyarrow.Table.from_pandas(table, preserve_index=False)
    about = json.dumps({**(provenance or {}), "rows": len(table)}, sort_keys=True)
    stored = stored.replace_schema_metadata({**(stored.schema.metadata or {}), LABEL: about.encode()})
    with files.whole(file) as temporary:
        parquet.write_table(stored, temporary, write_page_checksum=True)


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


def key(things: Mapping[str, Any]) -> str:
    """Hash everything that makes a part; equal things give equal keys, in whatever order they are named."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()
