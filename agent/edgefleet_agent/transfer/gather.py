"""A blob on its way in: whole good chunks only, wherever they come from and in whatever order.

    store/parts/<sha256>.part   good chunks in their places; anything may be between them

Which chunks of a part are good is not written down anywhere: it is found by hashing them when a
transfer begins. So no note can lie after a power cut, and it does not matter who put bytes there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO, Final

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_contract.bundle import CHUNK_SIZE, Digest, sha256
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason

DIGEST_BYTES: Final = 32


class Document:
    """A `Sink` for a small blob that is kept in memory; `raw` once it is settled."""

    def __init__(self, digest: Digest, *, max_bytes: int, what: str) -> None:
        self._digest, self._most = digest, max_bytes
        self._blocks: dict[int, bytes] = {}
        self.what = what
        self.size: int | None = None
        self.raw = b""

    @property
    def wanted(self) -> tuple[range, ...]:
        """See `Sink`."""
        return (range(self._most),)

    def take(self, offset: int, block: bytes) -> None:
        """See `Sink`."""
        if offset + len(block) > self._most:
            raise _too_large(self.what, self._most)
        self._blocks[offset] = block

    def begin(self) -> None:
        """Forget what another source gave."""
        self._blocks.clear()

    def settle(self, source: str) -> None:
        """The source has given all that it has.

        Raises:
            PeerError: DIGEST_MISMATCH.
        """
        self.raw = b"".join(block for _, block in sorted(self._blocks.items()))
        if sha256(self.raw) != self._digest:
            raise PeerError(
                f"{self.what}: {source} gave other bytes than were signed",
                reason=Reason.DIGEST_MISMATCH,
            )


class Gather:
    """A `Sink` for a file, on an open part. `progress` is told the bytes that are good.

    `table` is the chunk list: 32 bytes for each chunk, as signed.
    """

    def __init__(
        self,
        fs: FileSystem,
        file: BinaryIO,
        *,
        size: int,
        table: bytes,
        what: str,
        progress: Callable[[int], None],
    ) -> None:
        self._fs, self._file, self._table, self._progress = fs, file, table, progress
        self.what = what
        self.size: int | None = size
        self._size = size
        self._good = bytearray(-(-size // CHUNK_SIZE))
        self._pending: dict[int, dict[int, bytes]] = {}
        self._whole = hashlib.sha256()
        self._hashed = 0
        self.done = 0
        self._look()

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is there."""
        return self.done == self._size

    @property
    def wanted(self) -> tuple[range, ...]:
        """See `Sink`."""
        found: list[range] = []
        index = self._good.find(0)
        while index >= 0:
            after = self._good.find(1, index)
            stop = self._size if after < 0 else after * CHUNK_SIZE
            found.append(range(index * CHUNK_SIZE, stop))
            index = -1 if after < 0 else self._good.find(0, after)
        return tuple(found)

    def take(self, offset: int, block: bytes) -> None:
        """See `Sink`."""
        if offset + len(block) > self._size:
            raise _too_large(self.what, self._size)
        while block:
            index, inside = divmod(offset, CHUNK_SIZE)
            piece, block = block[: CHUNK_SIZE - inside], block[CHUNK_SIZE - inside :]
            offset += len(piece)
            if not self._good[index]:
                self._take_piece(index, inside, piece)

    def begin(self) -> None:
        """Forget the pieces of chunks that broke off: they are asked for again."""
        self._pending.clear()

    def settle(self, source: str) -> None:
        """The source has given all that it has.

        Raises:
            TransientError: that was not all that was wanted.
        """
        if not self.is_complete:
            raise TransientError(f"{source} gave {self.done} of {self._size} bytes")

    def finish(self, digest: Digest) -> None:
        """Hold the whole against what was signed.

        Raises:
            PeerError: DIGEST_MISMATCH: the chunks are what was signed, and the whole is not.
        """
        self._hash_on()
        if self._whole.hexdigest() != digest:
            raise PeerError(
                f"{self.what}: the whole is not what was signed", reason=Reason.DIGEST_MISMATCH
            )

    def _look(self) -> None:
        """Find the good chunks of what is there."""
        for index in range(len(self._good)):
            chunk = self._read(index)
            if not chunk:
                break
            if self._is_right(index, chunk):
                self._mark(index, chunk)
        self._fs.truncate(self._file, min(self._size, self._end_of_good()))
        self._progress(self.done)

    def _end_of_good(self) -> int:
        return (self._good.rfind(1) + 1) * CHUNK_SIZE

    def _read(self, index: int) -> bytes:
        self._file.seek(index * CHUNK_SIZE)
        return self._file.read(self._length(index))

    def _length(self, index: int) -> int:
        return min(CHUNK_SIZE, self._size - index * CHUNK_SIZE)

    def _is_right(self, index: int, chunk: bytes) -> bool:
        wanted = self._table[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        return hashlib.sha256(chunk).digest() == wanted

    def _mark(self, index: int, chunk: bytes) -> None:
        self._good[index] = 1
        self.done += len(chunk)
        if index == self._hashed:  # the usual case: it need not be read again
            self._whole.update(chunk)
            self._hashed += 1

    def _hash_on(self) -> None:
        while self._hashed < len(self._good) and self._good[self._hashed]:
            self._whole.update(self._read(self._hashed))
            self._hashed += 1

    def _take_piece(self, index: int, inside: int, piece: bytes) -> None:
        pieces = self._pending.setdefault(index, {})
        pieces[inside] = piece
        if sum(map(len, pieces.values())) < self._length(index):
            return
        del self._pending[index]
        chunk = b"".join(piece for _, piece in sorted(pieces.items()))
        if not self._is_right(index, chunk):
            raise PeerError(
                f"{self.what}: chunk {index} is not what was signed",
                reason=Reason.DIGEST_MISMATCH,
            )
        self._fs.write_at(self._file, index * CHUNK_SIZE, chunk)
        self._mark(index, chunk)
        self._progress(self.done)


def _too_large(what: str, most: int) -> PeerError:
    return PeerError(
        f"{what}: more than the {most} bytes that were announced", reason=Reason.TOO_LARGE
    )
