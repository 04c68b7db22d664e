"""What the kill matrix is the product of; what cannot be, and what must come.

Core: values in, values out. `matrix.py` plays it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from edgefleet_contract.phases import Phase
from tests.crash.moments import Claim
from tests.crash.region import (
    BASE,
    BASE_TAKEN_BACK,
    LAST,
    NEW,
    NEW_TAKEN_BACK,
    OLD,
    ORDERS,
    RELEASED,
)
from tests.crash.strikes import Deed, Life, Place, Strike
from tests.crash.trouble import Fault as Disk

_P = Phase


class Start(StrEnum):
    """What a device has when it is ordered something."""

    STANDING = "a model serves"
    BARE = "a first install"


@dataclass(frozen=True, slots=True)
class Scene:
    """How a device comes into a state, and where that leads when nothing strikes."""

    state: Phase
    ends: Phase = Phase.COMMITTED
    orders: tuple[str, ...] = ("order",)
    bad: frozenset[str] = frozenset()

    @property
    def number(self) -> int:
        """The number of the order that is to come into the state."""
        return ORDERS[self.orders[0]].seq


_DIES: Final = frozenset({"probation"})
SCENES: Final = (
    Scene(_P.IDLE),
    *(
        Scene(phase)
        for phase in (
            *(_P.ACCEPTED, _P.DOWNLOADING, _P.VERIFIED, _P.STAGED, _P.WAIT_WINDOW),
            *(_P.SELFTEST, _P.SHADOW, _P.CANARY, _P.ACTIVATING, _P.PROBATION, _P.COMMITTED),
        )
    ),
    Scene(_P.FAILED, _P.FAILED, bad=frozenset({"trial"})),
    Scene(_P.CANCELED, orders=("order", "second")),
    Scene(_P.REJECTED, _P.REJECTED, orders=("impossible",)),
    Scene(_P.ROLLING_BACK, _P.ROLLED_BACK, bad=_DIES),
    Scene(_P.ROLLED_BACK, _P.ROLLED_BACK, bad=_DIES),
    Scene(_P.ROLLBACK_FAILED, _P.ROLLBACK_FAILED, bad=_DIES | {"base"}),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the lives that it makes; after them comes one in which all is well again.

    `plays` are the ways in which it comes. `ends` are the phases in which the order may end,
    beside the one of its scene; `blames` says that it speaks against the candidate.
    """

    name: str
    plays: tuple[tuple[Life, ...], ...]
    ends: frozenset[Phase] = frozenset()
    blames: bool = False
    says: str = RELEASED
    again: str = ""
    loses: int = 0


def _at(place: Place, deed: Deed, what: object = None) -> Life:
    return Life((Strike(place, deed, what),))


_KILLED: Final = _at(Place.AFTER, Deed.KILL)
_DISK_ENDS: Final = frozenset({_P.FAILED, _P.ROLLED_BACK, _P.ROLLBACK_FAILED})
_ANY_END: Final = frozenset(phase for phase in Phase if phase.is_final)
Y1970, Y2100 = 0.0, 4_102_444_800.0


def _disk(name: str, fault: Disk) -> Fault:
    plays = []
    for place in (Place.BEFORE, Place.AFTER):
        struck = _at(place, Deed.DISK, fault)
        if fault.is_passing:
            plays.append((struck,))
        else:
            plays.append((replace(struck, ends_early=True), Life(disk=fault, mends=True)))
            plays.append((replace(struck, mends=True),))
    return Fault(name, tuple(plays), ends=_DISK_ENDS)


def _clock(name: str, now: float) -> Fault:
    plays = ((_at(Place.AFTER, Deed.CLOCK, now),), (_KILLED, Life(clock=now)))
    return Fault(name, plays, ends=_ANY_END | {_P.IDLE})


def _said(name: str, source: str) -> Fault:
    plays = ((_at(Place.AFTER, Deed.SAY, source),), (_KILLED, Life(says=source)))
    return Fault(name, plays, ends=_ANY_END, says=source)


def _port(name: str, *deeds: Deed) -> Fault:
    plays = tuple((_at(Place.COMMAND, deed),) for deed in deeds)
    return Fault(name, plays, ends=_DISK_ENDS, blames=True)


