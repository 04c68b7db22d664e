"""Arithmetic on many small integers at once, on bytes, without NumPy.

A run of bytes is read as little-endian integers (lanes) of 1, 2, 4 or 8 bytes. Python's long
integers do the work: one operation for thousands of lanes, with the top bit of each lane kept
apart so that nothing is carried into the next (Lamport, "Multiple byte processing with full-word
instructions", 1975). A device applies a delta so without loading NumPy.

Laws: `add(subtract(new, old, w), old, w) == new`; `join(split(raw, w), w) == raw`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

ITEMS: Final = (1, 2, 4, 8)
"""How wide a lane can be, bytes."""


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


def split(raw: bytes, item: int) -> list[bytes]:
    """The planes: all first bytes of the lanes, all second bytes, and so on."""
    return [raw[plane::item] for plane in range(item)] if item > 1 else [raw]


def join(planes: list[bytes]) -> bytes:
    """The lanes of such planes."""
    item = len(planes)
    if item == 1:
        return planes[0]
    raw = bytearray(item * len(planes[0]))
    for number, plane in enumerate(planes):
        raw[number::item] = plane
    return bytes(raw)


@lru_cache(maxsize=8)
def _masks(item: int, size: int) -> tuple[int, int, int]:
    """The lowest bit of each lane, the highest, and all but the highest."""
    lanes = size // item
    low = int.from_bytes((b"\1" + bytes(item - 1)) * lanes, "little")
    high = low << (8 * item - 1)
    return low, high, (1 << 8 * size) - 1 - high
