"""Which code a result depends on: hashes of a module and of every module of the package that it leads to."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def sources(module: str, without: Iterable[str] = (), package: Path = PACKAGE) -> dict[str, str]:
    """Hash the code of a module, and of every module of the package that it leads to.

    Comments, docstrings and layout do not count, so that better prose does not call for a new sweep. What a room's
    ``__init__`` re-exports counts only where it is used: ``models.load`` leads to the module that defines ``load``.

    Args:
        module: dotted name, such as ``"xai_utils.evaluation.scoring"``.
        without: modules of the package to leave out, with what only they lead to.
        package: its folder.

    Returns:
        Hash by dotted name of the module.
    """
    return of_file(_file(module, package), without, package)


def of_file(file: Path, without: Iterable[str] = (), package: Path = PACKAGE) -> dict[str, str]:
    """Hash the code of a file, which may lie outside the package, and all that it leads to (see :func:`sources`)."""
    found: dict[str, str] = {}
    waiting, left_out = [file], {_file(name, package) for name in without}
    seen = set(left_out)
    while waiting:
        one = waiting.pop()
        if one not in seen and one.is_file():
            seen.add(one)
            tree = ast.parse(one.read_text(encoding="utf-8"))
            waiting += _reached(tree, package)
            found[_name(one, package)] = hashlib.sha256(ast.dump(_bare(tree)).encode()).hexdigest()
    return dict(sorted(found.items()))


def _reached(tree: ast.Module, package: Path) -> Iterator[Path]:
    """Yield the file of everything of one package that a module imports, wherever in it the import stands."""
    for local, dotted in _imported(tree):
        if dotted.startswith(f"{package.name}."):
            yield from _resolve(dotted, local, tree, package)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the local name and the dotted name of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _resolve(dotted: str, local: str, tree: ast.Module, package: Path) -> Iterator[Path]:
    """Follow one import: to a module, to what a room re-exports, or to whatever is used of a whole room."""
    file = _file(dotted, package)
    if file.name != "__init__.py" and file.is_file():
        yield file
    elif file.is_file():
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is(node.value, local)}
        for name in sorted(names):
            yield from _resolve(f"{dotted}.{name}", name, tree, package)
    else:
        room, _, name = dotted.rpartition(".")
        door = _file(room, package)
        if door.name != "__init__.py":
            yield door
        elif door.is_file():
            inside = ast.parse(door.read_text(encoding="utf-8"))
            for known, origin in _imported(inside):
                if known == name and origin.startswith(f"{package.name}.") and origin != dotted:
                    yield from _resolve(origin, known, inside, package)


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _file(dotted: str, package: Path) -> Path:
    """Return the file of a module, or the ``__init__`` of a room; it need not exist."""
    place = package.joinpath(*dotted.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _name(file: Path, package: Path) -> str:
    if not file.is_relative_to(package):
        return file.stem
    return ".".join((package.name, *file.relative_to(package).with_suffix("").parts))


def _bare(tree: ast.Module) -> ast.Module:
    """Take the docstrings out of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return tree
