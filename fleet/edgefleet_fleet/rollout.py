"""The rollout machine: `step(rollout, roster, event, now=…)` gives a `Step`. No I/O, no clock.

`rollout_states.py` has its tables, `rollout_plan.py` what was decided before, `roster.py` the
devices, `gates.py` and `model_gates.py` when to stop. Here is what an event does to one device or
to the state; `rounds.py` is what follows by itself (opening waves, asking, stopping).

A device is asked once. `good` may still become `bad` (it kept dying after its commit), and `silent`
may become anything (it was heard of again); `bad`, `refused`, `undelivered`, `blocked`, `withdrawn`
and `reverted` stay.

A rollout that is COMPLETED still asks devices that join later: the level that it set is the level
of the fleet until something newer takes its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.pace import Bucket
from edgefleet_fleet.rollout_plan import ANYBODY, Plan
from edgefleet_fleet.rollout_states import (
    TRANSITIONS,
    WAVE_TRANSITIONS,
    Cause,
    Ending,
    NotInTable,
    State,
    Trigger,
    WaveState,
    WaveTrigger,
)
from edgefleet_fleet.roster import AT_IT, OPEN, Member, Outcome, Roster, Tally


@dataclass(frozen=True, slots=True)
class Rollout:
    """The whole state but for the devices: waves 0 to `wave` are open.

    `excused` failures were acknowledged. `ends` are the waves' ends, fixed when it began. `blocked`
    hardware classes are asked no more. `quiet_since` is when something last happened, `swept_at`
    when silent devices were last looked for.
    """

    plan: Plan
    state: State = State.DRAFT
    cause: Cause | None = None
    why: str = ""
    ending: Ending | None = None
    wave: int = 0
    wave_state: WaveState = WaveState.PENDING
    soak_until: int = 0
    quiet_since: int = 0
    ends: tuple[int, ...] = ()
    tally: Tally = Tally()
    excused: Tally = Tally()
    bucket: Bucket = Bucket()
    swept_at: int = 0
    blocked: tuple[str, ...] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    approved_by: str = ""

    @property
    def is_enlisted(self) -> bool:
        """Whether its devices are known."""
        return bool(self.ends)

    def wave_states(self) -> tuple[WaveState, ...]:
        """Where each wave stands."""
        return tuple(
            WaveState.PASSED
            if number < self.wave
            else self.wave_state
            if number == self.wave
            else WaveState.PENDING
            for number in range(self.plan.wave_count)
        )


@dataclass(frozen=True, slots=True)
class Submitted:
    """Its author wants it to happen."""


@dataclass(frozen=True, slots=True)
class Approved:
    """Somebody agrees."""

    who: str


@dataclass(frozen=True, slots=True)
class Denied:
    """Somebody does not."""

    who: str


@dataclass(frozen=True, slots=True)
class Started:
    """A person begins it now: a draft as if submitted, a scheduled one before its time."""


@dataclass(frozen=True, slots=True)
class Enlisted:
    """These devices (with their hardware classes) are those that the target means now.

    `blocked` classes are those on which this very bundle failed before.
    """

    devices: Mapping[str, str]
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """A device that the target matches is there."""

    device: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A device that was asked is at it: STARTED, or ACTIVE once it runs the model."""

    device: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """A device ended what it was asked: GOOD, BAD, UNDELIVERED or REFUSED."""

    device: str
    outcome: Outcome
    failed_selftest: bool = False


@dataclass(frozen=True, slots=True)
class Back:
    """A device that was told to go back reports that it did."""

    device: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A newer rollout asks this device for the same slot, or it left the fleet."""

    device: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Devices of a class told something new of the model; `more` is added to what was known."""

    kind: str
    more: Evidence


@dataclass(frozen=True, slots=True)
class Promoted:
    """A person opens the next wave."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A person stops it for now."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person lets it go on, and takes the failures so far as seen."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A person ends it; who has the new version keeps it, or is told to go back."""

    ending: Ending = Ending.KEEP


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer rollout for the same slot means all of these devices."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on."""


Event: TypeAlias = (
    Submitted
    | Approved
    | Denied
    | Started
    | Enlisted
    | Joined
    | Answered
    | Ended
    | Back
    | Taken
    | Observed
    | Promoted
    | Paused
    | Resumed
    | Aborted
    | Replaced
    | Tick
)


