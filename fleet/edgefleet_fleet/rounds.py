"""What follows by itself: opening waves, asking at the pace, stopping when it is time. No I/O.

`follow` does one thing and says what changed; it is called again until nothing does. So the roster
is asked between the rounds, and a store can be one. `drive` is that loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from edgefleet_fleet import model_gates
from edgefleet_fleet.gates import (
    Counts,
    Trip,
    at_it_count,
    counts_of,
    exceeds,
    has_ended,
    objection,
    tripped,
)
from edgefleet_fleet.pace import UNBOUNDED
from edgefleet_fleet.rollout import Rollout, Step, change, move, move_wave, step, stop
from edgefleet_fleet.rollout_events import (
    Ask,
    Block,
    Command,
    Enlist,
    Enlisted,
    Event,
    Withdraw,
)
from edgefleet_fleet.rollout_states import Cause, State, Trigger, WaveState, WaveTrigger
from edgefleet_fleet.roster import AT_IT, NONE, Member, Outcome, Roster

ANSWER_S = 60
"""For so long a device that was asked and says nothing is waited for in any case, and holds its
place among those at work."""
_BATCH = 500
_BY_CAUSE = {
    Cause.GATE: Trigger.GATE_TRIPPED,
    Cause.BUDGET: Trigger.BUDGET_SPENT,
    Cause.STALL: Trigger.STALLED,
}


def drive(
    rollout: Rollout,
    roster: Roster,
    event: Event,
    *,
    now: int,
    enlist: Callable[[], Enlisted],
) -> tuple[Rollout, tuple[Command, ...]]:
    """The rollout after an event and all that follows from it, and what is to be done.

    Changes are written to the roster; `enlist` finds the devices when it begins.

    Raises:
        NotInTable, NotAllowed: as `step`; nothing changed.
    """
    found = step(rollout, roster, event, now=now)
    commands: list[Command] = []
    while True:
        roster.write(found.changes)
        commands += found.commands
        before = found.rollout
        found = follow(before, roster, now=now)
        if Enlist() in found.commands:
            found = step(before, roster, enlist(), now=now)
        if found.rollout == before and not found.changes:
            return before, tuple(commands)


def follow(rollout: Rollout, roster: Roster, *, now: int) -> Step:
    """The next thing that follows by itself; a step without changes where nothing does."""
    plan = rollout.plan
    is_active = rollout.state.is_waiting or rollout.state in (State.RUNNING, State.PAUSED)
    if is_active and plan.expires_at and now >= plan.expires_at:
        return stop(rollout, roster, Trigger.EXPIRED, why="its time ran out")
    match rollout.state:
        case State.SCHEDULED if now >= plan.start_at:
            return Step(dataclasses.replace(move(rollout, Trigger.DUE), quiet_since=now))
        case State.RUNNING if not rollout.is_enlisted:
            return Step(rollout, commands=(Enlist(),))
        case State.RUNNING:
            return _run(rollout, roster, now)
        case State.COMPLETED:
            return _retry(rollout, roster, now) or _ask(rollout, roster, now)
        case State.ABORTING if not rollout.tally.by_outcome()[Outcome.REVERTING]:
            return Step(move(rollout, Trigger.ALL_BACK, rollout.cause, rollout.why))
        case _:
            return Step(rollout)


def wake_at(rollout: Rollout, now: int) -> int:
    """By when somebody should say `Tick`, seconds since 1970; 0 where nothing is waited for."""
    plan = rollout.plan
    moments = [plan.expires_at] if rollout.state is not State.COMPLETED else []
    match rollout.state:
        case State.SCHEDULED:
            moments.append(plan.start_at)
        case State.RUNNING | State.COMPLETED:
            found = rollout.tally.by_outcome(range(rollout.wave + 1))
            if found[Outcome.PENDING]:
                moments.append(rollout.bucket.next_at(plan.pace.rate(found[Outcome.GOOD])))
                if plan.pace.at_once:
                    moments.append(now + ANSWER_S)
            if found[Outcome.RETRYING]:
                moments.append(rollout.retry_at)
            if rollout.state is State.RUNNING:
                moments += [rollout.soak_until if rollout.wave_state is WaveState.SOAK else 0]
                if found[Outcome.ACTIVE] or (plan.soak_s and found[Outcome.GOOD]):
                    moments.append(rollout.swept_at + sweep_s(rollout))
                if plan.gate.min_sample and found[Outcome.ASKED]:
                    moments.append(now + ANSWER_S)
                stall = plan.gate.stall_s
                moments += [rollout.quiet_since + stall] if stall and found[Outcome.ASKED] else []
        case _:
            pass
    return min((moment for moment in moments if moment), default=0)


def counts(rollout: Rollout, waves: range | None = None) -> Counts:
    """The devices of the open waves as the gate sees them; blocked classes stand aside."""
    return _pooled(rollout, by_kind(rollout, waves))


def _pooled(rollout: Rollout, kinds: Mapping[str, Counts]) -> Counts:
    return sum((found for kind, found in kinds.items() if kind not in rollout.blocked), Counts())


def by_kind(rollout: Rollout, waves: range | None = None) -> dict[str, Counts]:
    """The same for each hardware class, blocked ones too."""
    waves = waves if waves is not None else range(rollout.wave + 1)
    seen = rollout.excused.by_kind(waves)
    return {
        kind: counts_of(found, seen.get(kind, NONE))
        for kind, found in rollout.tally.by_kind(waves).items()
    }


def _run(rollout: Rollout, roster: Roster, now: int) -> Step:
    if rollout.wave_state is WaveState.PENDING:
        opened = move_wave(rollout, WaveTrigger.OPENED)
        return Step(dataclasses.replace(opened, quiet_since=now))
    if now >= rollout.swept_at + sweep_s(rollout):
        return _sweep(rollout, roster, now)
    kinds = by_kind(rollout)
    blocked = _block(rollout, roster, kinds)
    if blocked is not None:
        return blocked
    trip = _trip(rollout, kinds, now)
    if trip is not None:
        return _give_up(rollout, roster, trip)
    again = _retry(rollout, roster, now)
    if again is not None:
        return again
    asked = _ask(rollout, roster, now)
    return asked if asked.changes else _pass(rollout, roster, _pooled(rollout, kinds), now)


def _sweep(rollout: Rollout, roster: Roster, now: int) -> Step:
    soaks = rollout.plan.soak_s > 0
    quiet = roster.silent(now - rollout.plan.gate.silence_s, committed=soaks)
    changes = {
        device: dataclasses.replace(_member(roster, device), outcome=Outcome.SILENT)
        for device in quiet
    }
    return change(dataclasses.replace(rollout, swept_at=now), roster, changes)


def sweep_s(rollout: Rollout) -> int:
    """How often silent devices are looked for: a silence is noticed a tenth late at most."""
    return max(1, rollout.plan.gate.silence_s // 10)


def _block(rollout: Rollout, roster: Roster, kinds: Mapping[str, Counts]) -> Step | None:
    gate = rollout.plan.gate
    for kind, here in kinds.items():
        if not gate.block_after or not kind or kind in rollout.blocked:
            continue
        if here.failed < gate.block_after or not exceeds(gate, here):
            continue
        failed = roster.having((Outcome.BAD,), kind=kind)
        if sum(_member(roster, device).failed_selftest for device in failed) >= gate.block_after:
            return _block_kind(rollout, roster, kind)
    return None


def _block_kind(rollout: Rollout, roster: Roster, kind: str) -> Step:
    blocked = dataclasses.replace(rollout, blocked=(*rollout.blocked, kind))
    changes: dict[str, Member] = {}
    commands: list[Command] = [Block(kind)]
    for device in roster.having((Outcome.PENDING, Outcome.RETRYING, *AT_IT), kind=kind):
        member = _member(roster, device)
        was_asked = member.outcome.is_open
        outcome = Outcome.WITHDRAWN if was_asked else Outcome.BLOCKED
        changes[device] = dataclasses.replace(member, outcome=outcome)
        commands += [Withdraw(device)] if was_asked else []
    return change(blocked, roster, changes, *commands)


def _trip(rollout: Rollout, kinds: Mapping[str, Counts], now: int) -> Trip | None:
    plan = rollout.plan
    looked_at = {kind: found for kind, found in kinds.items() if kind not in rollout.blocked}
    pooled = _pooled(rollout, kinds)
    canaries = counts(rollout, range(1)) if plan.canaries and pooled.failed else Counts()
    several = looked_at if len(looked_at) > 1 and pooled.failed else {}
    found = tripped(plan.gate, pooled, several, canaries=canaries)
    if found is not None:
        return found
    words = model_gates.objection(plan.model_gates, rollout.evidence, plan.reference)
    if words:
        return Trip(Cause.GATE, words)
    return _stall(rollout, now)


def _stall(rollout: Rollout, now: int) -> Trip | None:
    stall_s = rollout.plan.gate.stall_s
    if not stall_s or now < rollout.quiet_since + stall_s:
        return None
    asked = at_it_count(rollout.tally.by_outcome(range(rollout.wave + 1)))
    days = stall_s / 86400
    words = f"{asked} devices were asked, and none said anything for {days:g} d"
    return Trip(Cause.STALL, words) if asked else None


def _give_up(rollout: Rollout, roster: Roster, found: Trip) -> Step:
    if rollout.wave_state in (WaveState.OPEN, WaveState.SOAK) and found.cause is Cause.GATE:
        rollout = move_wave(rollout, WaveTrigger.TRIPPED)
    ending = rollout.plan.gate.on_trip
    if found.cause is Cause.GATE and ending is not None:
        return stop(
            *(rollout, roster, Trigger.GATE_ABORTED),
            cause=Cause.GATE,
            ending=ending,
            why=found.why,
        )
    paused = move(rollout, _BY_CAUSE[found.cause], found.cause, found.why)
    return _hold(paused, roster) if found.cause is Cause.GATE else Step(paused)


def _hold(rollout: Rollout, roster: Roster) -> Step:
    """Take back the orders of devices that do not run the model yet; `Resumed` asks them again."""
    changes = {
        device: dataclasses.replace(_member(roster, device), outcome=Outcome.HELD)
        for device in roster.having((Outcome.ASKED, Outcome.STARTED))
    }
    return change(rollout, roster, changes, *(Withdraw(device) for device in changes))


def _retry(rollout: Rollout, roster: Roster, now: int) -> Step | None:
    """Let devices wait for their turn again whose time has come; None where none are."""
    if not rollout.retry_at or now < rollout.retry_at:
        return None
    waiting = roster.retrying(_BATCH)
    changes = {
        device: dataclasses.replace(_member(roster, device), outcome=Outcome.PENDING, retry_at=0)
        for device, at in waiting
        if at <= now
    }
    if not changes:
        next_at = waiting[0][1] if waiting else 0
        return Step(dataclasses.replace(rollout, retry_at=next_at))
    return change(dataclasses.replace(rollout, quiet_since=now), roster, changes)


def _ask(rollout: Rollout, roster: Roster, now: int) -> Step:
    waves = range(rollout.wave + 1)
    found = rollout.tally.by_outcome(waves)
    if not found[Outcome.PENDING] or rollout.wave_state is WaveState.PENDING:
        return Step(rollout)
    pace = rollout.plan.pace
    rate = pace.rate(found[Outcome.GOOD])
    bucket = rollout.bucket.filled(rate, now) if rate else rollout.bucket
    room = bucket.whole if rate else UNBOUNDED
    if pace.at_once:
        busy = found[Outcome.STARTED] + found[Outcome.ACTIVE] + roster.asked_since(now - ANSWER_S)
        room = min(room, max(0, pace.at_once - busy))
    due = roster.pending(rollout.wave, min(room, _BATCH)) if room else ()
    if not due:
        return Step(rollout)
    changes = {
        device: dataclasses.replace(
            _member(roster, device), outcome=Outcome.ASKED, asked_at=now, heard_at=now
        )
        for device in due
    }
    paid = dataclasses.replace(rollout, bucket=bucket.take(len(due)) if rate else bucket)
    return change(paid, roster, changes, *(Ask(device) for device in due))


def _pass(rollout: Rollout, roster: Roster, here: Counts, now: int) -> Step:
    """Whether the newest open wave is through, and what comes after it."""
    plan = rollout.plan
    if here.unasked or here.at_work:
        return _unsettle(rollout)
    newest = counts(rollout, range(rollout.wave, rollout.wave + 1))
    if rollout.wave_state is WaveState.PASSED:  # held for a person, or the last of all
        return Step(rollout)
    is_fresh = here.unheard > 0 and roster.asked_since(now - ANSWER_S) > 0
    if is_fresh or not has_ended(plan.gate, here, newest):
        return _unsettle(rollout)
    against = objection(plan.gate, newest) or objection(plan.gate, here)
    if against is not None:
        return _fail_wave(rollout, against)
    has_members = any(rollout.tally.by_outcome(range(rollout.wave + 1)).values())
    if plan.is_last(rollout.wave) and not here.good:
        if not has_members:
            return Step(rollout)  # nobody has it yet: wait for the first device that joins
        if rollout.blocked and not here.total:
            return _fail_wave(rollout, Trip(Cause.GATE, "every hardware class is blocked"))
        return Step(rollout)
    if rollout.wave_state is WaveState.OPEN:
        soaked = move_wave(rollout, WaveTrigger.ENDED_WELL)
        # a wave that nobody is in has nothing to soak
        rest = plan.soak_s if is_peopled(rollout) else 0
        return Step(dataclasses.replace(soaked, soak_until=now + rest))
    if now < rollout.soak_until or (is_peopled(rollout) and unseen(rollout)):
        return Step(rollout)
    return _go_on(move_wave(rollout, WaveTrigger.SOAKED), now)


def unseen(rollout: Rollout) -> tuple[str, ...]:
    """The samples that the model gates still need of the devices that run it."""
    plan, devices = rollout.plan, counts(rollout).good
    if not devices:
        return ()
    return model_gates.missing(plan.model_gates, rollout.evidence, plan.reference, devices)


def _unsettle(rollout: Rollout) -> Step:
    if rollout.wave_state is WaveState.SOAK:
        return Step(move_wave(rollout, WaveTrigger.UNSETTLED))
    return Step(rollout)


def is_peopled(rollout: Rollout) -> bool:
    """Whether the newest open wave has a device; one that has none waits for nothing."""
    return any(rollout.tally.by_outcome(range(rollout.wave, rollout.wave + 1)).values())


def _fail_wave(rollout: Rollout, found: Trip) -> Step:
    failed = move_wave(rollout, WaveTrigger.TRIPPED)
    return Step(move(failed, _BY_CAUSE[found.cause], found.cause, found.why))


def _go_on(passed: Rollout, now: int) -> Step:
    if passed.plan.is_last(passed.wave):
        return Step(move(passed, Trigger.LAST_WAVE_PASSED))
    if passed.wave + 1 in passed.plan.hold_after:
        return Step(passed)
    return Step(
        dataclasses.replace(
            passed, wave=passed.wave + 1, wave_state=WaveState.PENDING, quiet_since=now
        )
    )


def _member(roster: Roster, device: str) -> Member:
    found = roster.get(device)
    assert found is not None
    return found
