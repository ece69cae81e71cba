"""The house: which rooms there are, which way arrows point, which library lives where, and how big a room may be.

Charts (``plots``) and the explorer (``widgets``) read what a method is worth in a sweep's standings, by one rule. A
sweep knows of neither, so there is no circle.
"""

import ast
import json
import re
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "xai_utils"
GROUND = {
    "check",
    "claims",
    "figures",
    "files",
    "result",
    "runtime",
    "settings",
    "stats",
    "tables",
}  #: all may stand on these

MAY_IMPORT = {
    "check": set(),
    "claims": set(),
    "files": set(),
    "settings": set(),
    "stats": set(),
    "tables": {"runtime"},
    "result": {"check"},
    "runtime": {"files"},
    "figures": {"files", "runtime"},
    "maths": {"check"},
    "metrics": {"check", "stats"},
    "samples": {"check", "runtime", "tables"},
    "models": {"check", "files", "maths", "runtime", "samples"},
    "capture": {"check", "maths", "models"},
    "train": {"check", "files", "metrics", "models", "runtime", "samples"},
    "methods": {"capture", "check", "maths", "metrics", "models", "result", "samples"},
    "evaluation": {
        "capture", "check", "maths", "methods", "metrics", "models", "result", "samples", "stats"
    },
    "gender": {
        "capture", "check", "files", "maths", "methods", "metrics", "models", "runtime", "samples", "stats"
    },
    "sweep": {
        "check", "evaluation", "files", "maths", "methods", "metrics", "models", "runtime", "samples",
        "settings", "stats",
    },
    "survey": {"check", "files", "methods", "models", "result", "runtime", "samples"},
    "plots": {"check", "maths", "metrics", "result", "stats", "sweep"},
    "widgets": {
        "capture", "check", "evaluation", "files", "gender", "maths", "methods", "metrics", "models", "plots", "result",
        "runtime", "samples", "sweep",
    },
    "workbook": {"files", "settings"},
    "__main__": {"files", "runtime", "survey", "sweep", "train", "workbook"},
}  # fmt: skip
ONLY_IN = {
    "anywidget": {"widgets"},
    "captum": {"methods"},
    "cryptography": {"sweep"},
    "datasets": {"runtime", "samples"},
    "distributed": {"sweep"},
    "igraph": {"maths"},
    "ipywidgets": {"widgets"},
    "jinja2": {"workbook"},
    "lime": {"methods"},
    "math_core": {"workbook"},
    "matplotlib": {"figures", "plots", "widgets"},
    "nbconvert": {"workbook"},
    "nbformat": {"workbook"},
    "papermill": {"workbook"},
    "voila": {"workbook"},
    "peft": {"models", "train"},
    "pyarrow": {"sweep", "workbook"},
    "rich": {"workbook"},
    "safetensors": {"gender", "models", "train"},
    "timm": {"models", "survey"},
    "tokenizers": {"models", "survey", "train"},
    "torchvision": {"models", "train"},
    "transformers": {"capture", "models", "runtime", "survey", "train"},
}
ALL = sorted(PACKAGE.rglob("*.py"))
DOORS = [path for path in ALL if path.name == "__init__.py" and path.parent != PACKAGE]
LIBRARIES = {"scipy", "torch"}
ROLE = re.compile(r":(?:mod|func|class|data|meth):`~?([\w.]+)`")


