"""File-system layers that stop the process, or give an error, at any call that one names.

Calls are counted as they come, so that nothing here knows what an install does, or in which order.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from edgefleet_agent.adapters.fs import FileSystem


class Counting(FileSystem):
    """The real calls, counted from 1; `ahead` comes before each, `halfway` inside a write."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def ahead(self, number: int, name: str) -> None:
        """Called before a call is made."""

    def halfway(self, number: int) -> None:
        """Called when half of a write is done; only where `splits` says so."""

    def splits(self, number: int) -> bool:
        """Whether a write is to be done by halves."""
        return False

    def _next(self, name: str) -> int:
        with self._lock:
            self.count += 1
            number = self.count
        self.ahead(number, name)
        return number

    def make_folder(self, path: Path) -> None:
        self._next("make_folder")
        super().make_folder(path)

    @contextmanager
    def open_new(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        self._next("open_new")
        with super().open_new(path, mode=mode) as file:
            yield file

    @contextmanager
    def open_resumable(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        self._next("open_resumable")
        with super().open_resumable(path, mode=mode) as file:
            yield file

    def read(self, path: Path) -> bytes:
        self._next("read")
        return super().read(path)

    def write_at(self, file: BinaryIO, offset: int, data: bytes) -> None:
        number = self._next("write")
        half = len(data) // 2 if self.splits(number) else 0
        if half:
            super().write_at(file, offset, data[:half])
            self.halfway(number)
        super().write_at(file, offset + half, data[half:])

    def truncate(self, file: BinaryIO, size: int) -> None:
        self._next("truncate")
        super().truncate(file, size)

    def fsync(self, file: BinaryIO) -> None:
        self._next("fsync")
        super().fsync(file)

    def fsync_dir(self, path: Path) -> None:
        self._next("fsync_dir")
        super().fsync_dir(path)

    def replace(self, source: Path, target: Path) -> None:
        self._next("replace")
        super().replace(source, target)

    def chmod(self, path: Path, mode: int) -> None:
        self._next("chmod")
        super().chmod(path, mode)

    def unlink(self, path: Path) -> None:
        self._next("unlink")
        super().unlink(path)


class Killing(Counting):
    """SIGKILL to this process at call `at`: before it, or in the middle of its write."""

    def __init__(self, at: int, *, in_the_middle: bool = False) -> None:
        super().__init__()
        self._at, self._in_the_middle = at, in_the_middle

    def ahead(self, number: int, name: str) -> None:
        if number == self._at and not (self._in_the_middle and name == "write"):
            os.kill(os.getpid(), signal.SIGKILL)

    def splits(self, number: int) -> bool:
        return self._in_the_middle and number == self._at

    def halfway(self, number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Fault(StrEnum):
    """What a disk may do, from one call on or at one call only."""

    EIO_ONCE = "I/O error, once"
    EIO = "I/O error, for ever"
    FULL = "no space left, for ever"
    READ_ONLY = "read-only, for ever"
    SHORT_WRITE = "half a write, then no space, once"

    @property
    def is_passing(self) -> bool:
        """Whether it is over after one call."""
        return self in (Fault.EIO_ONCE, Fault.SHORT_WRITE)


_GROWS = frozenset({"make_folder", "open_new", "open_resumable", "write"})
_READS = frozenset({"read"})


class Faulty(Counting):
    """A disk with a fault from call `at` on, until `mend`."""

    def __init__(self, fault: Fault, at: int) -> None:
        super().__init__()
        self._fault, self._at = fault, at
        self.hits = 0

    def strike(self, fault: Fault) -> None:
        """From the next call on the disk has this fault."""
        self._fault, self._at = fault, self.count + 1

    def mend(self) -> None:
        """From now on the disk is good."""
        self._at = 1 << 62

    def ahead(self, number: int, name: str) -> None:
        if number < self._at or (self._fault.is_passing and number > self._at):
            return
        match self._fault:
            case Fault.EIO_ONCE:
                self._fail(errno.EIO)
            case Fault.EIO if name not in _READS:
                self._fail(errno.EIO)
            case Fault.FULL if name in _GROWS:
                self._fail(errno.ENOSPC)
            case Fault.READ_ONLY if name not in _READS:
                self._fail(errno.EROFS)

    def splits(self, number: int) -> bool:
        return self._fault is Fault.SHORT_WRITE and number == self._at

    def halfway(self, number: int) -> None:
        self._fail(errno.ENOSPC)

    def _fail(self, number: int) -> None:
        self.hits += 1
        raise OSError(number, os.strerror(number))


class Lazy(FileSystem):
    """A mutant: it never waits for the disk."""

    def fsync(self, file: BinaryIO) -> None:
        """Leave it to the kernel."""

    def fsync_dir(self, path: Path) -> None:
        """Leave it to the kernel."""
