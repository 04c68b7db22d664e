"""Blobs as they arrive: what broke off is kept, and goes on where it ended.

    uploads/<digest>

A part is a file of the data directory, whatever shelf there is. When its last byte is there it goes
to the shelf, which checks the digest; a part of wrong bytes is removed. One upload of a blob at a
time. Parts that nobody touched for a week are removed at the next upload.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from edgefleet_contract.bundle import Digest, is_digest
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.ports import Readable
from edgefleet_fleet.work import Room

_PIECE: Final = 256 * 1024
_KEPT_S: Final = 7 * 24 * 3600


class Uploads:
    """The blobs that are on their way."""

    def __init__(self, room: Room, folder: Path) -> None:
        self._room = room
        self._folder = folder

    def offset(self, digest: str) -> int:
        """How many bytes of a blob are there; all of them where it is on the shelf.

        Raises:
            Malformed: not a digest.
            NotFound: no bundle names it.
        """
        size = self._size_of(digest)
        if self._room.shelf.has(Digest(digest)):
            return size
        try:
            return min(size, self._part(digest).stat().st_size)
        except FileNotFoundError:
            return 0

    def put(self, digest: str, source: Readable, *, offset: int = 0) -> int:
        """Take a blob, or the rest of one from `offset` on; its size once it is on the shelf.

        Raises:
            Malformed: not a digest, more bytes than it has, or bytes of another digest.
            NotFound: no bundle names it.
            Conflict: `offset` is not where it ended, the bytes ended early, or somebody else
                uploads it at this moment.
            OperatorError: the disk or the shelf does not take it.
        """
        size = self._size_of(digest)
        name = f"blob {digest[:8]}"
        try:
            with self._opened(digest) as part:
                there = part.seek(0, 2)
                if offset > there:
                    raise Conflict(f"{name}: {there} bytes are there, not {offset}")
                part.truncate(offset)
                part.seek(offset)
                self._append(part, source, size=size, name=name)
                there = part.tell()
                if there < size:
                    raise Conflict(f"{name}: {there} of {size} bytes came", hint="send the rest")
                part.seek(0)
                try:
                    taken = self._room.shelf.put(Digest(digest), part, max_bytes=size)
                except Malformed:
                    self._part(digest).unlink(missing_ok=True)
                    raise
                self._part(digest).unlink(missing_ok=True)
                return taken
        except OSError as error:
            hint = "make room on the disk" if error.errno == errno.ENOSPC else ""
            raise OperatorError(f"{name}: cannot be kept: {error.strerror}", hint=hint) from None

    def _append(self, part: IO[bytes], source: Readable, *, size: int, name: str) -> None:
        there = part.tell()
        while piece := source.read(_PIECE):
            there += len(piece)
            if there > size:
                raise Malformed(
                    f"{name}: more than the {size} bytes that it may have", reason=Reason.TOO_LARGE
                )
            part.write(piece)

    def _size_of(self, digest: str) -> int:
        if not is_digest(digest):
            raise Malformed("a blob is named by 64 lower-case hex digits")
        with self._room.store.begin() as tx:
            size = tx.bundles.wants(digest)
        if size is None:
            raise NotFound(f"no bundle names blob {digest[:8]}")
        return size

    @contextlib.contextmanager
    def _opened(self, digest: str) -> Iterator[IO[bytes]]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._tidy()
        with self._part(digest).open("a+b") as opened, self._part(digest).open("r+b", 0) as part:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"blob {digest[:8]} is being uploaded already") from None
            yield part

    def _part(self, digest: str) -> Path:
        return self._folder / digest

    def _tidy(self) -> None:
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()
