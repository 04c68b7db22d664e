"""The content-addressed store: files named by their SHA-256, written once, never changed.

    store/blobs/<sha256>        whole, verified, read-only
    store/parts/<sha256>.part   on the way in; what is good of it is found again by hashing
    store/parts/<new>-<old>.delta   a delta on the way in; what it makes is hashed

A file enters `blobs/` only under the digest of its bytes: fsync, rename, fsync of the folder. What
no slot needs is collected, never what serves, what served before, or what an install is bringing.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgefleet_agent.adapters.fs import FileSystem, read_surely, write_durably
from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import DeviceError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

HEADROOM = 0.1
"""The share of the disk that stays free."""


class Store:
    """The files of a device's models, by digest."""

    def __init__(self, root: Path, fs: FileSystem | None = None) -> None:
        self.fs = fs or FileSystem()
        self._blobs = root / "blobs"
        self._parts = root / "parts"
        for folder in (self._blobs, self._parts):
            self.fs.mkdir(folder)

    def path(self, digest: Digest) -> Path:
        """Where the file of a digest is, or would be."""
        return self._blobs / digest

    def part_path(self, digest: Digest) -> Path:
        """Where a file is gathered on its way in."""
        return self._parts / f"{digest}.part"

    def delta_path(self, old: Digest, new: Digest) -> Path:
        """Where a delta is gathered on its way in."""
        return self._parts / f"{new}-{old}.delta"

    def has(self, digest: Digest) -> bool:
        """Whether the file is in the store."""
        return self.path(digest).is_file()

    def read(self, digest: Digest) -> bytes:
        """The bytes of a file, hashed again: an SD card forgets. For small files.

        Raises:
            DeviceError: STORAGE_FAILED where it is missing, unreadable, or has changed; a file that
                has changed is removed, so that it is fetched again.
        """
        with self._reading(digest):
            raw = read_surely(self.fs, self.path(digest))
        self._require(digest, sha256(raw))
        return raw

    def check(self, digest: Digest) -> None:
        """Hash a file of any size again. Raises as `read` does."""
        with self._reading(digest), self.path(digest).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        self._require(digest, found)

    @contextmanager
    def _reading(self, digest: Digest) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeviceError(
                f"cannot read {digest[:12]} from the store: {error.strerror}",
                reason=Reason.STORAGE_FAILED,
            ) from None

    def _require(self, digest: Digest, found: str) -> None:
        if found != digest:
            self._remove([self.path(digest)])
            raise DeviceError(
                f"{digest[:12]} has changed on the disk", reason=Reason.STORAGE_FAILED
            )

    def put(self, digest: Digest, raw: bytes) -> None:
        """Take in a small file whole. `raw` must have that digest.

        Raises:
            DeviceError: NO_SPACE or STORAGE_FAILED.
        """
        assert hashlib.sha256(raw).hexdigest() == digest  # the fetcher verified it
        try:
            write_durably(self.fs, self.path(digest), raw, mode=0o400)
        except OSError as error:
            raise disk_error(f"storing {digest[:12]}", error) from error

    def sync_part(self, digest: Digest, part: BinaryIO) -> None:
        """Bring a gathered part to the disk. One that the disk refused is gone afterwards.

        The kernel takes what it could not write for written, so that the next fsync would succeed
        without it: what is read back from such a file is not what a power cut leaves.

        Raises:
            OSError: the disk gave an error.
        """
        try:
            self.fs.fsync(part)
        except OSError:
            self._remove([self.part_path(digest)])
            raise

    def admit(self, digest: Digest) -> None:
        """Move a gathered, verified and fsynced part to its place.

        Raises:
            DeviceError: STORAGE_FAILED.
        """
        part = self.part_path(digest)
        try:
            self.fs.replace(part, self.path(digest))
            self.fs.chmod(self.path(digest), 0o400)  # before: a cut leaves a part nobody can fill
            self.fs.fsync_dir(self._blobs)
        except OSError as error:
            raise disk_error(f"storing {digest[:12]}", error) from error

    def require_space(self, size: int) -> None:
        """Nothing, if `size` bytes fit and a tenth of the disk stays free.

        Raises:
            DeviceError: NO_SPACE, with what is needed and what there is.
        """
        usage = shutil.disk_usage(self._blobs)
        left = usage.free - int(usage.total * HEADROOM)
        if size > left:
            raise DeviceError(
                f"{size} bytes are needed, {max(left, 0)} of {usage.total} can be used",
                reason=Reason.NO_SPACE,
                hint="free some disk space, or remove a model",
            )

    def collect(self, keep: Iterable[Digest]) -> int:
        """Remove every file that is not in `keep`; the number of files removed.

        Parts are kept too when their digest is, until the whole is there. What the disk does not
        let go is tried again at the next collection.
        """
        wanted = set(keep)
        coming = {f"{digest}.part" for digest in wanted if not self.has(digest)}
        doomed = [path for path in self._blobs.iterdir() if path.name not in wanted]
        doomed += [path for path in self._parts.iterdir() if path.name not in coming]
        return self._remove(doomed)

    def _remove(self, paths: Iterable[Path]) -> int:
        removed = 0
        for path in paths:
            try:
                self.fs.unlink(path)
            except OSError as error:
                log.warning("cannot remove %s: %s", path.name[:12], error.strerror)
            else:
                removed += 1
        return removed


def disk_error(doing: str, error: OSError) -> DeviceError:
    """What an `OSError` of the disk means for an install."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = Reason.NO_SPACE if full else Reason.STORAGE_FAILED
    return DeviceError(f"{doing}: {error.strerror}", reason=reason)
