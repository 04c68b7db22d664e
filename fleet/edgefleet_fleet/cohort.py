"""Which wave a device falls into; whom a filter means stands in `filters.py`. No I/O.

A device's place is `u64(sha256(salt || device)) / 2^64`, a number in [0, 1) that depends on
nothing else: the first wave whose cumulative share is above it is the device's wave. So waves are
deterministic, a device that joins late falls into its wave by itself, and raising a share only
adds devices. Explicit canaries come before all shares.
"""

from __future__ import annotations

import hashlib
from typing import Final

from edgefleet_contract.errors import Malformed

_SCALE: Final = 2**64


def parse_waves(text: str) -> tuple[int, ...]:
    """The cumulative shares, percent, in `10,50,100`.

    Raises:
        Malformed: not rising, or not ending with 100.
    """
    parts = [part.strip().removesuffix("%") for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise Malformed(f"waves {text[:80]!r}", hint="cumulative shares in percent: 10,50,100")
    return check_waves(tuple(int(part) for part in parts))


def check_waves(waves: tuple[int, ...]) -> tuple[int, ...]:
    """The same shares, if they rise from 1 to 100.

    Raises:
        Malformed: they do not.
    """
    if not waves or waves[0] < 1 or waves[-1] != 100 or list(waves) != sorted(set(waves)):
        shares = ",".join(str(wave) for wave in waves)
        raise Malformed(
            f"waves {shares!r} must rise and end with 100",
            hint="cumulative shares in percent: 10,50,100",
        )
    return waves


def place(salt: str, device: str) -> int:
    """Where a device stands: 0 to 2^64 - 1, evenly spread, the same for ever."""
    digest = hashlib.sha256(f"{salt}{device}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def wave_of(device: str, *, salt: str, waves: tuple[int, ...], canaries: frozenset[str]) -> int:
    """The wave of a device: 0 for a canary, else by share; counted from 0."""
    first = 1 if canaries else 0
    if device in canaries:
        return 0
    at = place(salt, device)
    return first + next(i for i, share in enumerate(waves) if at * 100 < share * _SCALE)
