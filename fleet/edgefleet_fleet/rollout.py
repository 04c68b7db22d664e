"""The rollout machine: a table, and `step(state, event) -> (state, commands)`. No I/O, no clock.

`TRANSITIONS` is the machine: what is not in it raises and changes nothing, and the diagram in
docs/design/rollout.md is printed from it. Devices move inside a state: an outcome is set once and
never taken back, so a device is never asked twice for the same thing.

A rollout that is COMPLETED still asks devices that join later: the level that it set is the level
of the fleet until something newer takes its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from edgefleet_fleet.cohort import wave_of
from edgefleet_fleet.gates import (
    DEFAULT_GATE,
    Counts,
    GatePolicy,
    has_ended,
    has_passed,
    has_tripped,
)


class State(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"

    @property
    def is_over(self) -> bool:
        """Whether no event leads out of it."""
        return self in (State.COMPLETED, State.ABORTED, State.SUPERSEDED)


class Cause(StrEnum):
    """Who stopped a rollout."""

    GATE = "gate"
    OPERATOR = "operator"


class Trigger(StrEnum):
    """What moves a rollout from one state to another."""

    GATE_TRIPPED = "gate tripped"
    LAST_WAVE_PASSED = "last wave passed"
    OPERATOR_PAUSED = "operator paused"
    OPERATOR_RESUMED = "operator resumed"
    OPERATOR_ABORTED = "operator aborted"
    REPLACED = "replaced by a newer rollout"


TRANSITIONS: Final[Mapping[tuple[State, Trigger], State]] = {
    (State.RUNNING, Trigger.GATE_TRIPPED): State.PAUSED,
    (State.RUNNING, Trigger.LAST_WAVE_PASSED): State.COMPLETED,
    (State.RUNNING, Trigger.OPERATOR_PAUSED): State.PAUSED,
    (State.RUNNING, Trigger.OPERATOR_ABORTED): State.ABORTED,
    (State.RUNNING, Trigger.REPLACED): State.SUPERSEDED,
    (State.PAUSED, Trigger.OPERATOR_RESUMED): State.RUNNING,
    (State.PAUSED, Trigger.OPERATOR_ABORTED): State.ABORTED,
    (State.PAUSED, Trigger.REPLACED): State.SUPERSEDED,
}


class Outcome(StrEnum):
    """How far one device came with one rollout."""

    PENDING = "pending"
    ASKED = "asked"
    GOOD = "good"
    BAD = "bad"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided before it began: shares in percent, canaries, the gate."""

    salt: str
    waves: tuple[int, ...] = (100,)
    canaries: frozenset[str] = frozenset()
    gate: GatePolicy = DEFAULT_GATE

    @property
    def wave_count(self) -> int:
        """How many waves there are, the canaries' one included."""
        return len(self.waves) + (1 if self.canaries else 0)

    def wave_of(self, device: str) -> int:
        """The wave that a device falls into, counted from 0."""
        return wave_of(device, salt=self.salt, waves=self.waves, canaries=self.canaries)


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a rollout."""

    wave: int
    outcome: Outcome = Outcome.PENDING


@dataclass(frozen=True, slots=True)
class Rollout:
    """The whole state: waves 0 to `wave` are open; `excused` failures were acknowledged."""

    plan: Plan
    state: State = State.RUNNING
    cause: Cause | None = None
    wave: int = 0
    excused: int = 0
    members: Mapping[str, Member] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """The devices of the open waves, counted; those withdrawn do not count."""
        found = dict.fromkeys(Outcome, 0)
        for member in self.members.values():
            if member.wave <= self.wave:
                found[member.outcome] += 1
        waiting = found[Outcome.PENDING] + found[Outcome.ASKED]
        return Counts(found[Outcome.GOOD], found[Outcome.BAD], waiting, self.excused)


@dataclass(frozen=True, slots=True)
class Joined:
    """A device that the target matches is there."""

    device: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A device ended what it was asked: with the target running, or not."""

    device: str
    good: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """A newer rollout asks this device for the same slot."""

    device: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A person stops it for now."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person lets it go on, and takes the failures so far as seen."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A person ends it; who has the new version keeps it."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer rollout for the same slot means all of these devices."""


Event: TypeAlias = Joined | Ended | Taken | Paused | Resumed | Aborted | Replaced


