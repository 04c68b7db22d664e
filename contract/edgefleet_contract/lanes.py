"""Arithmetic on many small integers at once, on bytes, without NumPy.

A run of bytes is read as little-endian integers (lanes) of 1, 2, 4 or 8 bytes. Python's long
integers do the work: one operation for thousands of lanes, with the top bit of each lane kept
apart so that nothing is carried into the next (Lamport, "Multiple byte processing with full-word
instructions", 1975). A device applies a delta so without loading NumPy.

Laws: `add(subtract(new, old, w), old, w) == new`; `join(split(raw, l), l) == raw`.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache


class Layout(IntEnum):
    """How wide a lane is, and into which planes a run of lanes is taken apart.

    Differences of small integers are packed better by their digits: CRUMBS are lanes of one byte,
    four of them at a time, in planes of their lowest two bits, the next two, and so on.
    """

    CRUMBS = 0
    BYTES = 1
    PAIRS = 2
    QUADS = 4
    OCTETS = 8

    @property
    def item(self) -> int:
        """The width of a lane, bytes."""
        return self.value or 1

    @property
    def planes(self) -> int:
        """How many planes there are; each has the same share of the bytes."""
        return self.value or 4


def subtract(new: bytes, old: bytes, item: int) -> bytes:
    """`new - old` by lanes, modulo its width, zigzag-coded: 0, -1, 1, -2, … become 0, 1, 2, 3, ….

    Small differences of either sign become small numbers, so that the upper bytes are zeros.
    """
    size, bits = len(new), 8 * item
    low, high, rest = _masks(item, size)
    a, b = int.from_bytes(new, "little"), int.from_bytes(old, "little")
    difference = ((a | high) - (b & rest)) ^ ((a ^ ~b) & high)
    sign = (difference >> (bits - 1)) & low
    zigzag = ((difference & rest) << 1) ^ ((sign << bits) - sign)
    return zigzag.to_bytes(size, "little")


def add(coded: bytes, old: bytes, item: int) -> bytes:
    """What `subtract` was made from: `old` plus the differences."""
    size, bits = len(coded), 8 * item
    low, high, rest = _masks(item, size)
    z, b = int.from_bytes(coded, "little"), int.from_bytes(old, "little")
    sign = z & low
    difference = ((z >> 1) & rest) ^ ((sign << bits) - sign)
    return (((b & rest) + (difference & rest)) ^ ((b ^ difference) & high)).to_bytes(size, "little")


def xor(one: bytes, other: bytes) -> bytes:
    """The bits in which two runs of one length differ."""
    mixed = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return mixed.to_bytes(len(one), "little")


def split(raw: bytes, layout: Layout) -> list[bytes]:
    """The planes: all first bytes of the lanes, all second bytes, and so on; or by digits."""
    if layout is Layout.BYTES:
        return [raw]
    if layout is Layout.CRUMBS:
        raw = _transpose(raw)
    return [raw[plane :: layout.planes] for plane in range(layout.planes)]


def join(planes: list[bytes], layout: Layout) -> bytes:
    """The lanes of such planes."""
    if layout is Layout.BYTES:
        return planes[0]
    raw = bytearray(layout.planes * len(planes[0]))
    for number, plane in enumerate(planes):
        raw[number :: layout.planes] = plane
    return _transpose(bytes(raw)) if layout is Layout.CRUMBS else bytes(raw)


def _transpose(raw: bytes) -> bytes:
    """Each four bytes as a matrix of 4 by 4 digits of two bits, transposed; its own inverse."""
    value = int.from_bytes(raw, "little")
    for distance, pattern in ((6, b"\xcc\0\xcc\0"), (12, b"\xf0\xf0\0\0")):
        swapped = ((value >> distance) ^ value) & _repeated(pattern, len(raw))
        value ^= swapped ^ (swapped << distance)
    return value.to_bytes(len(raw), "little")


@lru_cache(maxsize=8)
def _repeated(pattern: bytes, size: int) -> int:
    return int.from_bytes(pattern * (size // len(pattern)), "little")


@lru_cache(maxsize=8)
def _masks(item: int, size: int) -> tuple[int, int, int]:
    """The lowest bit of each lane, the highest, and all but the highest."""
    lanes = size // item
    low = int.from_bytes((b"\1" + bytes(item - 1)) * lanes, "little")
    high = low << (8 * item - 1)
    return low, high, (1 << 8 * size) - 1 - high
