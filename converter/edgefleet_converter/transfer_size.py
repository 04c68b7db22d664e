"""What a new version of a file would cost to send to a device that has the old one: an estimate.

It is packed with the old file as its prefix, as the fleet does [bundle-8.4]. Where many numbers
change by a little, the fleet's deltas of tensors are smaller than what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backports import zstd

from edgefleet_contract.delta import WINDOW_LOG, WORTH, can_be_prefix

_LEVEL: Final = 9


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
    prefix = None
    if can_be_prefix(len(old), len(new)):
        prefix = zstd.ZstdDict(old, is_raw=True).as_prefix
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.window_log: WINDOW_LOG,
    }
    found = len(zstd.compress(new, options=options, zstd_dict=prefix))
    return Cost(found, is_delta=True) if found < WORTH * len(new) else Cost(len(new), False)