@dataclass(frozen=True, slots=True)
class Enlist:
    """Find the devices that the target means, and say `Enlisted`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Order this device to run the target."""

    device: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Order this device to run what it ran before."""

    device: str


@dataclass(frozen=True, slots=True)
class Block:
    """Remember that this bundle is not for this hardware class."""

    kind: str


Command: TypeAlias = Enlist | Ask | Withdraw | Block


@dataclass(frozen=True, slots=True)
class Step:
    """A rollout after an event: the devices that changed, and what is to be done."""

    rollout: Rollout
    changes: Mapping[str, Member] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()


class NotAllowed(Exception):
    """This person may not do this to this rollout."""


def step(rollout: Rollout, roster: Roster, event: Event, *, now: int) -> Step:
    """What an event does; what then follows by itself is `rounds.follow`.

    Raises:
        NotInTable: the event has no place in this state; nothing changed.
        NotAllowed: it needs another person.
    """
    match event:
        case Submitted() | Started() | Approved() | Denied():
            return Step(_admit(rollout, event, now))
        case Enlisted(devices, blocked):
            return _enlist(rollout, devices, blocked, now)
        case Joined(device, kind):
            return _join(rollout, roster, device, kind)
        case Answered(device, outcome):
            return _answer(rollout, roster, device, outcome, now)
        case Ended():
            return _end(rollout, roster, event, now)
        case Back(device):
            return _back(rollout, roster, device, now)
        case Taken(device):
            return _take(rollout, roster, device)
        case Observed(kind, more):
            known = rollout.evidence.get(kind, Evidence())
            return Step(
                dataclasses.replace(rollout, evidence={**rollout.evidence, kind: known + more})
            )
        case Promoted():
            return Step(_promote(rollout, now))
        case Paused():
            return Step(move(rollout, Trigger.OPERATOR_PAUSED, Cause.OPERATOR))
        case Resumed():
            return Step(_resume(rollout, now))
        case Aborted(Ending.KEEP):
            return stop(
                rollout, roster, Trigger.OPERATOR_ABORTED, cause=Cause.OPERATOR, ending=Ending.KEEP
            )
        case Aborted(Ending.REVERT):
            return stop(
                *(rollout, roster, Trigger.OPERATOR_REVERTED),
                cause=Cause.OPERATOR,
                ending=Ending.REVERT,
            )
        case Replaced():
            return stop(rollout, roster, Trigger.REPLACED)
        case Tick():
            return Step(rollout)


def move(rollout: Rollout, trigger: Trigger, cause: Cause | None = None, why: str = "") -> Rollout:
    """The rollout in the state that the table names."""
    state = TRANSITIONS.get((rollout.state, trigger))
    if state is None:
        raise NotInTable(rollout.state, trigger.value)
    return dataclasses.replace(rollout, state=state, cause=cause, why=why)


def move_wave(rollout: Rollout, trigger: WaveTrigger) -> Rollout:
    """The rollout with its newest open wave in the state that the table names."""
    state = WAVE_TRANSITIONS.get((rollout.wave_state, trigger))
    if state is None:
        raise NotInTable(rollout.state, f"wave {rollout.wave_state.value}: {trigger.value}")
    return dataclasses.replace(rollout, wave_state=state)


def change(
    rollout: Rollout, roster: Roster, devices: Mapping[str, Member], *commands: Command
) -> Step:
    """The step that changes these devices, the tally with them."""
    pairs = [(roster.get(device), member) for device, member in devices.items()]
    grown = dataclasses.replace(rollout, tally=rollout.tally.moved(pairs))
    return Step(grown, devices, commands)


def stop(
    rollout: Rollout,
    roster: Roster,
    trigger: Trigger,
    *,
    cause: Cause | None = None,
    ending: Ending | None = None,
    why: str = "",
) -> Step:
    """End it: orders that stand are taken back; with REVERT also from those that followed them."""
    stopped = move(rollout, trigger, cause, why or rollout.why)
    stopped = dataclasses.replace(stopped, ending=ending or rollout.ending)
    changes: dict[str, Member] = {}
    commands: list[Command] = []
    for device in roster.having((Outcome.PENDING, *OPEN)):
        member = _known(roster, device)
        if member.outcome is not Outcome.PENDING:
            commands.append(Withdraw(device))
        outcome = Outcome.WITHDRAWN
        if ending is Ending.REVERT and member.outcome is Outcome.SILENT:
            outcome = Outcome.REVERTING
        changes[device] = dataclasses.replace(member, outcome=outcome)
    if ending is Ending.REVERT:
        for device in roster.having((Outcome.GOOD,)):
            member = _known(roster, device)
            changes[device] = dataclasses.replace(member, outcome=Outcome.REVERTING)
            commands.append(Withdraw(device))
    return change(stopped, roster, changes, *commands)


def _known(roster: Roster, device: str) -> Member:
    member = roster.get(device)
    assert member is not None
    return member


def _admit(rollout: Rollout, event: Event, now: int) -> Rollout:
    plan = rollout.plan
    match event:
        case Submitted() | Started() if rollout.state is State.DRAFT:
            needed = Trigger.APPROVAL_NEEDED if plan.approve_by else Trigger.SUBMITTED
            return move(rollout, needed)
        case Started():
            return dataclasses.replace(move(rollout, Trigger.DUE), quiet_since=now)
        case Approved(who):
            if who == plan.author:
                raise NotAllowed("who asks for a rollout does not approve it")
            if plan.approve_by not in (ANYBODY, who):
                raise NotAllowed(f"{plan.approve_by} is to approve it")
            return dataclasses.replace(move(rollout, Trigger.APPROVED), approved_by=who)
        case Denied(who):
            return move(rollout, Trigger.DENIED, why=f"{who} said no")
        case _:
            return move(rollout, Trigger.SUBMITTED)


def _enlist(
    rollout: Rollout, devices: Mapping[str, str], blocked: tuple[str, ...], now: int
) -> Step:
    if rollout.is_enlisted or rollout.state is not State.RUNNING:
        raise NotInTable(rollout.state, "enlisting devices")
    plan = rollout.plan
    ends = plan.ends(devices)
    begun = dataclasses.replace(rollout, ends=ends, blocked=blocked, quiet_since=now)
    members = {device: _new(begun, device, kind) for device, kind in devices.items()}
    tally = Tally().moved((None, member) for member in members.values())
    return Step(dataclasses.replace(begun, tally=tally), members)


def _new(rollout: Rollout, device: str, kind: str) -> Member:
    outcome = Outcome.BLOCKED if kind in rollout.blocked else Outcome.PENDING
    plan = rollout.plan
    return Member(plan.wave_of(device, rollout.ends), plan.place(device), kind, outcome)


def _join(rollout: Rollout, roster: Roster, device: str, kind: str) -> Step:
    is_open = rollout.is_enlisted and rollout.state.sets_level
    if not is_open or roster.get(device) is not None:
        return Step(rollout)
    return change(rollout, roster, {device: _new(rollout, device, kind)})


def _answer(rollout: Rollout, roster: Roster, device: str, outcome: Outcome, now: int) -> Step:
    member = roster.get(device)
    if member is None or not member.outcome.is_open:
        return Step(rollout)
    if member.outcome is Outcome.ACTIVE and outcome is Outcome.STARTED:
        outcome = Outcome.ACTIVE  # an older message that came late
    heard = dataclasses.replace(member, outcome=outcome, heard_at=now)
    return _hear(change(rollout, roster, {device: heard}), now)


def _end(rollout: Rollout, roster: Roster, event: Ended, now: int) -> Step:
    member = roster.get(event.device)
    if member is None or not member.outcome.is_in_force or member.outcome is event.outcome:
        return Step(rollout)
    if member.outcome is Outcome.GOOD and event.outcome is not Outcome.BAD:
        return Step(rollout)  # it runs: what it says of a fetch or a refusal is of something else
    ended = dataclasses.replace(
        member,
        outcome=event.outcome,
        heard_at=now,
        failed_selftest=event.failed_selftest,
    )
    orders = () if event.outcome is Outcome.GOOD else (Withdraw(event.device),)
    return _hear(change(rollout, roster, {event.device: ended}, *orders), now)


def _hear(found: Step, now: int) -> Step:
    return dataclasses.replace(found, rollout=dataclasses.replace(found.rollout, quiet_since=now))


def _back(rollout: Rollout, roster: Roster, device: str, now: int) -> Step:
    member = roster.get(device)
    if member is None or member.outcome is not Outcome.REVERTING:
        return Step(rollout)
    back = dataclasses.replace(member, outcome=Outcome.REVERTED, heard_at=now)
    return change(rollout, roster, {device: back})


def _take(rollout: Rollout, roster: Roster, device: str) -> Step:
    member = roster.get(device)
    if member is None:
        return Step(rollout)
    if member.outcome is Outcome.REVERTING:
        gone = dataclasses.replace(member, outcome=Outcome.REVERTED)
    elif member.outcome in (Outcome.PENDING, Outcome.BLOCKED, Outcome.SILENT, *AT_IT):
        gone = dataclasses.replace(member, outcome=Outcome.WITHDRAWN)
    else:
        return Step(rollout)
    return change(rollout, roster, {device: gone}, Withdraw(device))


def _promote(rollout: Rollout, now: int) -> Rollout:
    is_held = rollout.state is State.RUNNING and rollout.wave_state is WaveState.PASSED
    if not is_held or rollout.plan.is_last(rollout.wave):
        raise NotInTable(rollout.state, "promoting, with no wave that waits for it,")
    return dataclasses.replace(
        rollout, wave=rollout.wave + 1, wave_state=WaveState.PENDING, quiet_since=now
    )


def _resume(rollout: Rollout, now: int) -> Rollout:
    running = move(rollout, Trigger.OPERATOR_RESUMED)
    if running.wave_state is WaveState.FAILED:
        running = move_wave(running, WaveTrigger.RESUMED)
    # What was seen is taken as seen; so is what the model answered until now.
    return dataclasses.replace(running, excused=running.tally, evidence={}, quiet_since=now)
