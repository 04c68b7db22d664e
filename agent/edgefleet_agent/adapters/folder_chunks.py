"""Blobs from folders: a stick that somebody carried here, or a disk that is shared.

    <folder>/blobs/<sha256>               or, as a control room's shelf lays them out,
    <folder>/blobs/<first two>/<sha256>

Folders are patterns (`/media/*`): what is mounted is looked for at each transfer. A stick is
believed for nothing: only regular files are opened, and every chunk is checked like any other. It
has no deltas: where it has the file, that is as good.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgefleet_agent.transfer.transport import Intake, Wish
from edgefleet_contract.bundle import CHUNK_SIZE, Digest
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason


class FolderChunks:
    """`Transport` from folders; relative patterns are below `root`."""

    name = "folder"
    is_metered = False

    def __init__(self, root: Path, patterns: tuple[str, ...]) -> None:
        paths = [root.absolute() / pattern / "blobs" for pattern in patterns]
        self._patterns = tuple(str(path.relative_to("/")) for path in paths)

    def sources(self, ordered: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - see `Transport`
        """See `Transport`: the folders that are there now."""
        return tuple(
            str(found) for pattern in self._patterns for found in sorted(Path("/").glob(pattern))
        )

    def end(self) -> None:
        """See `Transport`; a read from a disk ends by itself."""

    def has(self, source: str, digest: Digest) -> bool:
        """See `Transport`."""
        try:
            with _opened(source, digest):
                return True
        except (PeerError, TransientError):
            return False

    def pull(self, source: str, wish: Wish, sink: Intake) -> None:
        """See `Transport`."""
        if wish.base is not None:
            raise PeerError(f"{source} has no deltas", reason=Reason.NOT_FOUND)
        with _opened(source, wish.blob) as fd:
            for gap in sink.wanted:
                offset = gap.start
                while offset < gap.stop:
                    block = _read(fd, min(CHUNK_SIZE, gap.stop - offset), offset, source)
                    if not block:
                        break
                    sink.take(offset, block)
                    offset += len(block)


@contextmanager
def _opened(source: str, digest: Digest) -> Iterator[int]:
    for path in (f"{source}/{digest}", f"{source}/{digest[:2]}/{digest}"):
        try:
            # Without NONBLOCK a pipe would be waited for, for ever.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TransientError(f"{path}: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                break
            yield fd
            return
        finally:
            os.close(fd)
    raise PeerError(f"{source} does not have {digest[:12]}", reason=Reason.NOT_FOUND)


def _read(fd: int, size: int, offset: int, source: str) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError as error:  # somebody pulled it out
        raise TransientError(f"{source}: {error.strerror}") from None
