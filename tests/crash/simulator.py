"""Runs the agent's code on a disk that is recorded, and looks at every disk a cut may leave.

`Recorder` is the file-system layer of the agent with a memory: it performs each call on a real
folder and writes down what it was. `explore` enumerates what a power cut after any of the calls may
have left (`disk.py`), lays each out in a folder, and has a check look at it: the check runs the
agent's own recovery on it and names what it finds wrong.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from edgefleet_agent.adapters import fs as layer
from edgefleet_agent.adapters.fs import FileSystem
from tests.crash.disk import (
    ROOT,
    Base,
    Call,
    Cut,
    Disk,
    Linked,
    Mark,
    Model,
    Moved,
    Synced,
    Unlinked,
    Wrote,
    disks,
)

Check: TypeAlias = Callable[[Path, Sequence[Mark]], "list[str]"]
"""Looks at a disk, laid out in a folder, and at what had been promised; says what is wrong."""


class Recorder(FileSystem):
    """The real calls below `root`, written down. `site` names who asked for an fsync."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[Call] = []
        self._lock = threading.RLock()
        self._nodes: dict[Path, int] = {root: ROOT}
        self._open: dict[int, int] = {}
        self._count = ROOT
        self.base = self._look()

    def mark(self, word: str, value: object = None) -> None:
        """Note what the program promised."""
        with self._lock:
            self.calls.append(Mark(word, value))

    def make_folder(self, path: Path) -> None:
        with self._lock:
            fresh = not path.is_dir()
            super().make_folder(path)
            if fresh:
                self._link(path)

    @contextmanager
    def open_new(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        with super().open_new(path, mode=mode) as file:
            with self._lock:
                self._open[id(file)] = self._link(path)
            yield file

    @contextmanager
    def open_resumable(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        fresh = not path.exists()
        with super().open_resumable(path, mode=mode) as file:
            with self._lock:
                self._open[id(file)] = self._link(path) if fresh else self._nodes[path]
            yield file

    def write_at(self, file: BinaryIO, offset: int, data: bytes) -> None:
        with self._lock:
            self.calls.append(Wrote(self._open[id(file)], offset, bytes(data)))
            super().write_at(file, offset, data)

    def truncate(self, file: BinaryIO, size: int) -> None:
        with self._lock:
            self.calls.append(Cut(self._open[id(file)], size))
            super().truncate(file, size)

    def fsync(self, file: BinaryIO) -> None:
        with self._lock:
            self.calls.append(Synced(self._open[id(file)], f"{_site()}: fsync"))

    def fsync_dir(self, path: Path) -> None:
        with self._lock:
            self.calls.append(Synced(self._nodes[path], f"{_site()}: fsync of the folder"))

    def replace(self, source: Path, target: Path) -> None:
        with self._lock:
            super().replace(source, target)
            node = self._nodes.pop(source)
            self._nodes[target] = node
            gone = Unlinked(self._nodes[source.parent], source.name)
            self.calls.append(Moved(gone, Linked(self._nodes[target.parent], target.name, node)))

    def unlink(self, path: Path) -> None:
        with self._lock:
            existed = path.exists()
            super().unlink(path)
            if existed:
                del self._nodes[path]
                self.calls.append(Unlinked(self._nodes[path.parent], path.name))

    def _link(self, path: Path) -> int:
        self._count += 1
        self._nodes[path] = self._count
        self.calls.append(Linked(self._nodes[path.parent], path.name, self._count))
        return self._count

    def _look(self) -> Base:
        """What stands below the root now, taken for durable."""
        folders: dict[int, dict[str, int]] = {ROOT: {}}
        files: dict[int, bytes] = {}
        for path in sorted(self.root.rglob("*")):
            self._count += 1
            self._nodes[path] = self._count
            folders[self._nodes[path.parent]][path.name] = self._count
            if path.is_dir():
                folders[self._count] = {}
            else:
                files[self._count] = path.read_bytes()
        return Base(folders, files)

    @property
    def known_folders(self) -> Base:
        """The base, with the folders that came later: empty until something is linked in them."""
        folders = {number: dict(names) for number, names in self.base.folders.items()}
        for path, number in self._nodes.items():
            if path.is_dir():
                folders.setdefault(number, {})
        return Base(folders, self.base.files)


class InPlace(Recorder):
    """A mutant: files are overwritten where they are, instead of replaced."""

    @contextmanager
    def open_new(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        final = path.with_name(path.name.removesuffix(".new"))
        with self.open_resumable(final, mode=0o600) as file:
            self.truncate(file, 0)
            yield file

    def replace(self, source: Path, target: Path) -> None:
        if source.name != f"{target.name}.new":
            super().replace(source, target)


def _site() -> str:
    """The function of the agent that led here, beyond the layer itself."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in (layer.__file__, __file__):
        frame = frame.f_back
    return frame.f_code.co_qualname


@dataclass
class Explored:
    """How many disks were looked at, and what was wrong with which."""

    calls: int = 0
    states: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    bad: int = 0

    def __iadd__(self, other: Explored) -> Explored:
        self.calls += other.calls
        self.states += other.states
        self.bad += other.bad
        self.wrong += other.wrong
        return self


def explore(
    recorder: Recorder,
    check: Check,
    folder: Path,
    *,
    models: Sequence[Model] = tuple(Model),
    without: str = "",
    enough: int = 0,
    every: int = 1,
) -> Explored:
    """Look at each disk once that a cut after each call may leave.

    Args:
        recorder: what was called.
        check: says what is wrong with a disk.
        folder: room for the disk at hand.
        models: what is promised about names.
        without: the site of an fsync that is left out: a mutant.
        enough: stop at so many bad disks; 0 looks at all.
        every: look at each n-th disk only.
    """
    base = recorder.known_folders
    calls = [c for c in recorder.calls if not (isinstance(c, Synced) and c.site == without)]
    seen: set[bytes] = set()
    found = Explored(calls=sum(not isinstance(call, Mark) for call in calls))
    for cut in range(len(calls) + 1):
        if 0 < cut < len(calls) and isinstance(calls[cut], Mark):
            continue  # nothing happened in between
        marks = tuple(call for call in calls[:cut] if isinstance(call, Mark))
        for model in models:
            for disk in disks(base, calls[:cut], model):
                key = _digest(disk, len(marks))
                if key in seen:
                    continue
                seen.add(key)
                if len(seen) % every:
                    continue
                found.states += 1
                lay_out(disk, folder)
                wrong = check(folder, marks)
                found.bad += bool(wrong)
                found.wrong.update(wrong)
                if enough and found.bad >= enough:
                    return found
    return found


def lay_out(disk: Disk, folder: Path) -> None:
    """The disk as a folder, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, raw in disk.items():
        if raw is None:
            (folder / name).mkdir(mode=0o700)
        else:
            (folder / name).write_bytes(raw)


def _digest(disk: Disk, marks: int) -> bytes:
    whole = hashlib.sha256(b"%d" % marks)
    for name, raw in sorted(disk.items()):
        whole.update(
            name.encode() + b"\0" + (b"/" if raw is None else hashlib.sha256(raw).digest())
        )
    return whole.digest()


def sites(recorder: Recorder) -> list[str]:
    """Everyone who asked for an fsync, in order."""
    return list(dict.fromkeys(c.site for c in recorder.calls if isinstance(c, Synced)))
