"""Which wave a device falls into; whom a filter means stands in `filters.py`. No I/O.

A device's place is `u64(sha256(salt || device)) / 2^64`, a number in [0, 1) that depends on
nothing else: the first wave that ends above it is the device's wave. Where waves end is fixed when
a rollout begins, so that they hold as many devices as they say, in a fleet of ten as well; a device
that joins late falls into its wave by itself, and raising a share only adds devices.
Explicit canaries come before all shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed

_SCALE: Final = 2**64


@dataclass(frozen=True, slots=True)
class Wave:
    """How far a wave reaches: a cumulative share in percent, or a cumulative number of devices."""

    percent: int = 0
    devices: int = 0

    def __str__(self) -> str:
        return f"{self.devices}n" if self.devices else str(self.percent)


EVERYBODY: Final = (Wave(100),)


def parse_waves(text: str) -> tuple[Wave, ...]:
    """The waves in `5n,10,50,100`: the first five devices, then shares in percent.

    Raises:
        Malformed: not rising, or not ending with 100.
    """
    found = []
    for part in text.split(","):
        word = part.strip().removesuffix("%")
        number = word.removesuffix("n")
        if not number.isdigit():
            raise Malformed(f"waves {text[:80]!r}", hint=_WAVES_HINT)
        found.append(Wave(devices=int(number)) if word != number else Wave(int(number)))
    return check_waves(tuple(found))


def check_waves(waves: tuple[Wave, ...]) -> tuple[Wave, ...]:
    """The same waves, if numbers of devices come first and rise, and then shares rise to 100.

    Raises:
        Malformed: they do not.
    """
    counts = [wave.devices for wave in waves if wave.devices]
    shares = [wave.percent for wave in waves if not wave.devices]
    in_order = all(wave.devices for wave in waves[: len(counts)])
    rise = counts == sorted(set(counts)) and shares == sorted(set(shares))
    if not shares or shares[0] < 1 or shares[-1] != 100 or not in_order or not rise:
        words = ",".join(map(str, waves))
        raise Malformed(f"waves {words!r} must rise and end with 100", hint=_WAVES_HINT)
    return waves


def wave_words(waves: Sequence[Wave]) -> list[int | str]:
    """Waves as the API says them: shares as numbers, numbers of devices as `5n`."""
    return [str(wave) if wave.devices else wave.percent for wave in waves]


_WAVES_HINT: Final = "cumulative shares in percent: 10,50,100; 5n means the first five devices"


def place(salt: str, device: str) -> int:
    """Where a device stands: 0 to 2^64 - 1, evenly spread, the same for ever."""
    digest = hashlib.sha256(f"{salt}{device}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def cuts(waves: Sequence[Wave], places: Iterable[int]) -> tuple[int, ...]:
    """Where each wave ends: a device is in the first wave whose cut is above its place.

    A share ends as near to that share of all places as it can, between the last of the devices
    there now (`places`) that it means, rounded up, and the next. A number of devices ends behind
    the place of the last of them. So who joins later has a wave as well.
    """
    known = sorted(places)
    found: list[int] = []
    for wave in waves:
        cut = _share_end(wave.percent, known)
        if wave.devices:
            last = known[: wave.devices][-1:]
            cut = last[0] + 1 if last else 0
        found.append(max([cut, *found[-1:]]))
    return tuple(found)


def _share_end(percent: int, known: Sequence[int]) -> int:
    count = -(-percent * len(known) // 100)
    least = known[count - 1] + 1 if count else 0
    most = known[count] if count < len(known) else _SCALE
    return min(max(percent * _SCALE // 100, least), most)


def wave_of(device: str, *, salt: str, ends: Sequence[int], canaries: Collection[str]) -> int:
    """The wave of a device: 0 for a canary, else by the first of `ends` above its place."""
    first = 1 if canaries else 0
    if device in canaries:
        return 0
    at = place(salt, device)
    return first + next(i for i, end in enumerate(ends) if at < end)
