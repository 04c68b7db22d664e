"""Makes a new file from an old one and a delta, in pieces of 64 KiB, under the bounds of `delta`.

Reads and writes through what the caller hands in, and unpacks with the caller's Zstandard library.
Never writes more than the size that is asked for, never takes more memory than the windows of the
streams and some pieces (where the old file is a prefix: and that file), and reads each byte of a
delta once. What was written counts only when `rebuild` returns: its SHA-256 is then the one that
was asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from edgefleet_contract import delta as d
from edgefleet_contract import lanes
from edgefleet_contract.bundle import Digest
from edgefleet_contract.delta import Code, Head, Kind, Operation, ReadAt
from edgefleet_contract.errors import Malformed
from edgefleet_contract.reasons import Reason

PIECE: Final = 64 * 1024


class Zstd(Protocol):
    """The part of `compression.zstd` (Python 3.14, or its backport) that reading needs."""

    ZstdError: Any
    ZstdDict: Any
    ZstdDecompressor: Any
    DecompressionParameter: Any


def rebuild(
    zstd: Zstd,
    *,
    delta: ReadAt,
    delta_size: int,
    old: ReadAt,
    old_digest: Digest,
    new_digest: Digest,
    new_size: int,
    write: Callable[[bytes], object],
) -> None:
    """Write the new file, piece by piece.

    Raises:
        Malformed: MALFORMED, the delta is not for these files or breaks a rule; DIGEST_MISMATCH,
            it made other bytes than was asked for.
    """
    head, start = d.parse_head(delta)
    if (head.old, head.new, head.new_size) != (old_digest, new_digest, new_size):
        raise Malformed(f"delta: from {head.old[:8]} to {head.new[:8]}, other files than asked for")
    if start + sum(head.packed.values()) != delta_size:
        raise Malformed(f"delta: {delta_size} bytes, its head says otherwise")
    streams = {}
    for name in sorted(head.packed):
        unpacker = _unpacker(zstd, head, old)
        streams[name] = _Stream(zstd, unpacker, delta, start, head.packed[name])
        start += head.packed[name]
    whole = hashlib.sha256()
    for piece in _pieces(head, streams, old):
        whole.update(piece)
        write(piece)
    for stream in streams.values():
        stream.finish()
    if whole.hexdigest() != new_digest:
        raise Malformed("delta: made another file", reason=Reason.DIGEST_MISMATCH)


def _unpacker(zstd: Zstd, head: Head, old: ReadAt) -> Any:
    window = d.PLANE_WINDOW_LOG if head.kind is Kind.TENSOR else d.WINDOW_LOG
    prefix = None
    if head.kind is Kind.PREFIX:
        prefix = zstd.ZstdDict(_exactly(old, 0, head.old_size), is_raw=True).as_prefix
    options = {zstd.DecompressionParameter.window_log_max: window}
    return zstd.ZstdDecompressor(prefix, options)


def _pieces(head: Head, streams: dict[str, _Stream], old: ReadAt) -> Iterator[bytes]:
    if head.kind is not Kind.TENSOR:
        for size in _cut(head.new_size):
            yield streams[d.WHOLE].take(size)
        return
    for one in head.operations:
        taken = [streams[name] for name in one.streams()]
        at = one.at
        for size in _cut(one.size):
            yield _piece(one, at, size, taken, old)
            at += size


def _piece(one: Operation, at: int, size: int, streams: list[_Stream], old: ReadAt) -> bytes:
    if one.code is Code.COPY:
        return _exactly(old, at, size)
    layout = one.layout
    raw = lanes.join([stream.take(size // layout.planes) for stream in streams], layout)
    if one.code is Code.SUB:
        return lanes.add(raw, _exactly(old, at, size), layout.item)
    if one.code is Code.XOR:
        return lanes.xor(raw, _exactly(old, at, size))
    return raw


def _cut(size: int) -> Iterator[int]:
    """The sizes of the pieces of something: all of PIECE, and the rest."""
    for _ in range(size // PIECE):
        yield PIECE
    if size % PIECE:
        yield size % PIECE


def _exactly(read_at: ReadAt, at: int, size: int) -> bytes:
    raw = read_at(at, size)
    if len(raw) != size:
        raise Malformed(f"delta: the old file ends before byte {at + size}")
    return raw


class _Stream:
    """One packed stream, unpacked as far as it is asked for."""

    def __init__(self, zstd: Zstd, unpacker: Any, delta: ReadAt, at: int, packed: int) -> None:
        self._foreign, self._unpacker, self._delta = zstd.ZstdError, unpacker, delta
        self._at, self._end = at, at + packed

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        found = bytearray()
        while len(found) < size:
            found += self._more(size - len(found))
        return bytes(found)

    def finish(self) -> None:
        """Nothing is left, packed or unpacked."""
        while not self._unpacker.eof:
            if self._more(1):
                raise Malformed("delta: a stream is longer than its operations")
        if self._at != self._end or self._unpacker.unused_data:
            raise Malformed("delta: bytes after the end of a stream")

    def _more(self, most: int) -> bytes:
        """At least one step on; up to `most` bytes."""
        if self._unpacker.eof:
            raise Malformed("delta: a stream is shorter than its operations")
        raw = b""
        if self._unpacker.needs_input:
            raw = self._delta(self._at, min(PIECE, self._end - self._at))
            if not raw:
                raise Malformed("delta: a stream is cut off")
            self._at += len(raw)
        try:
            found: bytes = self._unpacker.decompress(raw, most)
        except self._foreign as error:
            raise Malformed(f"delta: {error}") from None
        return found
