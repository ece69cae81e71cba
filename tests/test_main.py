"""The one command line: help at once, one line for every error, exit codes, and no old address in the whole tree."""

import json
import os
import re
import subprocess
import sys

import pytest
from places import ROOT

from xai_utils import __main__ as program
from xai_utils.__main__ import COMMANDS, main
from xai_utils.train import loop

EACH = pytest.mark.parametrize("command", COMMANDS)


def told(capsys):
    """Return what was said on stderr, which must be one line."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("\n"), said
    return said.strip()


# Help


def test_help_answers_at_once_without_the_libraries():
    script = (
        "import sys, time; begun = time.perf_counter()\n"
        "from xai_utils.__main__ import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as left:\n    assert left.code == 0\n"
        "heavy = {'torch', 'papermill', 'numpy', 'pandas', 'transformers', 'matplotlib'} & sys.modules.keys()\n"
        "print(time.perf_counter() - begun, *heavy, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    seconds, *heavy = done.stderr.split()
    assert float(seconds) < 1 and not heavy, done.stderr
    assert all(re.search(rf"^    {command}\b", done.stdout, re.MULTILINE) for command in COMMANDS)


@EACH
def test_every_command_says_what_it_does_and_what_it_takes(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and said.startswith(f"usage: python -m xai_utils {command} ")
    described = " ".join(said.split())
    assert " ".join(COMMANDS[command].__doc__.split()) in described and "Exit codes: 0 all well" in described
    for option in re.findall(r"^  (\S.*?)(?:  |$)", said.partition("options:")[2].partition("Exit")[0], re.MULTILINE):
        assert re.search(rf"{re.escape(option)}\s+\S", said), f"{option} is not explained"


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_the_models_that_can_be_trained_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = re.sub(r"-\n\s+", "-", capsys.readouterr().out)  # a name may be cut at its hyphen
    assert [name for name in loop.RECIPES if not re.search(rf"\s{name}[,\s]", said)] == []


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("figurs", "error: no command 'figurs'. Did you mean figures? Commands: figures, golden, "),
        ("xyz", "error: no command 'xyz'. Commands: figures, "),
        (
            "figures --onyl 01",
            "does not know --onyl 01. Did you mean --only? See `python -m xai_utils figures --help`.",
        ),
        ("train vit-scenes more", "error: train does not know more. See `python -m xai_utils train --help`."),
        ("train", "error: the following arguments are required: name; see `python -m xai_utils train --help`."),
        ("train vit-scenes --steps 0", "argument --steps: 0 is less than one"),
        ("train vit-scenes --threads -1", "argument --threads: -1 is less than one"),
        ("train vit-scenes --steps few", "argument --steps: invalid count value: 'few'"),
        ("sweep sweeps/small.yml --workers 0", "argument --workers: 0 is less than one"),
        ("figures --run none", "unknown run of runs.yml: none. Known: "),
        ("figures --only 99", "unknown notebook: 99"),
        ("golden --only 99", "unknown notebook: 99"),
        ("sweep none.yml", "error: no plan 'none.yml'"),
        ("leaderboard none.parquet", "none.parquet is missing"),
        ("summary none.parquet --out none", "none.parquet is no table"),
        ("train none", "error: model is 'none', expected one of: minilm-sst2, "),
        ("train vit-scenes --data own.csv --out none", "data belongs to attention-sst2 and minilm-mlm"),
        ("train attention-sst2 --data none.csv --out none", "no file none.csv"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert main(arguments.split()) == 2
    assert message in told(capsys)


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, RuntimeError])
def test_an_error_of_a_command_is_one_line(kind, capsys, monkeypatch):
    def wrong(_options):
        raise kind("first line\n  second line")

    monkeypatch.setitem(COMMANDS, "figures", wrong)
    assert main(["figures"]) == 2
    assert told(capsys) == "error: first line second line"


def test_an_error_without_words_is_named(capsys, monkeypatch):
    def wrong(_options):
        raise NotADirectoryError

    monkeypatch.setitem(COMMANDS, "report", wrong)
    assert main(["report"]) == 2
    assert told(capsys) == "error: NotADirectoryError"


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(COMMANDS, "report", lambda options: options.nothing)
    with pytest.raises(AttributeError):
        main(["report"])


@EACH
def test_ctrl_c_says_whether_the_command_continues(command, capsys, monkeypatch):
    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, command, interrupted)
    needs = {"sweep": ["plan.yml"], "leaderboard": ["a"], "summary": ["a", "--out", "b"], "train": ["vit-scenes"]}
    assert main([command, *needs.get(command, [])]) == 130
    said = capsys.readouterr().err
    assert said.startswith("\ninterrupted")
    assert ("the same command continues" in said) == (command in ("figures", "sweep", "train"))


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_decides_between_all_and_a_part(code, monkeypatch):
    monkeypatch.setitem(COMMANDS, "figures", lambda _options: code)
    assert main(["figures"]) == code


def test_options_reach_what_they_are_for(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(loop, "command", lambda *given: seen.append(given) or {"name": given[0]})
    assert main("train vit-scenes --steps 3 --threads 2 --evaluate-every 1 --out folder".split()) == 0
    assert seen == [("vit-scenes", None, program.Path("folder"), 3, 2, 1, None)]
    assert json.loads(capsys.readouterr().out) == {"name": "vit-scenes"}


def test_a_training_writes_where_it_is_told(tmp_path, monkeypatch, capsys):
    from tiny_recipes import TinyResNet

    monkeypatch.setitem(loop.RECIPES, "resnet-scenes", TinyResNet)
    monkeypatch.setattr(loop, "CHECKPOINTS", tmp_path / "checkpoints")
    assert main(["train", "resnet-scenes", "--steps", "1", "--out", str(tmp_path / "one")]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert json.loads((tmp_path / "one" / "card.json").read_text())["steps"] == 1


# Addresses

ENDINGS = {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".json"}
FOLDERS = ("data", "notebooks", "sweeps", "tests", "xai_utils")
WRITTEN = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in ENDINGS]
WRITTEN += [path for path in ROOT.iterdir() if path.suffix in ENDINGS or path.name == "Makefile"]
OLD = re.compile(r"python -m xai_utils\.\w+|xai_utils\.(?:headless|sweep_summary|engine)\b")
FILE = re.compile(r"\bxai_utils/[\w/]*\.\w+")


def outdated(text):
    """Return old commands and names of files that are not there."""
    return sorted({*OLD.findall(text), *(file for file in FILE.findall(text) if not (ROOT / file).exists())})


def test_nothing_names_an_old_command_or_a_file_that_is_not_there():
    own = {ROOT / "tests" / "test_main.py", ROOT / "tests" / "workbook"}  # speak of files that are made up
    read = [path for path in WRITTEN if not own & {path, *path.parents}]
    assert {"README.md", "pyproject.toml", "card.json", "__main__.py"} <= {path.name for path in read}
    found = {str(path.relative_to(ROOT)): outdated(path.read_text()) for path in read}
    assert not (wrong := {name: names for name, names in found.items() if names}), wrong


def test_an_old_address_is_seen():
    assert outdated("`python -m xai_utils.train x` in xai_utils/models.py") == [
        "python -m xai_utils.train", "xai_utils/models.py"
    ]  # fmt: skip
    assert not outdated("`python -m xai_utils train x` in xai_utils/models/table.py")


def test_a_terminal_that_lacks_a_sign_still_gets_its_line():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    found = subprocess.run(
        [sys.executable, "-m", "xai_utils", "figures", "--compare", "plän"],
        env=environment, cwd=ROOT, capture_output=True,
    )  # fmt: skip
    assert found.returncode == 2 and b"error: there is no figure in pl\\xe4n;" in found.stderr
