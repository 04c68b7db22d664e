"""Deltas for tests, packed by hand: what an encoder would do for operations that a test names."""

from __future__ import annotations

import hashlib

from backports import zstd

from edgefleet_contract import delta as d
from edgefleet_contract import lanes
from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.delta import Code, Head, Kind, Operation
from edgefleet_contract.delta_reader import rebuild


def packed(raw: bytes, *, window_log: int = 17, prefix: bytes = b"") -> bytes:
    """One frame."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 3,
        zstd.CompressionParameter.window_log: window_log,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    given = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    packer = zstd.ZstdCompressor(options=options, zstd_dict=given)
    return packer.compress(raw) + packer.flush()  # in two steps: else the window shrinks to fit


def whole(kind: Kind, old: bytes, new: bytes) -> bytes:
    """A delta of a whole file."""
    stream = packed(new, prefix=old if kind is Kind.PREFIX else b"")
    files = (sha256(old), len(old), sha256(new), len(new))
    return d.render_head(Head(kind, *files, {d.WHOLE: len(stream)})) + stream


def by_operations(old: bytes, new: bytes, operations: tuple[Operation, ...]) -> bytes:
    """A delta of operations that make all of `new`."""
    raw: dict[str, bytes] = {}
    start = 0
    for one in operations:
        piece, base = new[start : start + one.size], old[one.at : one.at + one.size]
        start += one.size
        if one.code is Code.SUB:
            piece = lanes.subtract(piece, base, one.layout.item)
        elif one.code is Code.XOR:
            piece = lanes.xor(piece, base)
        for name, plane in zip(one.streams(), lanes.split(piece, one.layout), strict=False):
            raw[name] = raw.get(name, b"") + plane
    streams = {name: packed(raw[name]) for name in sorted(raw)}
    sizes = {name: len(stream) for name, stream in streams.items()}
    files = (sha256(old), len(old), sha256(new), len(new))
    head = d.render_head(Head(Kind.TENSOR, *files, sizes, operations))
    return head + b"".join(streams.values())


def noise(seed: str, size: int) -> bytes:
    """The first bytes of SHAKE-256 of a text."""
    return hashlib.shake_256(seed.encode()).digest(size)


class Out:
    """What a reader wrote; the most that it ever asked for at once."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def write(self, piece: bytes) -> None:
        self.raw += piece


def read(delta: bytes, old: bytes, new: Digest, size: int, out: Out | None = None) -> bytes:
    """What a delta makes of `old`.

    Raises:
        Malformed: as `rebuild`.
    """
    out = out or Out()
    rebuild(
        zstd,
        delta=lambda at, most: delta[at : at + most],
        delta_size=len(delta),
        old=lambda at, most: old[at : at + most],
        old_digest=sha256(old),
        new_digest=new,
        new_size=size,
        write=out.write,
    )
    return bytes(out.raw)
