"""Where the project lies, hashes of files, and writing that is whole or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from filelock import BaseFileLock, FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and rename it at the end: never half-written.

    The name holds the process's number, so two processes never write to one file; what was written is on the disk
    before the rename. After an error the old file stays and the temporary one is gone.

    Raises:
        OSError: the disk is full or read-only; named by the file that was meant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        _onto_the_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path.name}: {error.strerror or error}; nothing was written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all (see :func:`whole`) and return its path; text becomes UTF-8."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files into a folder beside their places, then move all: a figure never parts from its record.

    Raises:
        OSError: the disk is full or read-only; the old files stay and no half-written one is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as beside:
        for name, content in contents.items():
            try:
                (Path(beside) / name).write_bytes(content)
                (Path(beside) / name).chmod(0o644)
                _onto_the_disk(Path(beside) / name)
            except OSError as error:
                raise OSError(error.errno, f"cannot save {name}: {error.strerror}; nothing was written") from error
        for name in contents:
            (Path(beside) / name).replace(folder / name)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside ``path`` to fill with files, and let it take the place of ``path`` at the end.

    After an error the old folder stays and the new one is gone. Only a process killed between the two renames at the
    very end leaves nothing at ``path``; then old and new both lie beside it, whole, under hidden names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = (Path(mkdtemp(dir=path.parent, prefix=f".{path.name}.{age}.")) for age in ("new", "old"))
    try:
        try:
            yield new
        except OSError as error:
            if error.filename is None:  # a disk that is full does not say of which file
                raise OSError(error.errno, f"cannot fill {path.name}: {error.strerror}; nothing was written") from error
            raise
        for file in new.iterdir():
            file.chmod(0o644)
            _onto_the_disk(file)
        new.chmod(0o755)
        if path.exists():
            path.replace(old)
        try:
            new.replace(path)
        except OSError:
            if any(old.iterdir()):
                old.replace(path)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(locks: Mapping[Path, str]) -> Iterator[None]:
    """Hold locks on files while the block runs; a lock ends with its process, however that ends.

    Args:
        locks: file -> what it stands for, such as a notebook's name, for the message.

    Raises:
        ValueError: another process holds one; the message names what it stands for, and the process.
    """
    held = {file: FileLock(file) for file in locks}
    try:
        for file, lock in held.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            _take(lock, file, locks[file])
        yield
    finally:
        for lock in held.values():
            lock.release()


def _take(lock: BaseFileLock, file: Path, what: str) -> None:
    owner = file.with_suffix(".owner")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        process = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
        raise ValueError(
            f"{what} is being worked on by another command, process {process}; wait until it ends."
        ) from None
    owner.write_text(str(os.getpid()), encoding="utf-8")


def _onto_the_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
