"""One list of dependencies, pinned whole; and a README whose commands and links exist."""

import re
import tomllib

import pytest
import yaml
from places import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked():
    """Split the lock file into requirements: first line, then hashes and comments."""
    lines = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    return [block for block in re.split(r"\n(?=\S)", lines) if block.strip()]


def plain(requirement):
    """Return the bare name of a requirement, in the one spelling that packages are compared by."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_conda_holds_no_second_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {plain(entry) for entry in conda if isinstance(entry, str)} == {"python", "pip"}
    assert [entry for entry in conda if not isinstance(entry, str)] == [{"pip": ["-r requirements.lock"]}]


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
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / "README.md").read_text(), re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert {"figures", "test"} <= named <= targets, named - targets


def links():
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.exists() else ""
    found = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return sorted({link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)})


def test_the_readme_links_to_something():
    assert links()


@pytest.mark.parametrize("link", links())
def test_links_of_the_readme_exist(link):
    assert not link.startswith("/") and (ROOT / link).exists()
