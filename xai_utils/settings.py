"""Read files of settings (plans of sweeps, named runs): YAML without its surprises, checked field by field.

A duplicate key, an alias, a tag or an unknown field is refused; every message names file, line and field.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

MOST = 2**20  #: bytes that a file of settings may have

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Plain YAML: what comes out is what a reader of the file sees."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _here(self.peek_event(), "an alias (*) is not allowed, because it can grow without end: write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise _here(key, "a key is a list or a mapping, expected a name")
            if name in seen:
                raise _here(key, f"{name!r} is there twice, and only one of them could count")
            seen.add(name)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | str:
        """Keep what would change when it is read: 007 is no 7, and 12:30 no 750."""
        value = self.construct_yaml_int(node)
        return value if str(value) == node.value else str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)


def _here(what: Any, said: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=said, problem_mark=what.start_mark)


def load(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        ValueError: no YAML, or more than plain YAML: the message names file and line.
    """
    return _loaded(file)[0]


def read(file: Path, kind: type[T], **given: Any) -> T:
    """Read a file that holds the fields of one thing.

    Args:
        file: YAML, a mapping.
        kind: a pydantic dataclass or model.
        given: fields that the file does not state.

    Raises:
        ValueError: as :func:`load`; or a field that is unknown, missing or of the wrong kind.
    """
    content, node = _loaded(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds {_named(content)}, expected fields such as {_examples(kind)}.")
    return check(content, kind, file.name, node, given)


def check(
    content: dict[str, Any],
    kind: type[T],
    what: str,
    node: yaml.Node | None = None,
    given: dict[str, Any] | None = None,
) -> T:
    """Make one thing of its fields, or raise a ``ValueError`` that names the first wrong one.

    Args:
        content: the fields.
        kind: as for :func:`read`.
        what: to begin messages with, such as a file's name.
        node: of the file, for its lines.
        given: further fields.
    """
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python({**content, **(given or {})})
    except ValidationError as error:
        raise ValueError(_said(error, what, node, kind)) from None


def _loaded(file: Path) -> tuple[Any, yaml.Node | None]:
    if (size := file.stat().st_size) > MOST:
        raise ValueError(f"{file.name} has {size} bytes, expected settings of at most {MOST}.")
    try:
        text = file.read_text(encoding="utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is no UTF-8 text: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise ValueError(f"{file.name} is nested too deeply to be settings.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file.name} is no plain YAML: {_with_line(error)}.") from None


def _with_line(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    said = problem or " ".join(str(error).split())
    return f"line {mark.line + 1}: {said}" if mark else said


def _said(error: ValidationError, what: str, node: yaml.Node | None, kind: type) -> str:
    first, *others = error.errors(include_url=False)
    place: tuple[Any, ...] = first["loc"]
    where = f"{what}, line {_line(node, place)}" if node is not None else what
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _known(place)).strip(".")
    more = f" ({len(others)} more)" if len({one["loc"][:1] for one in others} - {place[:1]}) else ""
    return f"{where}: {_explained(first, field, kind)}{more}"


def _explained(error: Any, field: str, kind: type) -> str:
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [name for name in _fields(kind, error["loc"][:-1]) if name != "name"]
        return f"unknown field {field!r}.{meant(str(error['loc'][-1]), known)} Known: {', '.join(sorted(known))}."
    if error["type"] in ("missing", "missing_argument"):
        return f"the field {field!r} is missing."
    expected = error["msg"].removeprefix("Value error, ")
    return f"{field or 'this'} is {_named(error['input'])}: {expected[0].lower()}{expected[1:]}."


def _known(place: Sequence[Any]) -> list[Any]:
    """Leave out what pydantic adds to a place: which member of a union it tried."""
    return [part for part in place if isinstance(part, int) or ("[" not in part and part != "str")]


def _named(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    said = repr(value)
    return "nothing" if value is None else f"{said[:60]}…" if len(said) > 60 else said


def _fields(kind: type, place: Sequence[Any]) -> list[str]:
    """Return the names of the fields of the thing at a place."""
    found: Any = TypeAdapter(kind).json_schema()
    shared = found.get("$defs", {})
    for part in place:
        found = found.get("items", {}) if isinstance(part, int) else found.get("properties", {}).get(part, {})
        if "$ref" in found:
            found = shared[found["$ref"].rpartition("/")[2]]
    return list(found.get("properties", {}))


def _examples(kind: type) -> str:
    return ", ".join(name for name in _fields(kind, ()) if name != "name")


def _line(node: yaml.Node | None, place: Sequence[Any]) -> int:
    """Return the line of the innermost part of a place that is in the file."""
    assert node is not None
    line = node.start_mark.line
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode) and (
            pair := [(key, value) for key, value in node.value if key.value == str(part)]
        ):
            line, node = pair[0][0].start_mark.line, pair[0][1]
            continue
        else:
            break
        line = node.start_mark.line
    return line + 1


def meant(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for a name that is nearly right, else nothing."""
    near = get_close_matches(name, list(known), 1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""