def room_of(path):
    """Return the room of a module of the package; a single module on the ground floor is its own."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Yield every imported name, wherever in the module the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path.name}: write from xai_utils, not from dots"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from whole if node.module == "xai_utils" else [node.module]


def test_the_plan_and_the_package_name_the_same_rooms():
    assert {room_of(path) for path in ALL} - {"__init__"} == MAY_IMPORT.keys()
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"} == GROUND
    assert set().union(*MAY_IMPORT.values(), *ONLY_IN.values()) <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_modules_import_only_what_the_plan_allows(path):
    room = room_of(path)
    for target in imports(path):
        top, _, rest = target.partition(".")
        ours = rest.split(".")[0] if top == "xai_utils" else room
        assert ours in {room, *MAY_IMPORT.get(room, ())}, f"{room} may not import {target}"
        assert room in ONLY_IN.get(top, {room}), f"{room} may not import {top}"


def test_the_arrows_have_no_circle():
    left = {name: set(targets) for name, targets in MAY_IMPORT.items()}
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


def test_maths_and_metrics_meet_no_model():
    reached = {"maths", "metrics"}
    while (wider := reached.union(*(MAY_IMPORT[room] for room in reached))) != reached:
        reached = wider
    assert not reached & {"models", "capture", "methods"}


def test_every_planned_arrow_is_used():
    drawn = {room: set() for room in MAY_IMPORT}
    for path in ALL:
        drawn.setdefault(room_of(path), set()).update(
            target.split(".")[1] for target in imports(path) if target.startswith("xai_utils.")
        )
    unused = {room: MAY_IMPORT[room] - drawn[room] for room in MAY_IMPORT if MAY_IMPORT[room] - drawn[room]}
    assert not unused, f"take these arrows out of the plan: {unused}"


@pytest.mark.parametrize("door", DOORS, ids=lambda path: path.parent.name)
def test_a_room_is_small_and_its_door_narrow(door):
    modules = [path for path in door.parent.glob("*.py") if path.name != "__init__.py"]
    assert 0 < len(modules) <= 14, f"{door.parent.name} has {len(modules)} modules"
    assert len(door.read_text().splitlines()) <= 40, f"the door of {door.parent.name} is too long"
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in ast.parse(door.read_text()).body)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_no_longer_than_one_question(path):
    assert len(path.read_text().splitlines()) <= 450


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_docstrings_point_at_is_there(path):
    """Every name in a role is a module or something defined in one; of the last two parts of its name at least one."""
    for name in ROLE.findall(path.read_text()):
        if name.partition(".")[0] in LIBRARIES:
            continue
        module, _, last = name.removeprefix("xai_utils.").rpartition(".")
        known = modules_and_names()
        parts = [part for part in module.split(".") if part]
        assert last in known and all(part in known for part in parts), f"{path.name} points at {name}"


def modules_and_names(found={}):  # noqa: B006 (kept between calls)
    """Return the names of all modules and rooms, and of everything they define."""
    if not found:
        for path in ALL:
            found[path.parent.name if path.name == "__init__.py" else path.stem] = True
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found[node.name] = True
                elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                    found[node.id if isinstance(node, ast.Name) else node.attr] = True
    return found


MODULES = [path for path in ALL if path.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_has_a_test_of_its_own_name(path):
    test = ROOT / "tests" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
    assert test.is_file(), f"write {test.relative_to(ROOT)}"


def test_tests_mirror_the_rooms():
    own = {"bench", "browser", "faults", "golden"}
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert rooms - own == {room_of(path) for path in ALL} - GROUND - {"__init__", "__main__"}


def test_a_notebook_imports_few_names_and_no_module_of_a_room():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("xai_utils"):
                assert node.module == "xai_utils", f"{path.name}: from xai_utils import a room, not {node.module}"
                names |= {alias.name for alias in node.names}
        assert 0 < len(names) <= 10, f"{path.name} imports {len(names)}: {sorted(names)}"


def test_a_planned_arrow_is_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def late():\n    from xai_utils import plots\n    import matplotlib.pyplot\n")
    assert list(imports(module)) == ["xai_utils.plots", "matplotlib.pyplot"]


def test_a_pointer_to_nothing_is_seen():
    assert ROLE.findall("see :func:`rollout.fuse` and :mod:`maths`") == ["rollout.fuse", "maths"]
    assert "fuse" in modules_and_names() and "no_such_thing" not in modules_and_names()
    assert Path(__file__).name == "test_house.py"
