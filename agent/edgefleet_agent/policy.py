"""Whether a verified order may be taken. Core: values in, values out.

The acceptance of the design up to the point where bytes must be fetched: the order is for this
device, newer than every other, in its time, and asks nothing that this device refuses. The
signature was checked before (`messages.open_order`); what the bundle says is checked after
(`bundles.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgefleet_agent.device import Device
from edgefleet_agent.install_events import Withdrawn
from edgefleet_contract.orders import MAX_ORDER_LIFE_S, Order, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import Trust

FREE_NUMBERS: Final = 2**52
MAX_LEAP: Final = 2**32
"""Above `FREE_NUMBERS` an order's number rises by no more than this at a time: a thief of the
director key cannot use up all numbers below 2^53 with one order."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Take it."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was taken before: the broker only says it again."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not take it. `spent` says that its number is used up, so it is judged only once."""

    reason: Reason
    detail: str
    spent: bool


def judge(
    order: Order, device: Device, *, fleet: str, name: str, clock: int
) -> Accept | Known | Refuse:
    """What to do with an order that a trusted director signed.

    Args:
        order: the order.
        device: the durable state of this device.
        fleet: the fleet that this device enrolled in.
        name: this device's name.
        clock: what the board's clock says, seconds since 1970; it is not believed below
            `device.time_floor`.
    """
    if (order.fleet, order.device) != (fleet, name):
        return Refuse(Reason.WRONG_DEVICE, f"it is for {order.fleet}/{order.device}", spent=False)
    if order.seq == device.seq:
        return Known()
    if order.seq < device.seq:
        return Refuse(
            Reason.STALE_ORDER, f"number {order.seq}, {device.seq} was taken", spent=False
        )
    if order.seq > max(device.seq + MAX_LEAP, FREE_NUMBERS):
        found = f"number {order.seq} leaps far ahead of {device.seq}"
        return Refuse(Reason.MALFORMED, found, spent=False)
    now = max(clock, device.time_floor)
    if now > order.expires:
        return Refuse(Reason.ORDER_EXPIRED, f"{now - order.expires} s past its date", spent=False)
    if order.expires - order.issued > MAX_ORDER_LIFE_S:
        days = (order.expires - order.issued) // 86400
        return Refuse(Reason.ORDER_EXPIRED, f"it would live {days} days", spent=False)
    return judge_targets(order, device)


def judge_releases(order: Order, trust: Trust) -> Accept | Refuse:
    """Whether the publishers released what an order asks for, and did not take it back.

    A floor is the publishers' word: no order goes below it, with or without permission.
    """
    for target in order.targets:
        digest = target.bundle_sha256
        if not trust.lists(target.model, target.version, digest):
            found = f"{target.model}@{target.version} ({digest[:12]}) is not released"
            return Refuse(Reason.NOT_LISTED, found, spent=True)
        forbidden = trust.revoked.forbids(target.model, target.version, digest)
        if forbidden:
            return Refuse(Reason.REVOKED, forbidden, spent=True)
    return Accept()


def judge_running(device: Device, trust: Trust) -> Withdrawn | None:
    """What is kept or on its way here and may not run any more; None where all may."""
    coming = device.install.order.targets if device.install and not device.phase.is_final else ()
    targets = (*(item.target for item in device.kept), *coming)
    gone = {
        target.bundle_sha256
        for target in targets
        if trust.revoked.forbids(target.model, target.version, target.bundle_sha256)
    }
    return Withdrawn(tuple(sorted(gone)), trust.revoked.go_back) if gone else None


def judge_means(order: Order, *, is_zone: Callable[[str], bool]) -> Accept | Refuse:
    """Whether this device can do what the order's policy asks."""
    for window in order.policy.windows:
        if not is_zone(window.zone):
            found = f"time zone {window.zone} is not known here (is tzdata installed?)"
            return Refuse(Reason.POLICY_UNSUPPORTED, found, spent=True)
    return Accept()


def judge_waited(order: Order, device: Device, trust: Trust | None, now: int) -> Accept | Refuse:
    """Whether an order that had to wait may still be taken; it passed every rule when it came."""
    if now > order.expires:
        return Refuse(Reason.ORDER_EXPIRED, "it waited past its date", spent=True)
    released = judge_releases(order, trust) if trust is not None else Accept()
    return released if isinstance(released, Refuse) else judge_targets(order, device)


def judge_targets(order: Order, device: Device) -> Accept | Refuse:
    """Whether what an order asks may be had: nothing that failed here, nothing older than runs.

    Judged when an order arrives, and again when one that had to wait is taken up.
    """
    for target in order.targets:
        running = device.slots.get(target.slot)
        if running is not None and running.target == target:
            continue
        if target.bundle_sha256 in device.quarantined and not order.policy.retry_quarantined:
            return Refuse(
                Reason.QUARANTINED,
                f"{target.model}@{target.version} failed here before",
                spent=True,
            )
        newest = _newest(target, device)
        if target.version < newest and not order.allow_downgrade:
            return Refuse(
                Reason.DOWNGRADE,
                f"{target.model}@{target.version} after {newest}",
                spent=True,
            )
    return Accept()


def _newest(target: Target, device: Device) -> int:
    """The version below which a target would be a step back: what its slot runs decides, and
    where that is nothing or another model, what this device committed last of it in any slot."""
    running = device.slots.get(target.slot)
    if running is not None and running.target.model == target.model:
        return running.target.version
    return device.committed.get(target.model, 0)
