"""The device's durable state: what the journal holds, and all that must survive a power cut.

`install_events` change it, `install_commands` are what comes of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors

DAY_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Installed:
    """A model on this device: what the order named, and what was chosen for it here, and why."""

    target: Target
    variant: str
    engine: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Install:
    """The order at hand, and how far it came. `chosen` is known once everything is verified.

    `attempt` counts tries of the step at hand, `spoilt` how often files had changed on the disk.
    """

    order: Order
    phase: Phase
    attempt: int = 0
    chosen: tuple[Installed, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    spoilt: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What was fetched in the day at hand: a day is counted from 1970 in UTC."""

    day: int = 0
    bytes: int = 0

    def add(self, now: int, size: int) -> Spent:
        """With `size` more bytes, at a time in seconds since 1970."""
        day = now // DAY_S
        return Spent(day, size + (self.bytes if day == self.day else 0))

    def left(self, now: int, budget: int) -> int:
        """How many bytes of a daily budget are left."""
        return max(0, budget - (self.bytes if now // DAY_S == self.day else 0))


NOTHING_SPENT: Final = Spent()


@dataclass(frozen=True, slots=True)
class Device:
    """All that must survive a power cut. What is keyed by slot name:

    `slots` is committed and serves; `previous` is what was committed before it; `fallback` is what
    is served when neither does: the first release that was ever committed, or the one that an order
    put in its place. None of these files are collected.

    `seq` is the highest order number taken; `time_floor` the latest time that a director signed:
    the device's clock is never believed below it; `trust` the newest metadata that was seen.
    `pending` is an order that waits for the end of the install at hand.
    `committed` remembers each model's version that was committed last, in whatever slot: an emptied
    slot, or another name for it, is no way back to an older one.
    """

    seq: int = 0
    time_floor: int = 0
    trust: TrustFloors = field(default_factory=TrustFloors)
    install: Install | None = None
    pending: Order | None = None
    slots: dict[str, Installed] = field(default_factory=dict)
    previous: dict[str, Installed] = field(default_factory=dict)
    fallback: dict[str, Installed] = field(default_factory=dict)
    spent: Spent = NOTHING_SPENT
    quarantined: tuple[Digest, ...] = ()
    committed: dict[str, int] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """Where the install at hand stands."""
        return self.install.phase if self.install else Phase.IDLE

    @property
    def kept(self) -> tuple[Installed, ...]:
        """Every model whose files must stay: what serves, what may be gone back to, what comes."""
        coming = self.install.chosen if self.install and not self.phase.is_final else ()
        return (*self.slots.values(), *self.previous.values(), *self.fallback.values(), *coming)
