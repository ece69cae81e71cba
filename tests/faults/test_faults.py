"""A share of ``make faults`` short enough for every run; and the suite itself sees what is lost and what is silent."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import tiny

from tests.faults import damage, errors, kills
from tests.faults.__main__ import run
from tests.faults.damage import Kind
from xai_utils import methods


def test_nothing_is_lost_and_nothing_silent(tmp_path):
    count, lost, silent = run(0, 24, 3 * len(damage.KINDS), 0, 140, tmp_path)
    assert (lost, silent) == ([], []) and count.total() == 189 + 3 * len(damage.KINDS)


def careless(folder: Path, generation: int) -> None:
    with (folder / "one.bin").open("wb") as file:
        for piece in np.array_split(np.frombuffer(kills.content(generation), dtype=np.uint8), 50):
            file.write(piece.tobytes())
            file.flush()


def test_a_careless_writer_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(kills.WRITERS, "file", kills.Writer(careless, kills.lost_one))
    said = [kills.kill("file", tmp_path / str(n), 0.002 * n) for n in range(1, 12)]
    assert any("one.bin is torn" in one for one in said)


def test_a_writer_that_hides_a_full_disk_is_seen(tmp_path, monkeypatch):
    def hiding(folder, generation):
        with suppress(OSError):
            careless(folder, generation)

    monkeypatch.setitem(kills.WRITERS, "file", kills.Writer(hiding, kills.lost_one))
    assert "no error" in kills.fill("file", tmp_path / "one", 1000)


def test_a_careless_reader_is_seen(tmp_path, monkeypatch):
    whole = damage._write("list.bin", ",".join(map(str, range(2000))))
    monkeypatch.setitem(damage.KINDS, "list", Kind(whole, lambda path: len(path.read_bytes())))
    noise = np.random.default_rng(0)
    assert any("read as if whole" in damage.strike("list", tmp_path / str(n), noise) for n in range(12))


def test_an_error_without_the_file_is_seen(tmp_path, monkeypatch):
    def read(path):
        if path.read_bytes() != b"1,2,3":
            raise ValueError("something is wrong")

    monkeypatch.setitem(damage.KINDS, "list", Kind(damage._write("list.bin", "1,2,3"), read))
    said = damage.strike("list", tmp_path / "one", np.random.default_rng(0))
    assert "'something is wrong' names no file" in said


def test_a_careless_method_is_seen(monkeypatch):
    model, sample = tiny.model("bert"), tiny.samples("bert")[0]
    handles = []

    def careless(*_arguments):
        handles.append(model.module.classifier.register_forward_hook(lambda *_: None))
        raise errors.Planted

    monkeypatch.setattr(methods, "explain", careless)
    said = errors.strike("rollout", model, sample, errors.state(model, sample), np.random.default_rng(0))
    handles[0].remove()
    assert "not restored" in said
