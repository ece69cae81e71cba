"""The anatomy of every notebook, checked on the stored files; nothing is executed here."""

import ast
import base64
import io
import re
from collections import Counter
from statistics import median

import nbformat
import papermill
import pytest
from PIL import Image
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<*)\]}$\\])(?:/[\w.-]+){2,}|\b[A-Z]:\\\w|(?<!\w)~/\w")
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}")
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell):
    return cell.metadata.get("tags", [])


def trees(path):
    """Parse every code cell; a ``%`` or ``!`` command is no Python and fails here."""
    return [ast.parse(cell.source, f"{path.name}, code cell {n}") for n, cell in enumerate(cells(path), 1)]


def assigned(tree):
    """Name everything that a cell binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def used(tree):
    """Name everything that a cell reads."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Load)}


def texts(path):
    """Yield every source and every textual output."""
    for cell in nbformat.read(path, as_version=4).cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield from (value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))
            yield output.get("text", "")


def figures_of(path, by=("figures.save", "figures.save_table")):
    """Return the second argument of every ``figures.save(fig, "NN_words")`` and ``figures.save_table(table, ...)``."""
    for tree in trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in by:
                literal = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
                assert literal, f"{path.name}: write figures.save(fig, 'NN_words') for {ast.unparse(node)}"
                yield node.args[1].value


def test_numbers_are_unique_and_ascend():
    assert NOTEBOOKS, "there is no notebook"
    names = [path.stem for path in NOTEBOOKS]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", name) for name in names), names
    numbers = [int(name[:2]) for name in names]
    assert numbers == sorted(set(numbers)) and 0 <= numbers[0] and numbers[-1] <= 12, names


@EACH
def test_it_opens_with_title_and_question(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and "**Question.**" in first.source
    assert re.match(rf"# {path.stem[:2]} · \S", first.source), first.source.splitlines()[:1]


@EACH
def test_parameters_come_first_and_are_literals(path):
    first, *rest = cells(path)
    assert "parameters" in tags(first) and not any("parameters" in tags(cell) for cell in rest)
    statements = ast.parse(first.source).body
    assert all(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) for node in statements)
    names = [node.targets[0].id for node in statements]
    assert all(name.isupper() for name in names) and 0 < len(names) <= 12, names
    for node in statements:
        ast.literal_eval(node.value)
    seen = set(papermill.inspect_notebook(str(path)))
    assert seen == set(names), "papermill does not see a parameter whose line has a second ="


@EACH
def test_it_was_executed_once_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run make golden"


@EACH
def test_outputs_hold_no_error_and_no_stderr(path):
    for cell in cells(path):
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        assert not kinds & {"stderr", "error"}, cell.source


@EACH
def test_nothing_depends_on_the_machine(path):
    for text in texts(path):
        assert not (found := ABSOLUTE_PATH.search(text)), f"absolute path {found[0]}"
        assert not (found := ADDRESS.search(text)), f"address in memory {found[0]}"


@EACH
def test_something_is_compared(path):
    compared = [cell for cell in cells(path) if "nbval-check-output" in tags(cell)]
    assert compared, "no cell has the tag nbval-check-output"
    assert all(cell.outputs for cell in compared), "a compared cell without output compares nothing"


@EACH
def test_cells_are_short_and_define_nothing(path):
    for cell, tree in zip(cells(path), trees(path), strict=True):
        assert len(cell.source.splitlines()) <= 15, cell.source
        defined = [node for node in ast.walk(tree) if isinstance(node, DEFINITION)]
        assert not defined, f"{defined[0].name} belongs in xai_utils"


@EACH
def test_most_cells_are_a_few_lines(path):
    assert median(len(cell.source.splitlines()) for cell in cells(path)) <= 6


def output_is_a_picture(output):
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    return min(picture.size) >= 60 and len(picture.convert("RGB").getcolors(10**6)) > 8


@EACH
def test_widgets_can_be_skipped(path):
    parsed = trees(path)
    for number, cell in enumerate(cells(path)):
        if "widget" in tags(cell):
            later = set().union(*map(used, parsed[number + 1 :]))
            assert not set(assigned(parsed[number])) & later, cell.source
            assert [set(output.data) for output in cell.outputs] == [{"image/png", "text/plain"}], "run make golden"
            assert output_is_a_picture(cell.outputs[0]), "a still frame, no more, stands for the widget on the web"


@EACH
def test_figures_are_named_after_the_notebook_and_exist(path):
    for name in figures_of(path):
        assert re.fullmatch(rf"{path.stem[:2]}_[a-z0-9_]+", name), name
        for kind in ("png" if name in figures_of(path, ["figures.save"]) else "csv", "json"):
            assert (ROOT / f"figures/{name}.{kind}").exists(), f"{name}.{kind} is missing; run make golden"


def test_every_figure_comes_from_one_place():
    saved = Counter(name for path in NOTEBOOKS for name in figures_of(path))
    assert saved and not [name for name, times in saved.items() if times > 1]
    stored = {path.stem for path in (ROOT / "figures").glob("[0-9][0-9]_*.*")}
    assert stored == set(saved), f"no notebook saves {sorted(stored - set(saved))}"


@EACH
def test_it_is_small(path):
    assert path.stat().st_size <= 2**20
