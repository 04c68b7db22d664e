"""What each event of the install machine does, from an order to a commit or back. Core.

An act takes the durable state and an event, and gives the state after it and what to do then. Which
act belongs to which phase says the table in `install.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgefleet_agent.device import Device, Install, Installed
from edgefleet_agent.install_commands import (
    Activate,
    AwaitWindow,
    Download,
    Observe,
    Outcome,
    Proceed,
    Restore,
    RunCanary,
    RunShadow,
    SelfTest,
    Settle,
    Stage,
)
from edgefleet_agent.install_events import (
    Downloaded,
    Event,
    Held,
    Interrupted,
    OrderRejected,
    OrderTaken,
    StepFailed,
    TrustSeen,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason

MAX_STARTS: Final = 3
"""How often a step may be begun again after a power cut before it is given up."""
MAX_DOWNLOADS: Final = 30
"""How often a broken download is taken up again; with the back-off below, about two hours."""
MAX_MISSING: Final = 3
"""The same where no source has a file: about ten seconds, since it may be nowhere."""
MAX_SPOILT: Final = 3
"""How often what changed on the disk before it was tried is fetched again: the disk may do it."""
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
        Reason.CANARY_FAILED,
        Reason.ACTIVATION_FAILED,
        Reason.PROBATION_FAILED,
        Reason.TOO_MANY_ATTEMPTS,
    }
)
"""Reasons that speak against the bundle itself: it is not tried here again unasked."""


def changed(device: Device, order: Order) -> tuple[Target, ...]:
    """The targets of an order that are not what is committed."""
    return tuple(
        target
        for target in order.targets
        if target.slot not in device.slots or device.slots[target.slot].target != target
    )


def move(device: Device, phase: Phase, **changes: object) -> Device:
    """The same device in another phase of the install at hand."""
    assert device.install is not None  # every phase but IDLE has an install
    return replace(device, install=replace(device.install, phase=phase, **changes))  # type: ignore[arg-type] # field names are checked by the tests of every row


def at_hand(device: Device) -> Install:
    """The install at hand: every phase but IDLE has one."""
    assert device.install is not None  # every phase but IDLE has an install
    return device.install


def take(device: Device, event: Event) -> Outcome:
    """An accepted order becomes the install at hand."""
    assert isinstance(event, OrderTaken)
    order = event.order
    taken = replace(
        device,
        seq=max(device.seq, order.seq),
        time_floor=max(device.time_floor, order.issued),
        install=Install(order, Phase.ACCEPTED),
        pending=None,
        quarantined=pardon(device, order),
    )
    return taken, (Proceed(),)


def pardon(device: Device, order: Order) -> tuple[Digest, ...]:
    """What is quarantined after an order that may lift it."""
    if not order.policy.retry_quarantined:
        return device.quarantined
    pardoned = {target.bundle_sha256 for target in order.targets}
    return tuple(digest for digest in device.quarantined if digest not in pardoned)


def reject(device: Device, event: Event) -> Outcome:
    """A refused order uses up its number and is shown; what runs is not touched."""
    assert isinstance(event, OrderRejected)
    refused = Install(event.order, Phase.REJECTED, reason=event.reason, detail=event.detail)
    waiting = None if device.pending == event.order else device.pending
    seq = max(device.seq, event.order.seq)
    return replace(device, seq=seq, install=refused, pending=waiting), ()


def reject_beside(device: Device, event: Event) -> Outcome:
    """A refused order does not disturb the one at hand, but its number is used up."""
    assert isinstance(event, OrderRejected)
    return replace(device, seq=max(device.seq, event.order.seq)), ()


def hold(device: Device, event: Event) -> Outcome:
    """Too late to stop: the newer order waits for the end of this one."""
    assert isinstance(event, OrderTaken)
    return replace(device, pending=event.order, seq=max(device.seq, event.order.seq)), ()


def cancel(device: Device, event: Event) -> Outcome:
    """Nothing has begun to swap: the newer order takes the place of this one."""
    assert isinstance(event, OrderTaken)
    held, _ = hold(device, event)
    number = f"order {event.order.seq} took its place"
    return move(held, Phase.CANCELED, reason=Reason.SUPERSEDED, detail=number), (Settle(()),)


def begin(device: Device, _: Event) -> Outcome:
    """Download what is not committed yet, or be done."""
    if changed(device, at_hand(device).order):
        return move(device, Phase.DOWNLOADING), (download(device),)
    return commit(device, ())


def download(device: Device, delay_s: float = 0.0) -> Download:
    """The command to bring what the order at hand asks for."""
    order = at_hand(device).order
    return Download(order, changed(device, order), device.spent, delay_s)


def verified(device: Device, event: Event) -> Outcome:
    """Everything is in the store: it is read again before it is tried."""
    assert isinstance(event, Downloaded)
    spent = device.spent.add(event.now, event.transferred)
    known = replace(device, spent=spent)
    return move(known, Phase.VERIFIED, chosen=event.chosen, attempt=0, detail=""), (
        Stage(event.chosen),
    )


def broken(device: Device, event: Event) -> Outcome:
    """A broken transfer is taken up again, later and later."""
    assert isinstance(event, Interrupted)
    device = replace(device, spent=device.spent.add(event.now, event.transferred))
    install = at_hand(device)
    attempt = install.attempt + 1
    if attempt > (MAX_MISSING if event.reason is Reason.NOT_FOUND else MAX_DOWNLOADS):
        return fail(device, StepFailed(event.reason, event.detail))
    if event.now > install.order.expires:
        return fail(device, StepFailed(Reason.ORDER_EXPIRED, event.detail))
    pause = min(MAX_BACKOFF_S, 2.0 ** min(attempt, 10)) * (0.5 + event.jitter / 2)
    asked = min(MAX_WAIT_S, event.wait_s) * (1 + event.jitter / 10)
    retry = download(device, max(pause, asked))
    return move(device, Phase.DOWNLOADING, attempt=attempt, detail=event.detail), (retry,)


def spoilt(device: Device, event: Event) -> Outcome:
    """What was stored is not what was signed any more: it is fetched again, a few times.

    It has a count of its own, since a download that succeeds ends the count of those that did not.
    """
    assert isinstance(event, Interrupted)
    count = at_hand(device).spoilt + 1
    if count > MAX_SPOILT:
        return fail(device, StepFailed(event.reason, event.detail))
    return broken(move(device, Phase.VERIFIED, spoilt=count), event)


def held_up(device: Device, event: Event) -> Outcome:
    """Waiting for a budget or a link is no failure: it is not counted, but ends with the order."""
    assert isinstance(event, Held)
    device = replace(device, spent=device.spent.add(event.now, event.transferred))
    if event.now > at_hand(device).order.expires:
        return fail(device, StepFailed(Reason.ORDER_EXPIRED, event.detail))
    retry = download(device, event.wait_s)
    return move(device, Phase.DOWNLOADING, detail=event.detail), (retry,)


def staged(device: Device, _: Event) -> Outcome:
    """What is on the disk is what was signed."""
    return move(device, Phase.STAGED), (Proceed(),)


def wait(device: Device, event: Event) -> Outcome:
    """Wait for the policy's window and conditions, where it has any."""
    order = at_hand(device).order
    asked = order.policy
    limits = asked.conditions
    if asked.windows or limits.mains or limits.max_celsius or limits.max_cpu_percent:
        return move(device, Phase.WAIT_WINDOW), (AwaitWindow(order),)
    return test(device, event)


