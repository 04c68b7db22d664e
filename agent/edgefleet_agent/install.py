"""The install machine: what a device does with an order, step by step. Core: no clock, no disk.

`step(device, event) -> (device, commands)`. The table below says which event may come in which
phase and where it may lead; the diagram in docs/design/install.md is printed from it. What is not
in the table raises and changes nothing. The shell makes the returned state durable before it
performs the commands, so a power cut is an ordinary event (`Booted`).

What it keeps: `device.slots` is what was last committed, and what a start serves; it changes at
one place only, the step to COMMITTED. An order is a group: all of its models swap, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from edgefleet_agent import policy
from edgefleet_agent.device import (
    Activate,
    Activated,
    Begin,
    Booted,
    Command,
    Device,
    Download,
    Downloaded,
    Event,
    Install,
    Installed,
    Interrupted,
    Observe,
    OrderRejected,
    OrderTaken,
    Outcome,
    ProbationPassed,
    Proceed,
    Restore,
    RollbackFailed,
    RolledBack,
    SelfTest,
    Serve,
    ServeFailed,
    Settle,
    StepFailed,
    TrialPassed,
    TrustSeen,
    Withdrawn,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.messages import Order, Phase, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors

MAX_STARTS: Final = 3
"""How often a step may be begun again after a power cut before it is given up."""
MAX_DOWNLOADS: Final = 30
"""How often a broken download is taken up again; with the back-off below, about two hours."""
MAX_BACKOFF_S: Final = 300.0

_BLAMED: Final = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.GOLDEN_MISMATCH,
        Reason.TRIAL_CRASHED,
        Reason.TRIAL_TIMEOUT,
        Reason.LATENCY_EXCEEDED,
        Reason.MEMORY_EXCEEDED,
        Reason.ACTIVATION_FAILED,
        Reason.PROBATION_FAILED,
        Reason.TOO_MANY_ATTEMPTS,
    }
)
"""Reasons that speak against the bundle itself: it is not tried here again unasked."""


class IllegalStep(EdgefleetError):
    """An event came in a phase where the table has no place for it."""


def step(device: Device, event: Event) -> Outcome:
    """The next state, and what to do about it once it is durable.

    Raises:
        IllegalStep: the table has no such step; nothing changed.
    """
    row = TABLE.get((device.phase, type(event)))
    if row is None:
        raise IllegalStep(f"{type(event).__name__} has no place in phase {device.phase}")
    act, allowed = row
    after, commands = act(device, event)
    if after.phase not in allowed:
        raise IllegalStep(f"{device.phase} -> {after.phase} on {type(event).__name__}")
    if after.phase.is_final and after.pending is not None:
        after, more = _take_up(replace(after, pending=None), after.pending)
        commands = (*commands, *more)
    return after, commands


def changed(device: Device, order: Order) -> tuple[Target, ...]:
    """The targets of an order that are not what is committed."""
    return tuple(
        target
        for target in order.targets
        if target.slot not in device.slots or device.slots[target.slot].target != target
    )


def _move(device: Device, phase: Phase, **changes: object) -> Device:
    assert device.install is not None  # every phase but IDLE has an install
    return replace(device, install=replace(device.install, phase=phase, **changes))  # type: ignore[arg-type] # field names are checked by the tests of every row


def _install(device: Device) -> Install:
    assert device.install is not None  # every phase but IDLE has an install
    return device.install


def _take_up(device: Device, order: Order) -> Outcome:
    """The order that waited, if it may still be taken: what it waited for may have changed that."""
    match policy.judge_targets(order, device):
        case policy.Refuse(reason, detail):
            return _reject(device, OrderRejected(order, reason, detail))
        case policy.Accept():
            return _take(device, OrderTaken(order))


def _take(device: Device, event: Event) -> Outcome:
    assert isinstance(event, OrderTaken)
    order = event.order
    taken = replace(
        device,
        seq=max(device.seq, order.seq),
        time_floor=max(device.time_floor, order.issued),
        install=Install(order, Phase.ACCEPTED),
        quarantined=_pardon(device, order),
    )
    return taken, (Proceed(),)


def _pardon(device: Device, order: Order) -> tuple[Digest, ...]:
    if not order.policy.retry_quarantined:
        return device.quarantined
    pardoned = {target.bundle_sha256 for target in order.targets}
    return tuple(digest for digest in device.quarantined if digest not in pardoned)


def _reject(device: Device, event: Event) -> Outcome:
    assert isinstance(event, OrderRejected)
    refused = Install(event.order, Phase.REJECTED, reason=event.reason, detail=event.detail)
    return replace(device, seq=max(device.seq, event.order.seq), install=refused), ()


def _reject_beside(device: Device, event: Event) -> Outcome:
    """A refused order does not disturb the one at hand, but its number is used up."""
    assert isinstance(event, OrderRejected)
    return replace(device, seq=max(device.seq, event.order.seq)), ()


def _hold(device: Device, event: Event) -> Outcome:
    """Too late to stop: the newer order waits for the end of this one."""
    assert isinstance(event, OrderTaken)
    return replace(device, pending=event.order, seq=max(device.seq, event.order.seq)), ()


def _begin(device: Device, _: Event) -> Outcome:
    order = _install(device).order
    targets = changed(device, order)
    if targets:
        return _move(device, Phase.DOWNLOADING), (Download(order, targets),)
    return _commit(device, ())


def _verified(device: Device, event: Event) -> Outcome:
    assert isinstance(event, Downloaded)
    return _move(device, Phase.VERIFIED, chosen=event.chosen, attempt=0), (Proceed(),)


def _broken(device: Device, event: Event) -> Outcome:
    assert isinstance(event, Interrupted)
    install = _install(device)
    attempt = install.attempt + 1
    if attempt > MAX_DOWNLOADS:
        return _fail(device, StepFailed(Reason.DOWNLOAD_FAILED, event.detail))
    if event.now > install.order.expires:
        return _fail(device, StepFailed(Reason.ORDER_EXPIRED, event.detail))
    pause = min(MAX_BACKOFF_S, 2.0 ** min(attempt, 10)) * (0.5 + event.jitter / 2)
    retry = Download(install.order, changed(device, install.order), pause)
    return _move(device, Phase.DOWNLOADING, attempt=attempt, detail=event.detail), (retry,)


def _test(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.SELFTEST), (SelfTest(_install(device).chosen),)


def _activate(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.ACTIVATING, attempt=0), (Activate(_install(device).chosen),)


def _observe(device: Device, _: Event) -> Outcome:
    install = _install(device)
    asked = install.order.policy
    watch = Observe(install.chosen, float(asked.probation_s), asked.max_failures)
    return _move(device, Phase.PROBATION), (watch,)


def _pass(device: Device, _: Event) -> Outcome:
    return _commit(device, _install(device).chosen)


def _commit(device: Device, chosen: tuple[Installed, ...]) -> Outcome:
    order = _install(device).order
    wanted = {target.slot for target in order.targets}
    fresh = {item.target.slot: item for item in chosen}
    slots = {slot: item for slot, item in {**device.slots, **fresh}.items() if slot in wanted}
    dropped = tuple(sorted(set(device.slots) - wanted))
    before = {slot: item for slot, item in device.slots.items() if slot in fresh}
    previous = {
        slot: item for slot, item in {**device.previous, **before}.items() if slot in wanted
    }
    done = _move(replace(device, slots=slots, previous=previous), Phase.COMMITTED, detail="")
    return done, (Settle(dropped),)


def _blame(device: Device, event: StepFailed) -> tuple[Digest, ...]:
    if event.reason not in _BLAMED:
        return device.quarantined
    guilty = [
        item.target.bundle_sha256
        for item in _install(device).chosen
        if event.slot in ("", item.target.slot)
    ]
    return tuple(dict.fromkeys((*device.quarantined, *guilty)))


def _fail(device: Device, event: Event) -> Outcome:
    """Before activation: nothing was touched, so there is nothing to undo."""
    assert isinstance(event, StepFailed)
    blamed = replace(device, quarantined=_blame(device, event))
    failed = _move(blamed, Phase.FAILED, reason=event.reason, detail=event.detail)
    return failed, (Settle(()),)


def _roll_back(device: Device, event: Event) -> Outcome:
    assert isinstance(event, StepFailed)
    blamed = replace(device, quarantined=_blame(device, event))
    back = _move(blamed, Phase.ROLLING_BACK, reason=event.reason, detail=event.detail)
    return back, (_restore(device),)


def _restore(device: Device) -> Restore:
    touched = [item.target.slot for item in _install(device).chosen]
    old = tuple(device.slots[slot] for slot in touched if slot in device.slots)
    return Restore(old, tuple(slot for slot in touched if slot not in device.slots))


def _rolled_back(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.ROLLED_BACK), (Settle(()),)


def _rollback_failed(device: Device, event: Event) -> Outcome:
    assert isinstance(event, RollbackFailed)
    detail = f"{_install(device).detail}; going back failed: {event.detail}"
    return _move(device, Phase.ROLLBACK_FAILED, detail=detail), ()


# --- after a power cut ---------------------------------------------------------------------------


def _serve(device: Device) -> tuple[Command, ...]:
    return (Serve(tuple(device.slots[slot] for slot in sorted(device.slots))),)


def _boot_quiet(device: Device, _: Event) -> Outcome:
    """Nothing is at hand; the power may have gone while the last install was cleaned up."""
    return device, (*_serve(device), Settle(()))


def _boot_accepted(device: Device, _: Event) -> Outcome:
    return device, (*_serve(device), Proceed())


def _boot_downloading(device: Device, _: Event) -> Outcome:
    order = _install(device).order
    return device, (*_serve(device), Download(order, changed(device, order)))


def _boot_testing(device: Device, _: Event) -> Outcome:
    attempt = _install(device).attempt + 1
    if attempt > MAX_STARTS:
        gone = StepFailed(Reason.TOO_MANY_ATTEMPTS, f"{MAX_STARTS} self-tests never ended")
        after, commands = _fail(device, gone)
        return after, (*_serve(device), *commands)
    again = _move(device, Phase.VERIFIED, attempt=attempt)
    return again, (*_serve(device), Proceed())


def _boot_serving(device: Device, _: Event) -> Outcome:
    """The new models were about to serve, or did: they begin again, a counted number of times."""
    install = _install(device)
    attempt = install.attempt + 1
    if attempt > MAX_STARTS:
        gone = StepFailed(Reason.TOO_MANY_ATTEMPTS, f"{MAX_STARTS} activations never ended")
        blamed = replace(device, quarantined=_blame(device, gone))
        back = _move(blamed, Phase.ROLLED_BACK, reason=gone.reason, detail=gone.detail)
        return back, (*_serve(device), Settle(()))
    again = _move(device, Phase.ACTIVATING, attempt=attempt)
    return again, (*_serve(device), Activate(install.chosen))


def _boot_rolling_back(device: Device, _: Event) -> Outcome:
    """A start serves what is committed: that is the rollback."""
    return _move(device, Phase.ROLLED_BACK), (*_serve(device), Settle(()))


def _fall_back(device: Device, event: Event) -> Outcome:
    """A committed model does not serve: the one before it does, if there is one."""
    assert isinstance(event, ServeFailed)
    before = device.previous.get(event.slot)
    if before is None or before == device.slots.get(event.slot):
        return device, ()
    return replace(device, slots={**device.slots, event.slot: before}), (Serve((before,)),)


def _see(device: Device, event: Event) -> Outcome:
    assert isinstance(event, TrustSeen)
    floors = TrustFloors(
        *(
            max(getattr(device.trust, role), getattr(event.floors, role))
            for role in ("root", "timestamp", "snapshot", "targets")
        )
    )
    return replace(device, trust=floors, time_floor=max(device.time_floor, event.now)), ()


def _withdraw(device: Device, event: Event) -> Outcome:
    """What may not run any more is gone for good: not even a start serves it again."""
    assert isinstance(event, Withdrawn)
    gone = [slot for slot in event.slots if slot in device.slots]
    back = {
        slot: device.previous[slot]
        for slot in gone
        if slot in event.go_back and slot in device.previous
    }
    kept = {slot: item for slot, item in device.slots.items() if slot not in gone}
    older = {slot: item for slot, item in device.previous.items() if slot not in gone}
    after = replace(device, slots={**kept, **back}, previous=older)
    if after.install is not None:  # the order at hand is not what runs any more
        names = ", ".join(gone)
        after = _move(
            after, Phase.ROLLED_BACK, reason=Reason.REVOKED, detail=f"taken back: {names}"
        )
    stop = tuple(slot for slot in gone if slot not in back)
    return after, (Serve(tuple(back.values())), Settle(stop))


Act: TypeAlias = Callable[[Device, Event], Outcome]
_P = Phase
_QUIET: Final = tuple(phase for phase in Phase if phase is _P.IDLE or phase.is_final)
_STOPPABLE: Final = (_P.ACCEPTED, _P.DOWNLOADING, _P.VERIFIED, _P.SELFTEST)
_CRITICAL: Final = (_P.ACTIVATING, _P.PROBATION, _P.ROLLING_BACK)

TABLE: Final[dict[tuple[Phase, type[Event]], tuple[Act, tuple[Phase, ...]]]] = {
    **{(phase, OrderTaken): (_take, (_P.ACCEPTED,)) for phase in (*_QUIET, *_STOPPABLE)},
    **{(phase, OrderTaken): (_hold, (phase,)) for phase in _CRITICAL},
    **{(phase, OrderRejected): (_reject, (_P.REJECTED,)) for phase in _QUIET},
    **{(phase, OrderRejected): (_reject_beside, (phase,)) for phase in (*_STOPPABLE, *_CRITICAL)},
    (_P.ACCEPTED, Begin): (_begin, (_P.DOWNLOADING, _P.COMMITTED)),
    (_P.DOWNLOADING, Downloaded): (_verified, (_P.VERIFIED,)),
    (_P.DOWNLOADING, Interrupted): (_broken, (_P.DOWNLOADING, _P.FAILED)),
    (_P.DOWNLOADING, StepFailed): (_fail, (_P.FAILED,)),
    (_P.VERIFIED, Begin): (_test, (_P.SELFTEST,)),
    (_P.SELFTEST, TrialPassed): (_activate, (_P.ACTIVATING,)),
    (_P.SELFTEST, StepFailed): (_fail, (_P.FAILED,)),
    (_P.ACTIVATING, Activated): (_observe, (_P.PROBATION,)),
    (_P.ACTIVATING, StepFailed): (_roll_back, (_P.ROLLING_BACK,)),
    (_P.PROBATION, ProbationPassed): (_pass, (_P.COMMITTED,)),
    (_P.PROBATION, StepFailed): (_roll_back, (_P.ROLLING_BACK,)),
    (_P.ROLLING_BACK, RolledBack): (_rolled_back, (_P.ROLLED_BACK,)),
    (_P.ROLLING_BACK, RollbackFailed): (_rollback_failed, (_P.ROLLBACK_FAILED,)),
    **{(phase, TrustSeen): (_see, (phase,)) for phase in Phase},
    **{(phase, Withdrawn): (_withdraw, (phase, _P.ROLLED_BACK)) for phase in _QUIET},
    **{(phase, ServeFailed): (_fall_back, (phase,)) for phase in Phase},
    **{(phase, Booted): (_boot_quiet, (phase,)) for phase in _QUIET},
    (_P.ACCEPTED, Booted): (_boot_accepted, (_P.ACCEPTED,)),
    (_P.DOWNLOADING, Booted): (_boot_downloading, (_P.DOWNLOADING,)),
    (_P.VERIFIED, Booted): (_boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.SELFTEST, Booted): (_boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.ACTIVATING, Booted): (_boot_serving, (_P.ACTIVATING, _P.ROLLED_BACK)),
    (_P.PROBATION, Booted): (_boot_serving, (_P.ACTIVATING, _P.ROLLED_BACK)),
    (_P.ROLLING_BACK, Booted): (_boot_rolling_back, (_P.ROLLED_BACK,)),
}


def diagram(*, without: tuple[type[Event], ...] = ()) -> str:
    """The table as a Mermaid state diagram, an arrow for each pair of phases.

    Events of `without` are left out: those that may come in every phase.
    """
    words: dict[tuple[Phase, Phase], list[str]] = {}
    for (before, event), (_, afters) in TABLE.items():
        for after in afters:
            if before is not after and event not in without:
                words.setdefault((before, after), []).append(event.__name__)
    arrows = [
        f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in words.items()
    ]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {Phase.IDLE}", *arrows]) + "\n"
