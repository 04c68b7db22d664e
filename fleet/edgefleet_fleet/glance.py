"""A look at all devices at once: how many are how, what they run, which want attention. Pure.

A device wants attention [fleet-api-16.3] for one thing, the first that holds: its last install
failed, it went back, it refused its order, a bundle is quarantined on it, or it is silent, which is
what the doctor calls so too. A trouble has a filter that means the same devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.phases import Phase
from edgefleet_fleet.doctor import SILENT_S
from edgefleet_fleet.records import Device, Standing

_SHOWN: Final = 5
_BACK: Final = (Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.ROLLING_BACK)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Devices that want attention for one thing: how many, the filter that means them, and the
    newest of them."""

    name: str
    filter: str
    count: int
    newest: tuple[Standing, ...]

    @property
    def quarantined(self) -> tuple[str, ...]:
        """The digests of what is quarantined on the newest."""
        return tuple(digest for device in self.newest for digest in device.quarantined)


@dataclass(frozen=True, slots=True)
class Glance:
    """How many devices are in service, connected, and running each `name@version`."""

    total: int
    online: int
    running: Mapping[str, int]
    troubles: tuple[Trouble, ...]


def is_silent(device: Device | Standing, *, now: int) -> bool:
    """Whether a device was not heard of for so long that a person should look."""
    return not device.online and now - max(device.seen_at, device.enrolled_at) > SILENT_S


def glance(devices: Iterable[Standing], *, now: int) -> Glance:
    """What a look at all devices shows; `now` in seconds since 1970."""
    cutoff = now - SILENT_S
    kinds: dict[str, tuple[str, Callable[[Standing], bool]]] = {
        "failed": ("phase=failed", lambda found: found.phase == Phase.FAILED),
        "rolled back": (f"phase in ({', '.join(_BACK)})", lambda found: found.phase in _BACK),
        "rejected": ("phase=rejected", lambda found: found.phase == Phase.REJECTED),
        "quarantined": ("quarantined=*", lambda found: bool(found.quarantined)),
        "silent": (
            f"online=false and seen_at<{cutoff} and enrolled_at<{cutoff}",
            lambda found: is_silent(found, now=now),
        ),
    }
    total = online = 0
    running: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    first: dict[str, list[Standing]] = {name: [] for name in kinds}
    for device in devices:
        total, online = total + 1, online + device.online
        running.update(device.models)
        troubles = [name for name, (_, holds) in kinds.items() if holds(device)]
        counts.update(troubles)
        if troubles:
            first[troubles[0]].append(device)
    return Glance(
        total,
        online,
        dict(running.most_common()),
        tuple(
            Trouble(name, wanted, counts[name], _newest(first[name]))
            for name, (wanted, _) in kinds.items()
            if counts[name]
        ),
    )


def _newest(devices: list[Standing]) -> tuple[Standing, ...]:
    ordered = sorted(devices, key=lambda found: (-max(found.at, found.seen_at), found.id))
    return tuple(ordered[:_SHOWN])
