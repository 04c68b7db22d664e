"""What is noted while a device lives, and what must hold for it. Core: values in, values out.

A case is a list of lives; a life is a list of moments, written by the process itself, so that they
are there when it is killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from edgefleet_agent.adapters.journal import COPIES
from edgefleet_contract.phases import Phase

CRITICAL: Final = frozenset({Phase.ACTIVATING, Phase.PROBATION, Phase.ROLLING_BACK})


class What(StrEnum):
    """Why a moment was noted."""

    STARTED = "what is committed serves, or what can"
    SAVING = "a step is about to be durable"
    SAVED = "a step is durable"
    SERVES = "something else serves"
    TOLD = "something was reported"
    STRUCK = "the fault strikes"
    KILLED = "it has complained, and is killed"
    QUIET = "nothing is left to do"
    CLEAN = "nothing is left to do, and the disk was looked at"
    DIED = "the agent died"


@dataclass(frozen=True, slots=True)
class Moment:
    """The journal as this process last knew it to be, and what serves. Models by their version.

    `order` is the number of the order at hand, or of the one that is spoken of.
    """

    what: str
    phase: str = Phase.IDLE
    order: int = 0
    seq: int = 0
    committed: int | None = None
    candidate: int | None = None
    serves: int | None = None
    floors: tuple[int, ...] = ()
    quarantined: tuple[int, ...] = ()
    is_pending: bool = False
    reason: str = ""
    detail: str = ""

    def line(self) -> str:
        """The moment as it goes through a pipe."""
        return json.dumps(asdict(self)) + "\n"


def read(said: str) -> list[Moment]:
    """The moments of a life; the last line may have been cut off."""
    lines = said.split("\n")
    found = [json.loads(line) for line in lines[:-1]]
    return [
        Moment(
            **{**item, "floors": tuple(item["floors"]), "quarantined": tuple(item["quarantined"])}
        )
        for item in found
    ]


@dataclass(frozen=True, slots=True)
class Claim:
    """What must come of a case. Models by their version.

    Attributes:
        before: what was committed when it began.
        wanted: the number of the newest order, and what it brings.
        ends: the phases in which that order may end.
        guilty: the models that may be quarantined.
        withdrawn: the models that may not serve once everything is quiet.
        lost: how many journal copies were destroyed: with 1 the last step may be forgotten, with 2
            everything.
        last: what everybody serves in the end.
        may_not_restore: the models that may not come back at once.
        starts_nothing: the runtime starts no model while the device goes back: the one that failed
            is seen until it is stopped, and nothing serves until the next start.
    """

    before: tuple[int, ...]
    wanted: tuple[int, int]
    ends: frozenset[Phase]
    guilty: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()
    lost: int = 0
    last: int = 0
    may_not_restore: frozenset[int] = frozenset()
    starts_nothing: bool = False


def violations(lives: Sequence[Sequence[Moment]], claim: Claim) -> Iterator[str]:
    """What is wrong with the lives of a case, in words."""
    lived = [[moment for moment in life if moment.what != What.SAVING] for life in lives]
    everything = [moment for life in lived for moment in life]
    yield from (f"the agent dies: {m.detail}" for m in everything if m.what == What.DIED)
    yield from _serving(lived, claim)
    yield from _starts(lives, claim)
    yield from _numbers(lived, claim)
    yield from _quarantine(everything, claim)
    yield from _end(everything, claim)


def _serving(lives: Sequence[Sequence[Moment]], claim: Claim) -> Iterator[str]:
    """Rule 1: what serves was committed, or is the candidate whose turn it is."""
    committed = set(claim.before)
    for moment in (moment for life in lives for moment in life):
        if moment.committed is not None:
            committed.add(moment.committed)
        is_turn = moment.phase in CRITICAL or (
            claim.starts_nothing and moment.phase == Phase.ROLLBACK_FAILED
        )
        allowed = committed | ({moment.candidate} if is_turn else set())
        if moment.serves is not None and moment.serves not in allowed:
            yield f"{moment.serves} serves in {moment.phase}, and was never committed"
        if moment.what not in (What.QUIET, What.CLEAN):
            continue
        if claim.starts_nothing and moment.serves is None:
            continue
        if moment.serves != moment.committed:
            yield f"{moment.serves} serves, {moment.committed} is committed"
        if moment.serves in claim.withdrawn:
            yield f"{moment.serves} serves, and was taken back"
        if moment.serves is None and committed - claim.withdrawn and claim.lost < len(COPIES):
            yield "nothing serves"


def _starts(lives: Sequence[Sequence[Moment]], claim: Claim) -> Iterator[str]:
    """Rule 1: a start finds what was acknowledged, or was being saved, and serves it at once."""
    acknowledged = tried = claim.before[-1] if claim.before else None
    for number, life in enumerate(lives):
        first = next((moment for moment in life if moment.what == What.STARTED), None)
        if first is None:
            if not any(moment.what in (What.STRUCK, What.KILLED) for moment in life):
                yield "it does not start"
            continue
        may_differ = (number and claim.lost) or acknowledged in claim.may_not_restore
        if first.committed not in (acknowledged, tried) and not may_differ:
            yield f"{acknowledged} was committed, a start finds {first.committed}"
        served = (moment.serves for moment in life if moment.serves is not None)
        serves = next(served, None) if first.committed in claim.may_not_restore else first.serves
        if serves is None and first.committed is not None:
            yield "a start serves nothing"
        elif serves != first.committed and first.committed not in claim.may_not_restore:
            yield f"a start serves {serves}, {first.committed} is committed"
        for moment in life:
            tried = moment.committed
            acknowledged = acknowledged if moment.what == What.SAVING else moment.committed


def _numbers(lives: Sequence[Sequence[Moment]], claim: Claim) -> Iterator[str]:
    """Rule 4: the number of the last order and the floors never fall."""
    seq, floors = 0, tuple[int, ...]()
    for number, life in enumerate(lives):
        for moment in life:
            if number and claim.lost and moment is life[0]:
                seq, floors = 0, ()  # the copy that was left is where it begins again
            if moment.seq < seq:
                yield f"the order's number falls from {seq} to {moment.seq}"
            if any(now < then for now, then in zip(moment.floors, floors, strict=False)):
                yield f"floors fall from {floors} to {moment.floors}"
            seq, floors = moment.seq, moment.floors


def _quarantine(moments: Sequence[Moment], claim: Claim) -> Iterator[str]:
    """Rule 3: who is not to blame is not blamed."""
    for innocent in sorted({v for m in moments for v in m.quarantined} - claim.guilty):
        yield f"{innocent} is quarantined without guilt"


def _end(moments: Sequence[Moment], claim: Claim) -> Iterator[str]:
    """Rules 2 and 5: it converges or says why not, can still do what it could, and cleans up."""
    number, version = claim.wanted
    quiet = [moment for moment in moments if moment.what == What.QUIET]
    if not quiet:
        yield "it never comes to rest"
        return
    end = quiet[-1]
    for moment in quiet:
        if not Phase(moment.phase).is_final and moment.phase != Phase.IDLE:
            yield f"stuck in {moment.phase}"
        if moment.is_pending:
            yield "an order waits for ever"
    said = [m for m in moments if m.what == What.TOLD and m.reason and m.order in (0, number)]
    done = (end.phase, end.order, end.serves) == (Phase.COMMITTED, number, version)
    if not done and not said and not (end.order == number and end.reason):
        yield f"{version} does not serve, and nothing says why"
    if end.phase not in claim.ends:
        yield f"it ends {end.phase} {end.reason}"
    clean = [moment for moment in moments if moment.what == What.CLEAN]
    if not clean or (clean[-1].phase, clean[-1].serves) != (Phase.COMMITTED, claim.last):
        yield f"the order after it is not followed: {clean[-1] if clean else 'no end'}"
    found = [name for moment in clean for name in moment.detail.split(", ") if name]
    kept = ".corrupt" if claim.lost else "nothing"  # what was spoilt is set aside, for people
    yield from (f"left over: {name}" for name in found if not name.endswith(kept))
