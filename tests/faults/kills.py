"""Kill writers in the middle of what they do, and look at what they leave.

A writer writes generation after generation of the same files. Whatever the moment it is killed, each file has to be one
generation, whole; what belongs together has to be of one generation, or be recognised as parted.
"""

import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from xai_utils import files
from xai_utils.sweep import parts

SIZE = 200_000  # bytes of a file: writing it takes about as long as everything around it


def content(generation: int) -> bytes:
    body = bytes(np.random.default_rng(generation).integers(0, 256, SIZE, dtype=np.uint8))
    return hashlib.sha256(body).hexdigest().encode() + body


def is_whole(path: Path) -> bool:
    held = path.read_bytes()
    return hashlib.sha256(held[64:]).hexdigest().encode() == held[:64]


def write_one(folder: Path, generation: int) -> None:
    files.write(folder / "one.bin", content(generation))


def lost_one(folder: Path) -> str:
    return "" if is_whole(folder / "one.bin") else "one.bin is torn"


def write_pair(folder: Path, generation: int) -> None:
    picture = content(generation)
    record = {"files": {"01_dot.png": hashlib.sha256(picture).hexdigest()}, "generation": generation}
    files.write_together(folder, {"01_dot.png": picture, "01_dot.json": json.dumps(record).encode()})


def lost_pair(folder: Path) -> str:
    if not is_whole(folder / "01_dot.png"):
        return "01_dot.png is torn"
    json.loads((folder / "01_dot.json").read_text())  # parted from its picture it may be: its hash then tells
    return ""


def write_part(folder: Path, generation: int) -> None:
    rows = np.random.default_rng(generation).random(20_000)
    parts.write(pd.DataFrame({"value": rows}), folder / "part.parquet", {"key": str(generation)})


def lost_part(folder: Path) -> str:
    generation = (parts.provenance(folder / "part.parquet") or {}).get("key")
    found = parts.read(folder / "part.parquet", generation)
    if generation is None or found is None:
        return "part.parquet is torn"
    same = np.array_equal(found.value, np.random.default_rng(int(generation)).random(20_000))
    return "" if same else "part.parquet holds other numbers than its key says"


def write_folder(folder: Path, generation: int) -> None:
    with files.whole_folder(folder / "model") as fresh:
        for name in ("weights", "card"):
            (fresh / name).write_bytes(content(generation))


def lost_folder(folder: Path) -> str:
    """Between the two renames at the very end the old and the new folder lie beside the place, whole."""
    places = [folder / "model"] if (folder / "model").exists() else sorted(folder.glob(".model.*"))
    held = [place for place in places if any(place.iterdir())]
    for place in held:
        there = {name: (place / name) for name in ("weights", "card")}
        if place.name == "model" or all(path.exists() for path in there.values()):
            if not all(is_whole(path) for path in there.values()):
                return f"{place.name} is torn"
            if len({path.read_bytes()[:64] for path in there.values()}) > 1:
                return f"{place.name} mixes two generations"
            return ""
    return "no whole folder is left"


@dataclass(frozen=True)
class Writer:
    write: Callable[[Path, int], None]
    lost: Callable[[Path], str]  #: what is lost, or nothing


WRITERS = {
    "file": Writer(write_one, lost_one),
    "figure and record": Writer(write_pair, lost_pair),
    "part of a sweep": Writer(write_part, lost_part),
    "folder of a model": Writer(write_folder, lost_folder),
}


def kill(name: str, folder: Path, after: float) -> str:
    """Kill a writer after some seconds of writing; return what was lost, or nothing."""
    writer = WRITERS[name]
    folder.mkdir(parents=True)
    writer.write(folder, 0)
    if not (child := os.fork()):
        generation = 0
        while True:
            generation += 1
            writer.write(folder, generation)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if said := writer.lost(folder):
        return f"{name}, killed after {after * 1000:.0f} ms: {said}"
    writer.write(folder, 1)  # what was left behind is in nobody's way
    return writer.lost(folder)


def fill(name: str, folder: Path, room: int) -> str:
    """Let a writer run out of room after so many bytes of a file; return what was lost or not said, or nothing."""
    writer = WRITERS[name]
    folder.mkdir(parents=True)
    writer.write(folder, 0)
    before = {path.name for path in folder.rglob("*")}
    if not (child := os.fork()):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            writer.write(folder, 1)
        except OSError as error:
            os._exit(0 if any(one in str(error) for one in before) else 2)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        return f"{name}, no room after {room} bytes: " + {2: "the error names no file", 3: "no error"}.get(code, "died")
    if left := {path.name for path in folder.rglob("*")} - before:
        return f"{name}, no room after {room} bytes: {sorted(left)} stayed behind"
    return writer.lost(folder)


def race(folder: Path, writes: int) -> str:
    """Let two processes write the same file, and read it all the while; return what went wrong, or nothing."""
    folder.mkdir(parents=True)
    write_one(folder, 0)
    children = []
    for one in range(2):
        if not (child := os.fork()):
            code = 1
            try:
                for generation in range(writes):
                    write_one(folder, one * writes + generation)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    torn, left = 0, set(children)
    while left:
        torn += not is_whole(folder / "one.bin")
        done, status = os.waitpid(-1, os.WNOHANG)
        if done:
            left.discard(done)
            if status:
                return "a writer failed because another one wrote"
    return f"{torn} reads found a torn file" if torn else ""
