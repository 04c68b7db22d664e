"""Bundles that failed on devices and are quarantined there; and how an operator lifts that.

A device lifts a quarantine for an order that says `retry_quarantined` [wire-4.4], so lifting is a
rollout of the same bundle, as carefully as before, to that device alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.order_policy import DEFAULT_POLICY
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.deployments import Deployments
from edgefleet_fleet.device_traits import traits_of
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.filters import Filter
from edgefleet_fleet.groups import devices_of
from edgefleet_fleet.rollout_views import View
from edgefleet_fleet.wishes import Wish
from edgefleet_fleet.work import Actor, Room


def quarantines(tx: Transaction, wanted: Filter) -> list[View]:
    """What is quarantined on the devices that a filter means, the most frequent first."""
    where: dict[str, list[tuple[str, str]]] = {}
    for device in devices_of(tx, wanted):
        for digest in device.reported.quarantined if device.reported is not None else ():
            where.setdefault(digest, []).append((device.id, traits_of(device).hardware_class))
    found = [
        {
            "digest": digest,
            "name": _name(tx, digest),
            "devices": [name for name, _ in at],
            "hardware_classes": dict(Counter(kind for _, kind in at)),
        }
        for digest, at in where.items()
    ]
    return sorted(found, key=lambda view: (-len(view["devices"]), view["digest"]))


def lift(room: Room, deployments: Deployments, device: str, bundle: str, *, actor: Actor) -> str:
    """Let a device try a bundle again that failed there; the id of the rollout that asks it.

    Args:
        room, deployments: of the fleet.
        device: the device.
        bundle: the bundle's digest, its beginning, or model-version.
        actor: who asks.

    Raises:
        NotFound: there is no such device or bundle.
        Conflict: it is not quarantined there.
    """
    with room.store.begin() as tx:
        found = tx.devices.get(device)
        if found is None or not found.is_active:
            raise NotFound(f"there is no device {device!r} in service")
        held = found.reported.quarantined if found.reported is not None else ()
        digest = _pick(tx, held, bundle, device)
        asked = [row for row, _ in tx.rollouts.of_device(device)]
        last = next((r for r in reversed(asked) if r.target.bundle_sha256 == digest), None)
        known = tx.bundles.get(digest)
    if known is None:
        raise NotFound(f"bundle {digest[:16]} is not on the shelf", hint="fleet bundles list")
    wish = Wish(
        bundle=digest,
        signature_sha256=last.target.signature_sha256 if last else known.signature_sha256,
        slot=last.target.slot if last else "",
        to=f"id={device}",
        policy=replace(last.policy if last else DEFAULT_POLICY, retry_quarantined=True),
        allow_downgrade=last.allow_downgrade if last else False,
        sealed=last is not None and last.target.sealed is not None,
    )
    return deployments.create(wish, actor=actor)


def _pick(tx: Transaction, held: tuple[Digest, ...], bundle: str, device: str) -> Digest:
    if len(bundle) < 3:
        raise Malformed(f"bundle {bundle!r}: name the digest, or model-version")
    for digest in held:
        if digest.startswith(bundle) or _name(tx, digest) == bundle:
            return digest
    raise Conflict(
        f"{bundle[:80]} is not quarantined on {device}", hint=f"fleet devices show {device}"
    )


def _name(tx: Transaction, digest: str) -> str:
    known = tx.bundles.get(digest)
    return f"{known.model}-{known.version}" if known is not None else ""
