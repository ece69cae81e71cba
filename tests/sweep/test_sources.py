"""Code is followed through rooms: what is used counts, what stands beside it does not."""

import pytest

from xai_utils.sweep import sources


@pytest.fixture
def package(tmp_path):
    return write(tmp_path / "toy", {"__init__": '"""Toy."""'})


def write(folder, modules):
    for name, text in modules.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return folder


def changed(package, module, **modules):
    before = sources.sources(module, package=package)
    write(package, {name.replace("__in__", "/"): text for name, text in modules.items()})
    after = sources.sources(module, package=package)
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def test_imports_are_followed(package):
    write(package, {"a": "from toy import b", "b": "import toy.c", "c": "x = 1", "d": "x = 2"})
    assert list(sources.sources("toy.a", package=package)) == ["toy.a", "toy.b", "toy.c"]
    assert list(sources.sources("toy.a", without=("toy.b",), package=package)) == ["toy.a"]
    assert changed(package, "toy.a", c="x = 3", d="x = 3") == {"toy.c"}
    assert changed(package, "toy.a", c='"""Said better."""\nx = 3  # three') == set()


def test_two_modules_of_one_name_in_two_rooms_are_two(package):
    write(package, {"a": "from toy.one import same\nfrom toy.two import same as other"})
    for room in ("one", "two"):
        write(package, {f"{room}/__init__": "", f"{room}/same": f"x = {room!r}"})
    assert {"toy.one.same", "toy.two.same"} < set(sources.sources("toy.a", package=package))
    assert changed(package, "toy.a", two__in__same="x = 3") == {"toy.two.same"}


@pytest.mark.parametrize(
    "user",
    ["from toy.room import used\nused()", "from toy import room\nroom.used()", "from toy import room as r\nr.used()"],
)
def test_a_room_leads_only_to_what_is_used_of_it(package, user):
    write(package, {"a": user, "room/__init__": "from toy.room.left import used\nfrom toy.room.right import unused"})
    write(
        package,
        {"room/left": "from toy.room.deep import y\nused = y", "room/right": "unused = 1", "room/deep": "y = 1"},
    )
    assert list(sources.sources("toy.a", package=package)) == ["toy.a", "toy.room.deep", "toy.room.left"]
    assert changed(package, "toy.a", room__in__right="unused = 2") == set()
    assert changed(package, "toy.a", room__in__deep="y = 2") == {"toy.room.deep"}


def test_a_module_of_a_room_is_reached_through_its_door(package):
    write(package, {"a": "from toy import room\nroom.inner.f()", "room/__init__": "from toy.room import inner"})
    write(package, {"room/inner": "f = print"})
    assert list(sources.sources("toy.a", package=package)) == ["toy.a", "toy.room.inner"]


def test_a_file_outside_the_package_counts_with_what_it_leads_to(package, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("from toy import b\n")
    write(package, {"b": "x = 1"})
    assert list(sources.of_file(own, package=package)) == ["own", "toy.b"]
