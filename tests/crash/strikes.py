"""What strikes a life, and where: at a step of the journal, or inside a command. Ports that know.

Where the
fault strikes is found by what the journal says, and by which port is called then; nothing here
counts calls.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet_agent.device import Device
from edgefleet_contract.phases import Phase
from tests.crash.moments import Moment, What
from tests.crash.region import NEW, RELEASED
from tests.crash.trouble import Fault

if TYPE_CHECKING:
    from tests.crash.actor import Actor

HANGS_S = 0.02
"""How long the watchdog has patience."""
NEVER = 1 << 62


class Place(StrEnum):
    """Where a strike falls, once the order at hand is in the state."""

    BEFORE = "before the state is durable"
    AFTER = "when it is, before its command"
    COMMAND = "inside its command"
    PENDING = "when a newer order is noted beside it"
    AGAIN = "at the first thing that this life does"


class Deed(StrEnum):
    """What a strike does."""

    KILL = "kill"
    FAIL_ONCE = "fail once"
    FAIL = "fail"
    RAISE_ONCE = "raise once"
    RAISE = "raise"
    HANG = "hang"
    DISK = "disk"
    CLOCK = "clock"
    ORDER = "order"
    SAY = "say"


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens where; `what` is the disk's fault, the time, the order, or what is said."""

    place: Place
    deed: Deed
    what: Any = None


@dataclass(frozen=True, slots=True)
class Life:
    """What is special about a life.

    Attributes:
        disk: the fault that the disk has from the start on.
        clock: what the board's clock says, where it is not right.
        says: what the publishers say.
        again: the order that comes, where it is not the one before.
        ends_early: it is killed when the device has complained.
        mends: the disk is mended when the device has complained.
        loses: how many journal copies are spoilt after it.
        last: the order that comes when all is quiet; then the disk is looked at.
    """

    strikes: tuple[Strike, ...] = ()
    disk: Fault | None = None
    clock: float | None = None
    says: str = RELEASED
    again: str = ""
    ends_early: bool = False
    mends: bool = False
    loses: int = 0
    last: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A life, of which order in which state, and how its models are.

    Attributes:
        orders: arrive at the start; the second where the first waits for mains.
        bad: what is wrong with the candidate: "trial", "probation"; "base": with its predecessor.
        mutant: what the agent does wrong on purpose.
    """

    folder: Path
    state: Phase
    number: int
    orders: tuple[str, ...]
    bad: frozenset[str]
    life: Life
    mutant: str = ""


@dataclass
class Stage:
    """What a life is played on: the journal's last word, and the strikes to come."""

    script: Script
    out: int
    device: Device = field(default_factory=Device)
    left: list[Strike] = field(default_factory=list)
    actor: Actor | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def is_there(self, device: Device) -> bool:
        """Whether the order is in the state."""
        install = device.install
        number = install.order.seq if install else self.script.number
        return (device.phase, number) == (self.script.state, self.script.number)

    def note(self, what: What, device: Device | None = None, **more: Any) -> None:
        """Write down a moment."""
        now, actor = device or self.device, self.actor
        install, item = now.install, now.slots.get("digits")
        floors, known = now.trust, {i.target.bundle_sha256: i.target.version for i in now.kept}
        if install:
            known |= {t.bundle_sha256: t.version for t in install.order.targets}
        moment: dict[str, Any] = {
            "phase": now.phase,
            "order": install.order.seq if install else 0,
            "seq": now.seq,
            "committed": item.target.version if item else None,
            "candidate": install.chosen[0].target.version if install and install.chosen else None,
            "serves": actor.served if actor else None,
            "floors": (floors.root, floors.timestamp, floors.snapshot, floors.targets),
            "quarantined": tuple(known.get(digest, NEW) for digest in now.quarantined),
            "is_pending": now.pending is not None,
            "reason": (install.reason or "") if install else "",
        }
        os.write(self.out, Moment(what, **{**moment, **more}).line().encode())

    def strike(self, place: Place) -> Strike | None:
        """Let what is to strike here strike; the strike that a port has to answer for."""
        for strike in [item for item in self.left if item.place is place]:
            if strike.deed not in (Deed.FAIL, Deed.RAISE):
                self.left.remove(strike)
            self.note(What.STRUCK)
            match strike.deed:
                case Deed.KILL:
                    kill()
                case Deed.DISK:
                    assert self.actor is not None
                    self.actor.disk.strike(strike.what)
                case Deed.CLOCK | Deed.ORDER | Deed.SAY:
                    self._tell(strike)
                case Deed.HANG:
                    threading.Timer(HANGS_S, kill).start()
                    return strike
                case _:
                    return strike
        return None

    def _tell(self, strike: Strike) -> None:
        """In the loop, before it does anything else."""
        assert self.actor is not None
        assert self.loop is not None
        deeds: dict[Deed, Callable[[Any], None]] = {
            Deed.CLOCK: self.actor.set_clock,
            Deed.ORDER: self.actor.order,
            Deed.SAY: self.actor.say,
        }
        self.loop.call_soon_threadsafe(deeds[strike.deed], strike.what)

    def meets(self, *, is_mine: bool = True) -> bool:
        """Called by a port: whether it is to fail in its own way; it may also raise, or hang."""
        strike = self.strike(Place.AGAIN)
        if is_mine and self.is_there(self.device):
            strike = self.strike(Place.COMMAND)
        if strike is None:
            return False
        if strike.deed in (Deed.RAISE, Deed.RAISE_ONCE):
            raise OSError(errno.EIO, "an error that no port knows of")
        if strike.deed is Deed.HANG:
            time.sleep(60)  # the watchdog ends it
        return True


def kill() -> None:
    """The end of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