def test(device: Device, _: Event) -> Outcome:
    """Try every model in a process of its own."""
    return move(device, Phase.SELFTEST), (SelfTest(at_hand(device).chosen),)


def shadow(device: Device, event: Event) -> Outcome:
    """Shadowing needs a model that serves: a first one has nothing to agree with."""
    asked, beside = at_hand(device).order.policy.shadow, beside_others(device)
    if asked is not None and beside:
        return move(device, Phase.SHADOW), (RunShadow(beside, asked),)
    return canary(device, event)


def canary(device: Device, event: Event) -> Outcome:
    """A share of the requests can be taken only from a model that serves."""
    asked, beside = at_hand(device).order.policy.canary, beside_others(device)
    if asked is not None and beside:
        return move(device, Phase.CANARY), (RunCanary(beside, asked),)
    return activate(device, event)


def beside_others(device: Device) -> tuple[Installed, ...]:
    """The new models whose slots serve something now."""
    return tuple(item for item in at_hand(device).chosen if item.target.slot in device.slots)


def activate(device: Device, _: Event) -> Outcome:
    """Swap."""
    return move(device, Phase.ACTIVATING, attempt=0), (Activate(at_hand(device).chosen),)


def observe(device: Device, _: Event) -> Outcome:
    """Watch what serves now."""
    install = at_hand(device)
    return move(device, Phase.PROBATION), (Observe(install.chosen, install.order.policy),)


