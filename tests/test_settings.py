"""Files of settings: what plain YAML gives, and what is refused, with file, line and field."""

from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from xai_utils import settings


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Wheel:
    spokes: Annotated[int, Field(strict=True, ge=1, le=99)]
    colour: str = "black"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Bicycle:
    name: str
    wheels: list[Wheel]
    gears: dict[str, Any] = Field(default_factory=dict)
    riders: list[str] | str = "all"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "bicycle.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_plain_yaml_becomes_the_thing(file):
    found = settings.read(
        file("wheels:\n  - {spokes: 32}\n  - {spokes: 36, colour: rot}\nriders: [a]\n"), Bicycle, name="b"
    )
    assert found == Bicycle("b", [Wheel(32), Wheel(36, "rot")], {}, ["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wheels: []\nwheels: []\n", r"bicycle\.yml is no plain YAML: line 2: 'wheels' is there twice"),
        ("wheels: &a []\nriders: *a\n", r"line 2: an alias \(\*\) is not allowed"),
        ("wheels: !!python/object/apply:os.system ['true']\n", "line 1: could not determine a constructor"),
        ("wheels:\n\t- 1\n", r"line 2: found character '\\t'"),
        ("wheels: [", "line 1"),
        ("{[a]: 1}", "line 1: a key is a list or a mapping"),
        ("", "bicycle.yml holds nothing, expected fields such as wheels, gears, riders"),
        ("- 1", "holds a list of 1, expected fields such as"),
        ("seven", "holds 'seven', expected"),
        ("wheels: []\nwheles: []\n", r"line 2: unknown field 'wheles'\. Did you mean wheels\? Known: gears, riders"),
        ("riders: all", "the field 'wheels' is missing"),
        ("wheels: 3", r"line 1: wheels is 3: input should be a valid list"),
        ("wheels:\n  - {spokes: 32}\n  - {spokes: '8'}", r"line 3: wheels\[1\]\.spokes is '8': input should be"),
        ("wheels:\n  - {spokes: 2.5}", r"wheels\[0\]\.spokes is 2.5"),
        ("wheels:\n  - {spokes: [8]}", r"wheels\[0\]\.spokes is a list of 1"),
        ("wheels:\n  - {spokes: null}", r"wheels\[0\]\.spokes is nothing"),
        ("wheels:\n  - {spokes: true}", r"wheels\[0\]\.spokes is True"),
        ("wheels:\n  - {spokes: 100}", r"line 2: wheels\[0\]\.spokes is 100: input should be less than or equal to 99"),
        ("wheels:\n  - {spokes: 8, color: red}", r"line 2: unknown field 'wheels\[0\]\.color'\. Did you mean colour\?"),
        ("wheels: [{spokes: 8}]\nriders: [1]", r"line 2: riders"),
        ("gears: 2024-01-01\nwheels: []", r"line 1: gears is datetime"),
        (b"wheels: \xff\xfe", r"bicycle\.yml is no UTF-8 text"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(file, text, said):
    with pytest.raises(ValueError, match=said):
        settings.read(file(text), Bicycle, name="b")


def test_a_bomb_of_aliases_is_refused_at_once(file):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    with pytest.raises(ValueError, match="line 2: an alias"):
        settings.load(file(bomb))
    with pytest.raises(ValueError, match=f"expected settings of at most {settings.MOST}"):
        settings.load(file("a: " + "x" * settings.MOST))


def test_what_was_meant_is_offered_only_if_it_is_near():
    assert settings.meant("wheles", ["wheels"]) == " Did you mean wheels?" and settings.meant("x", ["wheels"]) == ""


def test_what_yaml_would_change_stays_as_it_is_written(file):
    found = settings.load(file("a: 007\nb: 12:30\nc: 1_000\nd: 42\ne: -3\nf: 1.5\ng: 0x1F\n"))
    assert found == {"a": "007", "b": "12:30", "c": "1_000", "d": 42, "e": -3, "f": 1.5, "g": "0x1F"}
