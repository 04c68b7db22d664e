"""The install machine: what a device does with an order, step by step. Core: no clock, no disk.

`step(device, event) -> (device, commands)`. The table below says which event may come in which
phase and where it may lead; the diagram in docs/design/install.md is printed from it. What is not
in the table raises and changes nothing. The shell makes the returned state durable before it
performs the commands, so a power cut is an ordinary event (`Booted`).

What it keeps: `device.slots` is what was last committed, and what a start serves. New models enter
it at one place only, the step to COMMITTED; older ones return to it where what is committed cannot
serve or may not. An order is a group: all of its models swap, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from edgefleet_agent.device import (
    Activate,
    Activated,
    AwaitWindow,
    Begin,
    Booted,
    Command,
    Device,
    Download,
    Downloaded,
    Event,
    Held,
    Install,
    Installed,
    Interrupted,
    Observe,
    OrderRejected,
    OrderTaken,
    Outcome,
    ProbationPassed,
    Proceed,
    Reconsider,
    Restore,
    RollbackFailed,
    RolledBack,
    RunShadow,
    SelfTest,
    Serve,
    ServeFailed,
    Settle,
    ShadowPassed,
    Stage,
    Staged,
    StepFailed,
    TrialPassed,
    TrustSeen,
    WindowOpened,
    Withdrawn,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.messages import Order, Phase, Target
from edgefleet_contract.reasons import Reason

MAX_STARTS: Final = 3
"""How often a step may be begun again after a power cut before it is given up."""
MAX_DOWNLOADS: Final = 30
"""How often a broken download is taken up again; with the back-off below, about two hours."""
MAX_BACKOFF_S: Final = 300.0
MAX_WAIT_S: Final = 3600.0
"""The longest pause that a server may ask for."""

_BLAMED: Final = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.GOLDEN_MISMATCH,
        Reason.TRIAL_CRASHED,
        Reason.TRIAL_TIMEOUT,
        Reason.LATENCY_EXCEEDED,
        Reason.MEMORY_EXCEEDED,
        Reason.SHADOW_DISAGREED,
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
        commands = (*commands, Reconsider(after.pending))
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


def _take(device: Device, event: Event) -> Outcome:
    assert isinstance(event, OrderTaken)
    order = event.order
    taken = replace(
        device,
        seq=max(device.seq, order.seq),
        time_floor=max(device.time_floor, order.issued),
        install=Install(order, Phase.ACCEPTED),
        pending=None,
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
    waiting = None if device.pending == event.order else device.pending
    seq = max(device.seq, event.order.seq)
    return replace(device, seq=seq, install=refused, pending=waiting), ()


def _reject_beside(device: Device, event: Event) -> Outcome:
    """A refused order does not disturb the one at hand, but its number is used up."""
    assert isinstance(event, OrderRejected)
    return replace(device, seq=max(device.seq, event.order.seq)), ()


def _hold(device: Device, event: Event) -> Outcome:
    """Too late to stop: the newer order waits for the end of this one."""
    assert isinstance(event, OrderTaken)
    return replace(device, pending=event.order, seq=max(device.seq, event.order.seq)), ()


def _cancel(device: Device, event: Event) -> Outcome:
    """Nothing has begun to swap: the newer order takes the place of this one."""
    assert isinstance(event, OrderTaken)
    held, _ = _hold(device, event)
    number = f"order {event.order.seq} took its place"
    return _move(held, Phase.CANCELED, reason=Reason.SUPERSEDED, detail=number), (Settle(()),)


def _begin(device: Device, _: Event) -> Outcome:
    if changed(device, _install(device).order):
        return _move(device, Phase.DOWNLOADING), (_download(device),)
    return _commit(device, ())


def _download(device: Device, delay_s: float = 0.0) -> Download:
    order = _install(device).order
    return Download(order, changed(device, order), device.spent, delay_s)


def _verified(device: Device, event: Event) -> Outcome:
    assert isinstance(event, Downloaded)
    spent = device.spent.add(event.now, event.transferred)
    known = replace(device, spent=spent)
    return _move(known, Phase.VERIFIED, chosen=event.chosen, attempt=0, detail=""), (
        Stage(event.chosen),
    )


def _broken(device: Device, event: Event) -> Outcome:
    assert isinstance(event, Interrupted)
    device = replace(device, spent=device.spent.add(event.now, event.transferred))
    install = _install(device)
    attempt = install.attempt + 1
    if attempt > MAX_DOWNLOADS:
        return _fail(device, StepFailed(Reason.DOWNLOAD_FAILED, event.detail))
    if event.now > install.order.expires:
        return _fail(device, StepFailed(Reason.ORDER_EXPIRED, event.detail))
    pause = min(MAX_BACKOFF_S, 2.0 ** min(attempt, 10)) * (0.5 + event.jitter / 2)
    asked = min(MAX_WAIT_S, event.wait_s) * (1 + event.jitter / 10)
    retry = _download(device, max(pause, asked))
    return _move(device, Phase.DOWNLOADING, attempt=attempt, detail=event.detail), (retry,)


def _held_up(device: Device, event: Event) -> Outcome:
    """Waiting for a budget or a link is no failure: it is not counted, but ends with the order."""
    assert isinstance(event, Held)
    device = replace(device, spent=device.spent.add(event.now, event.transferred))
    if event.now > _install(device).order.expires:
        return _fail(device, StepFailed(Reason.ORDER_EXPIRED, event.detail))
    retry = _download(device, event.wait_s)
    return _move(device, Phase.DOWNLOADING, detail=event.detail), (retry,)


def _staged(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.STAGED), (Proceed(),)


def _wait(device: Device, event: Event) -> Outcome:
    order = _install(device).order
    asked = order.policy
    limits = asked.conditions
    if asked.windows or limits.mains or limits.max_celsius or limits.max_cpu_percent:
        return _move(device, Phase.WAIT_WINDOW), (AwaitWindow(order),)
    return _test(device, event)


def _test(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.SELFTEST), (SelfTest(_install(device).chosen),)


def _shadow(device: Device, event: Event) -> Outcome:
    """Shadowing needs a model that serves: a first one has nothing to agree with."""
    install = _install(device)
    asked = install.order.policy.shadow
    beside = tuple(item for item in install.chosen if item.target.slot in device.slots)
    if asked is not None and beside:
        return _move(device, Phase.SHADOW), (RunShadow(beside, asked),)
    return _activate(device, event)


def _activate(device: Device, _: Event) -> Outcome:
    return _move(device, Phase.ACTIVATING, attempt=0), (Activate(_install(device).chosen),)


def _observe(device: Device, _: Event) -> Outcome:
    install = _install(device)
    return _move(device, Phase.PROBATION), (Observe(install.chosen, install.order.policy),)


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
    renewed = fresh if order.policy.keep_as_fallback else {}
    known = {**slots, **device.fallback, **renewed}
    fallback = {slot: item for slot, item in known.items() if slot in wanted}
    after = replace(
        device,
        slots=slots,
        previous=previous,
        fallback=fallback,
        committed=_remember(device, order, chosen),
    )
    return _move(after, Phase.COMMITTED, detail=""), (Settle(dropped),)


def _remember(device: Device, order: Order, chosen: tuple[Installed, ...]) -> dict[str, int]:
    """The version of each model that was committed last; it falls only where the order says so."""
    newest: dict[str, int] = {}
    for item in chosen:
        model = item.target.model
        newest[model] = max(newest.get(model, 0), item.target.version)
    if not order.allow_downgrade:
        newest = {name: max(n, device.committed.get(name, 0)) for name, n in newest.items()}
    return {**device.committed, **newest}


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
    """What was committed does not serve again: what was before it may."""
    assert isinstance(event, RollbackFailed)
    detail = f"{_install(device).detail}; going back failed: {event.detail}"
    commands: tuple[Command, ...] = ()
    for item in _install(device).chosen:
        device, more = _fall_back(device, ServeFailed(item.target.slot, event.detail))
        commands = (*commands, *more)
    return _move(device, Phase.ROLLBACK_FAILED, detail=detail), commands


# --- after a power cut ---------------------------------------------------------------------------


def _serve(device: Device) -> tuple[Command, ...]:
    return (Serve(tuple(device.slots[slot] for slot in sorted(device.slots))),)


def _boot_quiet(device: Device, _: Event) -> Outcome:
    return device, _serve(device)


def _boot_accepted(device: Device, _: Event) -> Outcome:
    return device, (*_serve(device), Proceed())


def _boot_downloading(device: Device, _: Event) -> Outcome:
    return device, (*_serve(device), _download(device))


def _boot_verified(device: Device, _: Event) -> Outcome:
    """What was staged is looked at again: the disk may have lost what nobody ran yet."""
    again = _move(device, Phase.VERIFIED)
    return again, (*_serve(device), Stage(_install(device).chosen))


def _boot_testing(device: Device, event: Event) -> Outcome:
    """A self-test or a shadow was on: the model may have taken the power with it."""
    attempt = _install(device).attempt + 1
    if attempt > MAX_STARTS:
        gone = StepFailed(Reason.TOO_MANY_ATTEMPTS, f"{MAX_STARTS} self-tests never ended")
        after, commands = _fail(device, gone)
        return after, (*_serve(device), *commands)
    return _boot_verified(_move(device, Phase.VERIFIED, attempt=attempt), event)


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
    """A committed model does not serve: the one before it does, else the fallback, if there is."""
    assert isinstance(event, ServeFailed)
    slot = event.slot
    ways = (device.previous.get(slot), device.fallback.get(slot))
    next_best = next((item for item in ways if item and item != device.slots.get(slot)), None)
    if next_best is None or slot not in device.slots:
        return device, ()
    older = {name: item for name, item in device.previous.items() if name != slot}
    slots = {**device.slots, slot: next_best}
    return replace(device, slots=slots, previous=older), (Serve((next_best,)),)


def _see(device: Device, event: Event) -> Outcome:
    assert isinstance(event, TrustSeen)
    floor = 0 if event.floors.drops_online(device.trust) else device.time_floor
    trust = device.trust.merged(event.floors)
    return replace(device, trust=trust, time_floor=max(floor, event.now)), ()


def _withdraw(device: Device, event: Event) -> Outcome:
    """What may not run any more is gone for good: not even a start serves it again."""
    after, commands = _without(device, event)
    if after.install is not None and after.slots != device.slots:
        names = ", ".join(sorted(s for s in device.slots if after.slots.get(s) != device.slots[s]))
        after = _move(
            after, Phase.ROLLED_BACK, reason=Reason.REVOKED, detail=f"taken back: {names}"
        )
    return after, commands


def _withdraw_beside(device: Device, event: Event) -> Outcome:
    """The same while an install is on its way, which ends if it brings what was taken back."""
    assert isinstance(event, Withdrawn)
    after, commands = _without(device, event)
    ordered = {target.bundle_sha256 for target in _install(device).order.targets}
    if ordered.isdisjoint(event.digests):
        return after, commands
    failed, more = _fail(after, StepFailed(Reason.REVOKED, "taken back while it was on its way"))
    return failed, (*commands, *more)


def _without(device: Device, event: Event) -> Outcome:
    assert isinstance(event, Withdrawn)

    def allowed(items: dict[str, Installed]) -> dict[str, Installed]:
        return {s: i for s, i in items.items() if i.target.bundle_sha256 not in event.digests}

    slots, previous, fallback = map(allowed, (device.slots, device.previous, device.fallback))
    gone = [slot for slot in device.slots if slot not in slots]
    ways = {**fallback, **previous} if event.go_back else {}
    back = {slot: ways[slot] for slot in gone if slot in ways}
    after = replace(
        device,
        slots={**slots, **back},
        previous={slot: item for slot, item in previous.items() if slot not in gone},
        fallback=fallback,
    )
    if not gone:
        return after, ()
    stop = tuple(slot for slot in gone if slot not in back)
    return after, (Serve(tuple(back.values())), Settle(stop))


Act: TypeAlias = Callable[[Device, Event], Outcome]
_P = Phase
_QUIET: Final = tuple(phase for phase in Phase if phase is _P.IDLE or phase.is_final)
_STOPPABLE: Final = (
    *(_P.ACCEPTED, _P.DOWNLOADING, _P.VERIFIED, _P.STAGED),
    *(_P.WAIT_WINDOW, _P.SELFTEST, _P.SHADOW),
)
_CRITICAL: Final = (_P.ACTIVATING, _P.PROBATION, _P.ROLLING_BACK)

TABLE: Final[dict[tuple[Phase, type[Event]], tuple[Act, tuple[Phase, ...]]]] = {
    **{(phase, OrderTaken): (_take, (_P.ACCEPTED,)) for phase in _QUIET},
    **{(phase, OrderTaken): (_cancel, (_P.CANCELED,)) for phase in _STOPPABLE},
    **{(phase, OrderTaken): (_hold, (phase,)) for phase in _CRITICAL},
    **{(phase, OrderRejected): (_reject, (_P.REJECTED,)) for phase in _QUIET},
    **{(phase, OrderRejected): (_reject_beside, (phase,)) for phase in (*_STOPPABLE, *_CRITICAL)},
    (_P.ACCEPTED, Begin): (_begin, (_P.DOWNLOADING, _P.COMMITTED)),
    (_P.DOWNLOADING, Downloaded): (_verified, (_P.VERIFIED,)),
    (_P.DOWNLOADING, Interrupted): (_broken, (_P.DOWNLOADING, _P.FAILED)),
    (_P.DOWNLOADING, Held): (_held_up, (_P.DOWNLOADING, _P.FAILED)),
    (_P.DOWNLOADING, StepFailed): (_fail, (_P.FAILED,)),
    (_P.VERIFIED, Staged): (_staged, (_P.STAGED,)),
    (_P.VERIFIED, Interrupted): (_broken, (_P.DOWNLOADING, _P.FAILED)),
    (_P.VERIFIED, StepFailed): (_fail, (_P.FAILED,)),
    (_P.STAGED, Begin): (_wait, (_P.WAIT_WINDOW, _P.SELFTEST)),
    (_P.WAIT_WINDOW, WindowOpened): (_test, (_P.SELFTEST,)),
    (_P.WAIT_WINDOW, StepFailed): (_fail, (_P.FAILED,)),
    (_P.SELFTEST, TrialPassed): (_shadow, (_P.SHADOW, _P.ACTIVATING)),
    (_P.SELFTEST, StepFailed): (_fail, (_P.FAILED,)),
    (_P.SHADOW, ShadowPassed): (_activate, (_P.ACTIVATING,)),
    (_P.SHADOW, StepFailed): (_fail, (_P.FAILED,)),
    (_P.ACTIVATING, Activated): (_observe, (_P.PROBATION,)),
    (_P.ACTIVATING, StepFailed): (_roll_back, (_P.ROLLING_BACK,)),
    (_P.PROBATION, ProbationPassed): (_pass, (_P.COMMITTED,)),
    (_P.PROBATION, StepFailed): (_roll_back, (_P.ROLLING_BACK,)),
    (_P.ROLLING_BACK, RolledBack): (_rolled_back, (_P.ROLLED_BACK,)),
    (_P.ROLLING_BACK, RollbackFailed): (_rollback_failed, (_P.ROLLBACK_FAILED,)),
    **{(phase, TrustSeen): (_see, (phase,)) for phase in Phase},
    **{(phase, Withdrawn): (_withdraw, (phase, _P.ROLLED_BACK)) for phase in _QUIET},
    **{(phase, Withdrawn): (_withdraw_beside, (phase, _P.FAILED)) for phase in _STOPPABLE},
    **{(phase, ServeFailed): (_fall_back, (phase,)) for phase in Phase},
    **{(phase, Booted): (_boot_quiet, (phase,)) for phase in _QUIET},
    (_P.ACCEPTED, Booted): (_boot_accepted, (_P.ACCEPTED,)),
    (_P.DOWNLOADING, Booted): (_boot_downloading, (_P.DOWNLOADING,)),
    (_P.VERIFIED, Booted): (_boot_verified, (_P.VERIFIED,)),
    (_P.STAGED, Booted): (_boot_verified, (_P.VERIFIED,)),
    (_P.WAIT_WINDOW, Booted): (_boot_verified, (_P.VERIFIED,)),
    (_P.SELFTEST, Booted): (_boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.SHADOW, Booted): (_boot_testing, (_P.VERIFIED, _P.FAILED)),
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