FOR_EVER: Final = "error for ever"
PENDING: Final = "power cut while an order waits"
FAULTS: Final = (
    Fault("killed before the write", ((_at(Place.BEFORE, Deed.KILL),),)),
    Fault("killed after it", ((_KILLED,),)),
    Fault("killed in the command", ((_at(Place.COMMAND, Deed.KILL),),)),
    Fault(
        "killed twice",
        (
            (_KILLED, _at(Place.AGAIN, Deed.KILL)),
            (_at(Place.BEFORE, Deed.KILL), _at(Place.AGAIN, Deed.KILL)),
        ),
    ),
    _port("error once", Deed.FAIL_ONCE, Deed.RAISE_ONCE),
    _port(FOR_EVER, Deed.FAIL, Deed.RAISE),
    Fault("hang", ((_at(Place.COMMAND, Deed.HANG),),)),
    _disk("disk full", Disk.FULL),
    _disk("disk read-only", Disk.READ_ONLY),
    _disk("I/O error once", Disk.EIO_ONCE),
    _disk("I/O error for ever", Disk.EIO),
    Fault("newest journal copy corrupt", ((replace(_KILLED, loses=1),),), loses=1),
    Fault("both copies corrupt", ((replace(_KILLED, loses=2),),), loses=2),
    _clock("clock at 1970", Y1970),
    _clock("clock at 2100", Y2100),
    Fault(
        "superseded",
        ((_at(Place.AFTER, Deed.ORDER, "newer"),), (_KILLED, Life(again="newer"))),
        again="newer",
    ),
    Fault(
        PENDING,
        (
            (
                Life(
                    (
                        Strike(Place.AFTER, Deed.ORDER, "newer"),
                        Strike(Place.PENDING, Deed.KILL),
                    )
                ),
            ),
        ),
        again="newer",
    ),
    _said("the release is taken back", NEW_TAKEN_BACK),
    _said("what serves is taken back", BASE_TAKEN_BACK),
)
_PORTLESS: Final = (_P.IDLE, _P.ACCEPTED, _P.STAGED, _P.REJECTED)


def impossible(start: Start, scene: Scene, fault: Fault) -> str:
    """Why a cell cannot be; empty where it can."""
    state = scene.state
    if start is Start.STANDING and state is _P.IDLE:
        return "a device that was ordered something once is never idle again"
    if start is Start.BARE and state in (_P.SHADOW, _P.CANARY):
        return "a first model has nothing to be held against"
    if start is Start.BARE and state is _P.ROLLBACK_FAILED:
        return "to stop what nothing was before cannot fail"
    if start is Start.BARE and fault.says == BASE_TAKEN_BACK:
        return "nothing is committed that could be taken back"
    strikes = [strike for play in fault.plays for strike in play[0].strikes]
    is_inside = any(strike.place is Place.COMMAND for strike in strikes)
    if is_inside and state in _PORTLESS:
        return "nothing is done in this state but to go on"
    if start is Start.BARE and state is _P.ROLLING_BACK and fault.blames:
        return "to stop what nothing was before cannot fail"
    if fault.name == PENDING and (state is _P.IDLE or state.is_final) and state is not _P.CANCELED:
        return "nothing is at hand that an order would wait for"
    return ""


@dataclass
class Cell:
    """What came of the cases of one device in one state under one fault."""

    start: Start
    scene: Scene
    fault: Fault
    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def why_not(self) -> str:
        """Why it cannot be."""
        return impossible(self.start, self.scene, self.fault)

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.scene.state}, {self.start}, {self.fault.name}"


def claim(cell: Cell) -> Claim:
    """What must come of the cases of a cell."""
    scene, fault = cell.scene, cell.fault
    asked = ORDERS[fault.again or scene.orders[-1]]
    ends = {Phase.COMMITTED if fault.again else scene.ends, *fault.ends}
    if Phase.ROLLBACK_FAILED in ends:
        ends.add(Phase.ROLLED_BACK)  # a start has brought back what it could
    guilty = {NEW} if scene.bad or fault.blames else set()
    withdrawn = {NEW_TAKEN_BACK: {NEW}, BASE_TAKEN_BACK: {BASE}}.get(fault.says, set())
    return Claim(
        before=(OLD, BASE) if cell.start is Start.STANDING else (),
        wanted=(asked.seq, asked.version),
        ends=frozenset(ends),
        guilty=frozenset(guilty),
        withdrawn=frozenset(withdrawn),
        lost=fault.loses,
        last=LAST,
        may_not_restore=frozenset({BASE} if "base" in scene.bad else ()),
        starts_nothing=fault.name == FOR_EVER and scene.state is Phase.ROLLING_BACK,
    )


def cells() -> list[Cell]:
    """The whole product."""
    return [Cell(start, scene, fault) for scene in SCENES for fault in FAULTS for start in Start]