def finish(device: Device, _: Event) -> Outcome:
    """Probation is over: commit."""
    return commit(device, at_hand(device).chosen)


def commit(device: Device, chosen: tuple[Installed, ...]) -> Outcome:
    """The one step by which new models become what is committed."""
    order = at_hand(device).order
    wanted = {target.slot: target for target in order.targets}
    fresh = {item.target.slot: item for item in chosen}
    slots = {
        slot: sealed_anew(item, wanted[slot])
        for slot, item in {**device.slots, **fresh}.items()
        if slot in wanted
    }
    dropped = tuple(sorted(set(device.slots) - set(wanted)))
    before = {
        slot: item
        for slot, item in device.slots.items()
        if slot in fresh and item.target.bundle_sha256 != fresh[slot].target.bundle_sha256
    }
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
        committed=remember(device, order),
    )
    return move(after, Phase.COMMITTED, detail=""), (Settle(dropped),)


def remember(device: Device, order: Order) -> dict[str, int]:
    """The version of each model that was committed last; it falls only where the order says so,
    and no lower than the newest that the order has in any slot."""
    newest: dict[str, int] = {}
    for target in order.targets:
        newest[target.model] = max(newest.get(target.model, 0), target.version)
    if not order.allow_downgrade:
        newest = {name: max(n, device.committed.get(name, 0)) for name, n in newest.items()}
    return {**device.committed, **newest}


def sealed_anew(item: Installed, target: Target) -> Installed:
    """The same, opened as the newest order says: this device may have another key than before."""
    return replace(item, target=target) if item.target == target else item


def blame(device: Device, event: StepFailed) -> tuple[Digest, ...]:
    """What is quarantined after a failure that speaks against a bundle."""
    if event.reason not in _BLAMED:
        return device.quarantined
    guilty = [
        item.target.bundle_sha256
        for item in at_hand(device).chosen
        if event.slot in ("", item.target.slot)
    ]
    return tuple(dict.fromkeys((*device.quarantined, *guilty)))


def fail(device: Device, event: Event) -> Outcome:
    """Before activation: nothing was touched, so there is nothing to undo."""
    assert isinstance(event, StepFailed)
    blamed = replace(device, quarantined=blame(device, event))
    failed = move(blamed, Phase.FAILED, reason=event.reason, detail=event.detail)
    return failed, (Settle(()),)


def roll_back(device: Device, event: Event) -> Outcome:
    """The swap failed, or what serves does: go back."""
    assert isinstance(event, StepFailed)
    blamed = replace(device, quarantined=blame(device, event))
    back = move(blamed, Phase.ROLLING_BACK, reason=event.reason, detail=event.detail)
    return back, (restore(device),)


def restore(device: Device) -> Restore:
    """The command that makes serve what was committed."""
    touched = [item.target.slot for item in at_hand(device).chosen]
    old = tuple(device.slots[slot] for slot in touched if slot in device.slots)
    return Restore(old, tuple(slot for slot in touched if slot not in device.slots))


def rolled_back(device: Device, _: Event) -> Outcome:
    """What was committed serves again."""
    return move(device, Phase.ROLLED_BACK), (Settle(()),)


def see(device: Device, event: Event) -> Outcome:
    """Versions that were seen are floors from now on."""
    assert isinstance(event, TrustSeen)
    floor = 0 if event.floors.drops_online(device.trust) else device.time_floor
    trust = device.trust.merged(event.floors)
    return replace(device, trust=trust, time_floor=max(floor, event.now)), ()
