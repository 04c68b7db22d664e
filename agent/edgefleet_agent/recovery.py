"""What the install machine does after a power cut, and where what is committed cannot serve.

Core. A start serves what is committed before anything else, and then goes on where the journal
says; steps that a model may have broken off are counted. A model that cannot serve gives way to the
one before it, then to the fallback.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgefleet_agent.device import Device, Installed
from edgefleet_agent.install_commands import (
    Activate,
    Command,
    Outcome,
    Proceed,
    Serve,
    Settle,
    Stage,
)
from edgefleet_agent.install_events import (
    Event,
    KeptDying,
    RollbackFailed,
    ServeFailed,
    StepFailed,
    Withdrawn,
)
from edgefleet_agent.transitions import MAX_STARTS, at_hand, blame, download, fail, move, roll_back
from edgefleet_contract.bundle import Digest
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason

CRITICAL: Final = (Phase.ACTIVATING, Phase.PROBATION, Phase.ROLLING_BACK)
"""Where an install swaps: it is brought to its end."""


def serve(device: Device) -> tuple[Command, ...]:
    """The command that a start begins with."""
    return (Serve(tuple(device.slots[slot] for slot in sorted(device.slots))),)


def boot_quiet(device: Device, _: Event) -> Outcome:
    """Nothing was on its way; the power may have gone while the last install was cleaned up.

    A device that knows nothing collects nothing: what a lost journal named may be ordered again.
    """
    return device, (*serve(device), *((Settle(()),) if device.install else ()))


def boot_accepted(device: Device, _: Event) -> Outcome:
    """An order was taken and nothing begun."""
    return device, (*serve(device), Proceed())


def boot_downloading(device: Device, _: Event) -> Outcome:
    """A download goes on from what is there."""
    return device, (*serve(device), download(device))


def boot_verified(device: Device, _: Event) -> Outcome:
    """What was staged is looked at again: the disk may have lost what nobody ran yet."""
    again = move(device, Phase.VERIFIED)
    return again, (*serve(device), Stage(at_hand(device).chosen))


def boot_testing(device: Device, event: Event) -> Outcome:
    """A self-test, a shadow or a canary was on: the model may have taken the power with it."""
    attempt = at_hand(device).attempt + 1
    if attempt > MAX_STARTS:
        gone = StepFailed(Reason.TOO_MANY_ATTEMPTS, f"{MAX_STARTS} self-tests never ended")
        after, commands = fail(device, gone)
        return after, (*serve(device), *commands)
    return boot_verified(move(device, Phase.VERIFIED, attempt=attempt), event)


def boot_serving(device: Device, _: Event) -> Outcome:
    """The new models were about to serve, or did: they begin again, a counted number of times."""
    install = at_hand(device)
    attempt = install.attempt + 1
    if attempt > MAX_STARTS:
        gone = StepFailed(Reason.TOO_MANY_ATTEMPTS, f"{MAX_STARTS} activations never ended")
        blamed = replace(device, quarantined=blame(device, gone))
        back = move(blamed, Phase.ROLLED_BACK, reason=gone.reason, detail=gone.detail)
        return back, (*serve(device), Settle(()))
    again = move(device, Phase.ACTIVATING, attempt=attempt)
    return again, (*serve(device), Activate(install.chosen))


def boot_rolling_back(device: Device, _: Event) -> Outcome:
    """A start serves what is committed: that is the rollback."""
    return move(device, Phase.ROLLED_BACK), (*serve(device), Settle(()))


def fall_back(device: Device, event: Event) -> Outcome:
    """A committed model does not serve: the one before it does, else the fallback, if there is.

    Where there is none, and it was tried once more (`rollback_failed`), nothing serves.
    """
    assert isinstance(event, ServeFailed)
    slot = event.slot
    ways = (device.previous.get(slot), device.fallback.get(slot))
    next_best = next((item for item in ways if item and item != device.slots.get(slot)), None)
    if next_best is None or slot not in device.slots:
        return device, (Settle((slot,)),) if device.phase is Phase.ROLLBACK_FAILED else ()
    older = {name: item for name, item in device.previous.items() if name != slot}
    slots = {**device.slots, slot: next_best}
    return replace(device, slots=slots, previous=older), (Serve((next_best,)),)


def give_way(device: Device, event: Event) -> Outcome:
    """A committed model that keeps dying gives way to the one before it, and does not come back.

    Where there is none that may serve, it stays, and is started again as long as it takes. An order
    at hand that asks for it again ends; one that swaps already goes back if it brings the same into
    another slot, and else runs to its end.
    """
    assert isinstance(event, KeptDying)
    slot, guilty = event.slot, event.bundle
    serving = device.slots.get(slot)
    if serving is None or serving.target.bundle_sha256 != guilty:
        return device, ()  # it is on probation, which has an eye on it, or gone already
    after, _ = fall_back(device, ServeFailed(slot, event.detail))
    other = after.slots[slot]
    if other.target.bundle_sha256 in (guilty, *device.quarantined):
        return device, ()
    after = replace(after, quarantined=tuple(dict.fromkeys((*device.quarantined, guilty))))
    instead = (Serve((other,)),)
    detail = f"{serving.target.model}@{serving.target.version} kept dying: {event.detail}"
    if device.phase in (Phase.ACTIVATING, Phase.PROBATION) and _brings(device, guilty):
        back, more = roll_back(after, StepFailed(Reason.CRASH_LOOP, detail))
        return back, (*instead, *more)
    if device.phase in CRITICAL or not _asks_for(device, guilty):
        return after, (*instead, *((Settle(()),) if device.phase.is_final else ()))
    if device.phase is Phase.COMMITTED:
        back = move(after, Phase.ROLLED_BACK, reason=Reason.CRASH_LOOP, detail=detail)
        return back, (*instead, Settle(()))
    if device.phase.is_final:
        return after, (*instead, Settle(()))
    failed, more = fail(after, StepFailed(Reason.CRASH_LOOP, detail))
    return failed, (*instead, *more)


def _asks_for(device: Device, bundle: Digest) -> bool:
    """Whether the order at hand, if there is one, names a bundle."""
    install = device.install
    return install is not None and any(
        target.bundle_sha256 == bundle for target in install.order.targets
    )


def _brings(device: Device, bundle: Digest) -> bool:
    """Whether a bundle is among what is being swapped in."""
    chosen = at_hand(device).chosen
    return any(item.target.bundle_sha256 == bundle for item in chosen)


def withdraw(device: Device, event: Event) -> Outcome:
    """What may not run any more is gone for good: not even a start serves it again."""
    after, commands = without(device, event)
    if after.install is not None and after.slots != device.slots:
        names = ", ".join(sorted(s for s in device.slots if after.slots.get(s) != device.slots[s]))
        after = move(after, Phase.ROLLED_BACK, reason=Reason.REVOKED, detail=f"taken back: {names}")
    return after, commands


def withdraw_beside(device: Device, event: Event) -> Outcome:
    """The same while an install is on its way, which ends if it brings what was taken back."""
    assert isinstance(event, Withdrawn)
    after, commands = without(device, event)
    ordered = {target.bundle_sha256 for target in at_hand(device).order.targets}
    if ordered.isdisjoint(event.digests):
        return after, commands
    failed, more = fail(after, StepFailed(Reason.REVOKED, "taken back while it was on its way"))
    return failed, (*commands, *more)


def without(device: Device, event: Event) -> Outcome:
    """A device without what may not run, and what serves instead."""
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


def rollback_failed(device: Device, event: Event) -> Outcome:
    """What was committed does not serve again: what was before it may.

    Where nothing was, it is tried once more. The model that failed is stopped all the same.
    """
    assert isinstance(event, RollbackFailed | StepFailed)
    detail = f"{at_hand(device).detail}; going back failed: {event.detail}"
    commands: tuple[Command, ...] = ()
    touched = [item.target.slot for item in at_hand(device).chosen]
    for slot in touched:
        device, more = fall_back(device, ServeFailed(slot, event.detail))
        if not more and slot in device.slots:
            more = (Serve((device.slots[slot],)),)
        commands = (*commands, *more)
    stop = tuple(slot for slot in touched if slot not in device.slots)
    return move(device, Phase.ROLLBACK_FAILED, detail=detail), (*commands, Settle(stop))
