"""What a new version of a file would cost to send to a device that has the old one: an estimate.

The old file in front of the new one in an LZMA stream, less the old one alone: about what
Zstandard with the old file as its prefix makes of it, which is what the fleet sends [bundle-8.4].
Where many numbers change by a little, the fleet's deltas of tensors may be smaller.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.delta import MAX_PREFIX_SUM, WORTH

_PRESET: Final = 2
_WINDOW: Final = 1 << 25  # holds both files, which have at most MAX_PREFIX_SUM bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes to send, about; whether as a delta, or the file itself."""

    size: int
    is_delta: bool


def cost(old: bytes, new: bytes) -> Cost:
    """What sending `new` costs where `old` is. The file itself goes where a delta saves little.

    >>> cost(bytes(range(256)) * 40, bytes(range(256)) * 40 + b"more").is_delta
    True
    """
    if not old or len(old) + len(new) > MAX_PREFIX_SUM:
        return Cost(len(new), is_delta=False)
    found = max(_packed(old + new) - _packed(old), 0)
    if found >= WORTH * len(new):
        return Cost(len(new), is_delta=False)
    return Cost(found, is_delta=True)


def _packed(raw: bytes) -> int:
    chain = [{"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": _WINDOW}]
    return len(lzma.compress(raw, lzma.FORMAT_RAW, filters=chain))