@dataclass(frozen=True, slots=True)
class Ask:
    """Order this device to run the target."""

    device: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Order this device to run what it ran before."""

    device: str


Command: TypeAlias = Ask | Withdraw


class NotInTable(Exception):
    """This cannot happen to a rollout in this state."""

    def __init__(self, state: State, trigger: Trigger) -> None:
        super().__init__(f"{trigger.value} is not possible while {state.value}")
        self.state = state
        self.trigger = trigger


def begin(plan: Plan, devices: tuple[str, ...]) -> tuple[Rollout, tuple[Command, ...]]:
    """A rollout that starts now with the devices that match now."""
    members = {device: Member(plan.wave_of(device)) for device in devices}
    return _settle(Rollout(plan, members=members))


def step(rollout: Rollout, event: Event) -> tuple[Rollout, tuple[Command, ...]]:
    """The rollout after an event, and what is to be done.

    Raises:
        NotInTable: the event has no place in this state; nothing changed.
    """
    match event:
        case Joined(device):
            return _join(rollout, device)
        case Ended(device, good):
            return _end(rollout, device, good)
        case Taken(device):
            return _withdraw(rollout, device)
        case Paused():
            return _move(rollout, Trigger.OPERATOR_PAUSED, Cause.OPERATOR), ()
        case Resumed():
            seen = dataclasses.replace(rollout, excused=rollout.counts.bad)
            return _settle(_move(seen, Trigger.OPERATOR_RESUMED))
        case Aborted():
            return _stop(_move(rollout, Trigger.OPERATOR_ABORTED))
        case Replaced():
            return _stop(_move(rollout, Trigger.REPLACED))


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.RUNNING}"]
    lines += [f"    {old} --> {new}: {trigger}" for (old, trigger), new in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state.is_over]
    return "\n".join(lines)


def _move(rollout: Rollout, trigger: Trigger, cause: Cause | None = None) -> Rollout:
    state = TRANSITIONS.get((rollout.state, trigger))
    if state is None:
        raise NotInTable(rollout.state, trigger)
    return dataclasses.replace(rollout, state=state, cause=cause)


def _join(rollout: Rollout, device: str) -> tuple[Rollout, tuple[Command, ...]]:
    if device in rollout.members or rollout.state in (State.ABORTED, State.SUPERSEDED):
        return rollout, ()
    grown = _with(rollout, device, Member(rollout.plan.wave_of(device)))
    if rollout.state is State.COMPLETED:
        return _ask_due(grown)
    return _settle(grown)


def _end(rollout: Rollout, device: str, good: bool) -> tuple[Rollout, tuple[Command, ...]]:
    member = rollout.members.get(device)
    if member is None or member.outcome is not Outcome.ASKED:
        return rollout, ()
    outcome = Outcome.GOOD if good else Outcome.BAD
    ended = _with(rollout, device, dataclasses.replace(member, outcome=outcome))
    settled, commands = _settle(ended)
    return settled, commands if good else (Withdraw(device), *commands)


def _withdraw(rollout: Rollout, device: str) -> tuple[Rollout, tuple[Command, ...]]:
    member = rollout.members.get(device)
    if member is None or member.outcome not in (Outcome.PENDING, Outcome.ASKED):
        return rollout, ()
    gone = dataclasses.replace(member, outcome=Outcome.WITHDRAWN)
    return _settle(_with(rollout, device, gone))


def _settle(rollout: Rollout) -> tuple[Rollout, tuple[Command, ...]]:
    """Apply the gate, open what may open, ask whom it concerns; only while RUNNING."""
    commands: tuple[Command, ...] = ()
    while rollout.state is State.RUNNING:
        rollout, asked = _ask_due(rollout)
        commands += asked
        counts, gate = rollout.counts, rollout.plan.gate
        is_last = rollout.wave == rollout.plan.wave_count - 1
        if has_tripped(gate, counts, is_last_wave=is_last):
            return _move(rollout, Trigger.GATE_TRIPPED, Cause.GATE), commands
        if not has_ended(counts):
            break
        if not has_passed(gate, counts):
            return _move(rollout, Trigger.GATE_TRIPPED, Cause.GATE), commands
        if is_last:
            if counts.good:
                rollout = _move(rollout, Trigger.LAST_WAVE_PASSED)
            break  # nobody has it yet: wait for the first device that joins
        rollout = dataclasses.replace(rollout, wave=rollout.wave + 1)
    return rollout, commands


def _ask_due(rollout: Rollout) -> tuple[Rollout, tuple[Command, ...]]:
    due = [
        device
        for device, member in sorted(rollout.members.items())
        if member.outcome is Outcome.PENDING and member.wave <= rollout.wave
    ]
    if not due:
        return rollout, ()
    members = dict(rollout.members)
    for device in due:
        members[device] = dataclasses.replace(members[device], outcome=Outcome.ASKED)
    return dataclasses.replace(rollout, members=members), tuple(Ask(device) for device in due)


def _stop(rollout: Rollout) -> tuple[Rollout, tuple[Command, ...]]:
    open_outcomes = (Outcome.PENDING, Outcome.ASKED)
    asked = [d for d, m in sorted(rollout.members.items()) if m.outcome is Outcome.ASKED]
    members = {
        device: dataclasses.replace(member, outcome=Outcome.WITHDRAWN)
        if member.outcome in open_outcomes
        else member
        for device, member in rollout.members.items()
    }
    stopped = dataclasses.replace(rollout, members=members)
    return stopped, tuple(Withdraw(device) for device in asked)


def _with(rollout: Rollout, device: str, member: Member) -> Rollout:
    return dataclasses.replace(rollout, members={**rollout.members, device: member})
