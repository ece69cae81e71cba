"""Written whole or not at all, whatever goes wrong on the way."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xai_utils import files


def test_text_and_bytes_arrive_and_nothing_else_stays(tmp_path):
    assert files.write(tmp_path / "new" / "a.txt", "é").read_bytes() == "é".encode()
    files.write(tmp_path / "new" / "a.txt", b"\x00")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert files.sha256(tmp_path / "new" / "a.txt").startswith("6e340b9c")


def test_the_old_file_stays_when_writing_fails(tmp_path):
    kept = files.write(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="half way"), files.whole(kept) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert kept.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_with_the_file_that_was_meant(tmp_path, monkeypatch):
    files.write(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write a\.txt: No space left on device"):
        files.write(tmp_path / "a.txt", "new")
    with pytest.raises(OSError, match=r"cannot save b\.png: No space left on device; nothing was written"):
        files.write_together(tmp_path, {"b.png": b"1", "b.json": b"2"})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    kept = files.write(tmp_path / "a.txt", "old")
    code = (
        "import os, sys; from pathlib import Path; from xai_utils import files\n"
        "with files.whole(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(kept)], cwd=files.ROOT, check=False)
    assert done.returncode == -9 and kept.read_text() == "old"
    assert files.write(kept, "new").read_text() == "new"


def test_a_record_never_parts_from_its_picture(tmp_path):
    files.write_together(tmp_path / "new", {"a.png": b"1", "a.json": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"a.png": b"1", "a.json": b"2"}


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    for round in ("first", "second"):
        with files.whole_folder(tmp_path / "deep" / "model") as new:
            (new / f"{round}.txt").write_text(round)
            assert not (tmp_path / "deep/model" / f"{round}.txt").exists()
        assert [path.name for path in (tmp_path / "deep" / "model").iterdir()] == [f"{round}.txt"]
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    assert oct((tmp_path / "deep/model").stat().st_mode)[-3:] == "755"
    assert oct((tmp_path / "deep/model/second.txt").stat().st_mode)[-3:] == "644"


@pytest.mark.parametrize("fails", ["filling", "reaching the disk", "the last rename"])
def test_an_old_folder_stays_when_the_new_one_fails(fails, tmp_path, monkeypatch):
    old = tmp_path / "model"
    old.mkdir()
    (old / "old.txt").write_text("old")
    replace = Path.replace

    def refuse(path, target):
        if (path / "new.txt").exists():
            full()
        return replace(path, target)

    if fails == "reaching the disk":
        monkeypatch.setattr(os, "fsync", full)
    if fails == "the last rename":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"), files.whole_folder(old) as new:
        (new / "new.txt").write_text("new")
        if fails == "filling":
            full()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.read_text() for path in old.iterdir()] == ["old"]


def test_a_lock_is_free_again_when_its_block_or_its_process_ends(tmp_path):
    file = tmp_path / "runs/01_dots.lock"
    with files.alone({file: "01_dots"}):
        with pytest.raises(ValueError, match=f"01_dots is being worked on by another command, process {os.getpid()}"):
            with files.alone({file: "01_dots"}):
                pass
    if not (child := os.fork()):
        with files.alone({file: "01_dots"}):
            os._exit(0)
    os.waitpid(child, 0)
    with files.alone({file: "01_dots"}):
        assert file.with_suffix(".owner").read_text() == str(os.getpid())
