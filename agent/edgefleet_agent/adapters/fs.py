"""The few file-system calls that durability hangs on, behind one small injectable layer.

Everything that must survive a power cut is written through `FileSystem`, so that the same code can
be run against a layer that fails, kills or forgets at any call. The order of calls that makes a
write durable is `write_durably`: write, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class FileSystem:
    """The real calls. Errors are `OSError`, as the system gives them."""

    def mkdir(self, path: Path) -> None:
        """Make a folder and what leads to it durably; an existing one is no error."""
        if path.is_dir():
            return
        self.mkdir(path.parent)
        self.make_folder(path)
        self.fsync_dir(path.parent)

    def make_folder(self, path: Path) -> None:
        """Make one folder, mode 0700; an existing one is no error."""
        path.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def open_new(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        """A new file for writing; what a power cut left there goes, whatever its mode."""
        self.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "wb", buffering=0) as file:
            yield file

    @contextmanager
    def open_resumable(self, path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        """A file for reading and writing, created empty where there is none."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            yield file

    def read(self, path: Path) -> bytes:
        """All of a file."""
        return path.read_bytes()

    def write(self, file: BinaryIO, data: bytes) -> None:
        """All of `data`, at the file's position."""
        offset = file.tell()
        self.write_at(file, offset, data)
        file.seek(offset + len(data))

    def write_at(self, file: BinaryIO, offset: int, data: bytes) -> None:
        """All of `data`, at `offset`; the file's position stays."""
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fileno(), view, offset)
            view, offset = view[written:], offset + written

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Cut the file to `size` bytes."""
        file.truncate(size)

    def fsync(self, file: BinaryIO) -> None:
        """The file's bytes are on the disk when this returns."""
        os.fsync(file.fileno())

    def fsync_dir(self, path: Path) -> None:
        """The folder's names are on the disk when this returns."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, taking the place of what has it, in one step."""
        source.replace(target)

    def chmod(self, path: Path, mode: int) -> None:
        """Change who may read and write a file."""
        path.chmod(mode)

    def chown(self, path: Path, user: int, group: int) -> None:
        """Change whose a file is; root alone can, and nothing is done where nothing changes."""
        found = path.stat()
        if (found.st_uid, found.st_gid) != (user, group):
            os.chown(path, user, group)

    def unlink(self, path: Path) -> None:
        """Remove a file; a missing one is no error."""
        path.unlink(missing_ok=True)


def write_durably(
    fs: FileSystem,
    path: Path,
    data: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace a file so that a power cut leaves the old one or the new one, whole.

    `owner`: user and group that it is given before it has its name.
    """
    fresh = path.with_name(path.name + ".new")
    with fs.open_new(fresh, mode=mode) as file:
        fs.write(file, data)
        if owner is not None:
            fs.chown(fresh, *owner)
        fs.fsync(file)
    fs.replace(fresh, path)
    fs.fsync_dir(path.parent)


def read_surely(fs: FileSystem, path: Path) -> bytes:
    """All of a file; where the disk gives an error, on the second try.

    An error that passes must not cost a model that serves, or a step of the journal.
    """
    try:
        return fs.read(path)
    except FileNotFoundError:
        raise
    except OSError:
        return fs.read(path)
