"""The shelf on a disk: `blobs/<first two digits>/<digest>`, read-only once it is there.

A blob is written to a temporary file, hashed on the way, fsynced, renamed, and the folder is
fsynced: what has its name has its digest. What a crash leaves behind is a temporary file, removed
on the next start.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.adapters.gather import PIECE, gather
from edgefleet_fleet.datadir import sync_folder
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Readable

_PART: Final = ".part-"


class FileShelf:
    """Blobs below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Make the folder, and remove what a crash left half-written."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(f"*/{_PART}*"):
            leftover.unlink(missing_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where a blob lies, or would lie."""
        return self._root / digest[:2] / digest

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return self.path(digest).is_file()

    def put(self, digest: Digest, source: Readable, *, max_bytes: int) -> int:
        """Take a blob; its size.

        Raises:
            Malformed: DIGEST_MISMATCH, or TOO_LARGE.
            OperatorError: the disk is full or cannot be written.
        """
        path = self.path(digest)
        try:
            path.parent.mkdir(exist_ok=True)
            sync_folder(self._root)
            return self._write(path, digest, source, max_bytes)
        except OSError as error:
            hint = "make room on the disk" if error.errno == errno.ENOSPC else ""
            raise OperatorError(
                f"blob {digest[:8]}: cannot write the shelf: {error.strerror}", hint=hint
            ) from None

    def _write(self, path: Path, digest: Digest, source: Readable, max_bytes: int) -> int:
        part = path.with_name(f"{_PART}{secrets.token_hex(8)}")
        try:
            with part.open("xb") as file:
                size = gather(digest, source, file, max_bytes=max_bytes)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o444)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
        return size

    def size(self, digest: Digest) -> int | None:
        """The size of a blob, bytes; None where it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, digest: Digest) -> None:
        """Take a blob away, if it is there."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise OperatorError(f"blob {digest[:8]}: {error.strerror}") from None

    def digests(self, *, before: float | None = None) -> Iterator[Digest]:
        """Every blob that is there, in the order of the digests; put before a time, if given."""
        for path in sorted(self._root.glob("??/*")):
            if path.name.startswith(_PART):
                continue
            try:
                if before is None or path.stat().st_mtime < before:
                    yield Digest(path.name)
            except FileNotFoundError:
                continue  # removed meanwhile

    def read(self, digest: Digest, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a blob, from `start`, in pieces.

        Raises:
            NotFound: it is not there.
        """
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest[:8]} is not on the shelf") from None
        return _pieces(file, start, length)


def _pieces(file: BinaryIO, start: int, length: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = length
        while left is None or left > 0:
            piece = file.read(PIECE if left is None else min(PIECE, left))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece
