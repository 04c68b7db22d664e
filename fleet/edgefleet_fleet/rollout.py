"""The rollout machine: `step(rollout, roster, event, now=…)` gives a `Step`. No I/O, no clock.

`rollout_states.py` has its tables, `rollout_plan.py` what was decided before, `roster.py` the
devices, `gates.py` and `model_gates.py` when to stop. Here is what an event does to one device or
to the state; `rounds.py` is what follows by itself (opening waves, asking, stopping).

A device is asked once; twice only where its order was taken back by a gate (`held`) before it ran
the model, and a person resumed. `good` may still become `bad` (it kept dying after its commit), and
`silent` may become anything (it was heard of again); `bad`, `refused`, `undelivered`, `blocked`,
`withdrawn` and `reverted` stay. One that could not fetch it is asked again, `retrying` until then,
as often as the plan says (`retries.py`); only after that it is `undelivered`.

A rollout that is COMPLETED still asks devices that join later: the level that it set is the level
of the fleet until something newer takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.pace import FULL, Bucket
from edgefleet_fleet.rollout_events import (
    Aborted,
    Answered,
    Approved,
    Back,
    Command,
    Denied,
    Ended,
    Enlisted,
    Event,
    Joined,
    Left,
    Observed,
    Paused,
    Promoted,
    PutOff,
    Replaced,
    Resumed,
    Started,
    Submitted,
    Taken,
    Withdraw,
)
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
from edgefleet_fleet.roster import NOBODY, OPEN, Member, Outcome, Roster, Tally

_TAKEN = (Outcome.PENDING, Outcome.HELD, Outcome.RETRYING, Outcome.BLOCKED, *OPEN)


@dataclass(frozen=True, slots=True)
class Rollout:
    """The whole state but for the devices: waves 0 to `wave` are open.

    `excused` failures were acknowledged. `ends` are the waves' ends, fixed when it began. `blocked`
    hardware classes are asked no more. `retry_at` is by when a device is to be asked again (0: none
    is), `quiet_since` when something last happened, `swept_at` when silent devices were last looked
    for.
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
    tally: Tally = NOBODY
    excused: Tally = NOBODY
    bucket: Bucket = FULL
    swept_at: int = 0
    blocked: tuple[str, ...] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    approved_by: str = ""
    retry_at: int = 0

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
        case Left(device):
            return _leave(rollout, roster, device)
        case Resumed():
            return _resume(rollout, roster, now)
        case Aborted() | Replaced():
            return _stop_by(rollout, roster, event)
        case _:
            return Step(_turn(rollout, event, now))


def _turn(rollout: Rollout, event: Event, now: int) -> Rollout:
    """What an event does to a rollout that concerns no device by itself."""
    match event:
        case Submitted() | Started() | Approved() | Denied():
            return _admit(rollout, event, now)
        case Observed(kind, more):
            known = rollout.evidence.get(kind, Evidence())
            return replace(rollout, evidence={**rollout.evidence, kind: known + more})
        case Promoted():
            return _promote(rollout, now)
        case Paused():
            return move(rollout, Trigger.OPERATOR_PAUSED, Cause.OPERATOR)
        case _:
            return rollout  # time went on


def _stop_by(rollout: Rollout, roster: Roster, event: Aborted | Replaced) -> Step:
    if isinstance(event, Replaced):
        return stop(rollout, roster, Trigger.REPLACED)
    is_revert = event.ending is Ending.REVERT
    trigger = Trigger.OPERATOR_REVERTED if is_revert else Trigger.OPERATOR_ABORTED
    return stop(rollout, roster, trigger, cause=Cause.OPERATOR, ending=event.ending)


def move(rollout: Rollout, trigger: Trigger, cause: Cause | None = None, why: str = "") -> Rollout:
    """The rollout in the state that the table names."""
    state = TRANSITIONS.get((rollout.state, trigger))
    if state is None:
        raise NotInTable(rollout.state, trigger.value)
    return replace(rollout, state=state, cause=cause, why=why)


def move_wave(rollout: Rollout, trigger: WaveTrigger) -> Rollout:
    """The rollout with its newest open wave in the state that the table names."""
    state = WAVE_TRANSITIONS.get((rollout.wave_state, trigger))
    if state is None:
        raise NotInTable(rollout.state, f"wave {rollout.wave_state.value}: {trigger.value}")
    return replace(rollout, wave_state=state)


