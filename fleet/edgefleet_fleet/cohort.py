"""Who is meant: filters over devices, and which wave a device falls into. No I/O.

A device's place is `u64(sha256(salt || device)) / 2^64`, a number in [0, 1) that depends on
nothing else: the first wave whose cumulative share is above it is the device's wave. So waves are
deterministic, a device that joins late falls into its wave by itself, and raising a share only
adds devices. Explicit canaries come before all shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract.errors import Malformed

KEYS: Final = ("id", "hw", "arch", "board", "engine", "model", "online")
_ALL: Final = "all"
_SCALE: Final = 2**64


@dataclass(frozen=True, slots=True)
class Traits:
    """What a filter can ask of a device. `models` holds `name` and `name@version` of each."""

    id: str
    hw: str = ""
    arch: str = ""
    board: str = ""
    engines: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    online: bool = False

    def values(self, key: str) -> frozenset[str]:
        """What the device answers to a key of a filter."""
        match key:
            case "engine":
                return self.engines
            case "model":
                return self.models
            case "online":
                return frozenset({"true" if self.online else "false"})
            case _:
                return frozenset({str(getattr(self, key))})


@dataclass(frozen=True, slots=True)
class Filter:
    """Every key must hold; a key holds if any of its values does. No keys: every device."""

    wanted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def matches(self, traits: Traits) -> bool:
        """Whether a device is meant."""
        return all(values & traits.values(key) for key, values in self.wanted.items())

    def __str__(self) -> str:
        if not self.wanted:
            return _ALL
        return ",".join(
            f"{key}={'|'.join(sorted(self.wanted[key]))}" for key in sorted(self.wanted)
        )


def parse_filter(text: str) -> Filter:
    """The filter in `all` or `key=value|value,key=value`.

    Law: `parse_filter(str(f)) == f`.

    Raises:
        Malformed: an unknown key, or no value.
    """
    if text.strip() == _ALL:
        return Filter()
    wanted: dict[str, frozenset[str]] = {}
    for term in text.split(","):
        key, _, value = (part.strip() for part in term.partition("="))
        values = frozenset(part.strip() for part in value.split("|"))
        if key not in KEYS or "" in values or key in wanted:
            raise Malformed(
                f"filter {text[:80]!r}: {term[:40]!r} is not understood",
                hint=f"write 'all' or key=value,…; keys: {', '.join(KEYS)}; a|b means either",
            )
        if key == "online" and not values <= {"true", "false"}:
            raise Malformed(f"filter {text[:80]!r}: online is true or false")
        wanted[key] = values
    return Filter(wanted)


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