def change(
    rollout: Rollout, roster: Roster, devices: Mapping[str, Member], *commands: Command
) -> Step:
    """The step that changes these devices, the tally with them."""
    pairs = [(roster.get(device), member) for device, member in devices.items()]
    grown = replace(rollout, tally=rollout.tally.moved(pairs))
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
    stopped = replace(stopped, ending=ending or rollout.ending)
    changes: dict[str, Member] = {}
    commands: list[Command] = []
    for device in roster.having((Outcome.PENDING, Outcome.HELD, Outcome.RETRYING, *OPEN)):
        member = _known(roster, device)
        if member.outcome.is_open:
            commands.append(Withdraw(device))
        outcome = Outcome.WITHDRAWN
        if ending is Ending.REVERT and member.outcome is Outcome.SILENT:
            outcome = Outcome.REVERTING
        changes[device] = replace(member, outcome=outcome)
    if ending is Ending.REVERT:
        for device in roster.having((Outcome.GOOD,)):
            member = _known(roster, device)
            changes[device] = replace(member, outcome=Outcome.REVERTING)
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
            return replace(move(rollout, Trigger.DUE), quiet_since=now)
        case Approved(who):
            if who == plan.author:
                raise NotAllowed("who asks for a rollout does not approve it")
            if plan.approve_by not in (ANYBODY, who):
                raise NotAllowed(f"{plan.approve_by} is to approve it")
            return replace(move(rollout, Trigger.APPROVED), approved_by=who)
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
    begun = replace(rollout, ends=ends, blocked=blocked, quiet_since=now)
    members = {device: _new(begun, device, kind) for device, kind in devices.items()}
    tally = NOBODY.moved((None, member) for member in members.values())
    return Step(replace(begun, tally=tally), members)


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
    heard = replace(member, outcome=outcome, heard_at=now)
    return _hear(change(rollout, roster, {device: heard}), now)


def _end(rollout: Rollout, roster: Roster, event: Ended, now: int) -> Step:
    member = roster.get(event.device)
    if member is None or member.outcome is event.outcome:
        return Step(rollout)
    ran_before_it_was_held = member.outcome is Outcome.HELD and event.outcome is Outcome.BAD
    if not member.outcome.is_in_force and not ran_before_it_was_held:
        return Step(rollout)
    if member.outcome is Outcome.GOOD and event.outcome is not Outcome.BAD:
        return Step(rollout)  # it runs: what it says of a fetch or a refusal is of something else
    if event.outcome is Outcome.UNDELIVERED and event.may_retry:
        wait_s = rollout.plan.retries.wait_after(member.tries + 1)
        if wait_s is not None:
            return _hear(_put_off(rollout, roster, event.device, member, now, wait_s), now)
    ended = replace(
        member,
        tries=member.tries + (event.outcome is Outcome.UNDELIVERED),
        outcome=event.outcome,
        heard_at=now,
        failed_selftest=event.failed_selftest,
    )
    orders = () if event.outcome is Outcome.GOOD else (Withdraw(event.device),)
    return _hear(change(rollout, roster, {event.device: ended}, *orders), now)


def _put_off(
    rollout: Rollout, roster: Roster, device: str, member: Member, now: int, wait_s: int
) -> Step:
    waits = replace(
        member,
        outcome=Outcome.RETRYING,
        heard_at=now,
        tries=member.tries + 1,
        retry_at=now + wait_s,
    )
    first = min(rollout.retry_at or waits.retry_at, waits.retry_at)
    waiting = replace(rollout, retry_at=first)
    return change(waiting, roster, {device: waits}, PutOff(device))


def _hear(found: Step, now: int) -> Step:
    return replace(found, rollout=replace(found.rollout, quiet_since=now))


def _back(rollout: Rollout, roster: Roster, device: str, now: int) -> Step:
    member = roster.get(device)
    if member is None or member.outcome is not Outcome.REVERTING:
        return Step(rollout)
    back = replace(member, outcome=Outcome.REVERTED, heard_at=now)
    return change(rollout, roster, {device: back})


def _take(rollout: Rollout, roster: Roster, device: str) -> Step:
    member = roster.get(device)
    if member is None:
        return Step(rollout)
    if member.outcome is Outcome.REVERTING:
        gone = replace(member, outcome=Outcome.REVERTED)
    elif member.outcome in _TAKEN:
        gone = replace(member, outcome=Outcome.WITHDRAWN)
    else:
        return Step(rollout)
    return change(rollout, roster, {device: gone}, Withdraw(device))


def _leave(rollout: Rollout, roster: Roster, device: str) -> Step:
    # The store drops its row afterwards: as BLOCKED it stands aside in every count.
    member = roster.get(device)
    if member is None:
        return Step(rollout)
    return change(rollout, roster, {device: replace(member, outcome=Outcome.BLOCKED)})


def _promote(rollout: Rollout, now: int) -> Rollout:
    if rollout.state is State.RUNNING and rollout.wave_state is WaveState.SOAK:
        rollout = move_wave(rollout, WaveTrigger.PROMOTED)
        if rollout.plan.is_last(rollout.wave):
            return move(rollout, Trigger.LAST_WAVE_PASSED)
    is_held = rollout.state is State.RUNNING and rollout.wave_state is WaveState.PASSED
    if not is_held or rollout.plan.is_last(rollout.wave):
        raise NotInTable(rollout.state, "promoting, with no wave that waits for it,")
    return replace(rollout, wave=rollout.wave + 1, wave_state=WaveState.PENDING, quiet_since=now)


def _resume(rollout: Rollout, roster: Roster, now: int) -> Step:
    running = move(rollout, Trigger.OPERATOR_RESUMED)
    if running.wave_state is WaveState.FAILED:
        running = move_wave(running, WaveTrigger.RESUMED)
    # What was seen is taken as seen; so is what the model answered until now.
    seen = replace(running, excused=running.tally, evidence={}, quiet_since=now)
    held = {
        device: replace(_known(roster, device), outcome=Outcome.PENDING)
        for device in roster.having((Outcome.HELD,))
    }
    return change(seen, roster, held)
