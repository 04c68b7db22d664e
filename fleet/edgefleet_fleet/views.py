"""What the API and the pages show of the fleet, as plain JSON values. Reads only.

Times are seconds since 1970, sizes bytes, ratios 0 to 1; a reason comes with its sentence.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict

from edgefleet_contract import codec
from edgefleet_contract.bundle import Role, sha256
from edgefleet_contract.keys import PublicKey
from edgefleet_contract.reported import Event
from edgefleet_fleet import device_views, tuf_repo
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.happenings import Entry, Happening, HistoryKind
from edgefleet_fleet.papers import papers
from edgefleet_fleet.ports import Shelf
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import (
    Bundle,
    Claim,
    Device,
    EnrolmentRequest,
    OrderRow,
    User,
)
from edgefleet_fleet.rollout_views import View, member, reason, target
from edgefleet_fleet.webhooks import Webhook

_OTHER: View = {
    **dict.fromkeys(("boot_id", "seq", "order_seq", "rollout", "phase", "reason")),
    "models": [],
    "measurements": {},
    "reason_text": "",
}


def devices(tx: Transaction, rows: Sequence[Device] | None = None) -> list[View]:
    """All devices, or these, with their newest telemetry."""
    names = None if rows is None else [device.id for device in rows]
    orders = {order.device: order for order in tx.orders.all_newest(names)}
    systems = tx.history.latest_system(names)
    models: dict[str, View] = {}
    for (owner, slot), sample in tx.history.latest_models(names).items():
        models.setdefault(owner, {})[slot] = codec.encode(sample)
    found = []
    for device in tx.devices.list(revoked=True) if rows is None else rows:
        view = _device(device, orders.get(device.id))
        system = systems.get(device.id)
        view["telemetry"] = {
            "system": codec.encode(system) if system else None,
            "models": models.get(device.id, {}),
        }
        found.append(view)
    return found


def device(
    tx: Transaction, name: str, *, events: int = 50, kinds: Collection[HistoryKind] = ()
) -> View:
    """One device, with its newest telemetry, its history (of these kinds) and its part in rollouts.

    Raises:
        NotFound: there is no such device.
    """
    found = tx.devices.get(name)
    if found is None or found.is_forgotten:
        raise NotFound(f"there is no device {name!r}", hint="fleet devices list")
    view = _device(found, tx.orders.newest(name))
    slots = [model["slot"] for model in view["models"]]
    system = tx.history.system(name)
    samples = {slot: tx.history.model(name, slot) for slot in slots}
    view["telemetry"] = {
        "system": codec.encode(system[-1]) if system else None,
        "models": {slot: codec.encode(found[-1]) for slot, found in samples.items() if found},
    }
    view["events"] = [
        event_view(entry) for entry in tx.history.page(name, limit=events, kinds=kinds)
    ]
    view["rollouts"] = [
        member(part) | {"rollout": row.id} for row, part in reversed(tx.rollouts.of_device(name))
    ]
    return view


def telemetry(tx: Transaction, name: str, *, limit: int) -> View:
    """The series of a device, oldest first."""
    found = tx.devices.get(name)
    models = found.reported.models if found is not None and found.reported is not None else ()
    return {
        "system": [codec.encode(sample) for sample in tx.history.system(name, limit=limit)],
        "models": {
            model.slot: [
                codec.encode(sample) for sample in tx.history.model(name, model.slot, limit=limit)
            ]
            for model in models
        },
    }


def event_view(entry: Entry) -> View:
    """One entry of a device's history; what only steps of installs have is null for others."""
    head = {
        "number": entry.number,
        "received_at": entry.received_at,
        "kind": entry.kind.value,
        "ts": entry.ts,
    }
    match entry.told:
        case Event() as step:
            return head | {
                "what": step.phase.value,
                "who": "",
                "count": 1,
                "until": 0,
                "boot_id": step.boot_id,
                "seq": step.seq,
                "order_seq": step.order_seq,
                "rollout": step.rollout,
                "phase": step.phase.value,
                "models": list(step.models),
                "detail": step.detail,
                "measurements": step.measurements or {},
                **reason(step.reason),
            }
        case Happening() as other:
            return {**head, **_OTHER, **asdict(other)}


def user(found: User) -> View:
    """One user, without a hint of its token."""
    return {
        "name": found.name,
        "role": found.role,
        "created_at": found.created_at,
        "created_by": found.created_by,
        "expires_at": found.expires_at,
        "revoked": found.revoked,
    }


def webhook(found: Webhook) -> View:
    """One webhook, without its secret."""
    return {key: value for key, value in asdict(found).items() if key != "secret"}


def bundle(found: Bundle) -> View:
    """One bundle."""
    return {
        "name": f"{found.model}-{found.version}",
        "model": found.model,
        "version": found.version,
        "digest": found.digest,
        "signature_sha256": found.signature_sha256,
        "size": found.size,
        "signer": found.signer,
        "verified": bool(found.signer),
        "complete": found.complete,
        "in_clear": found.in_clear,
        "created_at": found.created_at,
        "created_by": found.created_by,
    }


def bundle_detail(tx: Transaction, shelf: Shelf, digest: str) -> View:
    """One bundle by its digest (or the beginning of it) or by `model-version`, with its files
    and what its papers say.

    Raises:
        NotFound: there is none, or more than one.
    """
    found = [
        item
        for item in tx.bundles.list()
        if digest == f"{item.model}-{item.version}" or item.digest.startswith(digest)
    ]
    if len({item.digest for item in found}) != 1:
        what = "no bundle" if not found else f"{len(found)} bundles"
        raise NotFound(f"{what} of name {digest[:80]!r}", hint="fleet bundles list")
    view = bundle(found[0])
    files = tx.bundles.files(found[0].digest)
    view["files"] = [
        {
            "path": file.path,
            "role": file.role.value,
            "size": file.size,
            "sha256": file.sha256,
            "chunk_list_sha256": file.chunk_list_sha256,
            "on_shelf": shelf.has(file.sha256),
        }
        for file in files
    ]
    report = next((file for file in files if file.role is Role.REPORT), None)
    view["report"] = None
    if report is not None and shelf.has(report.sha256) and report.size <= 1024 * 1024:
        view["report"] = _json(b"".join(shelf.read(report.sha256)))
    view["papers"] = papers(files, shelf)
    return view


def claim(found: Claim) -> View:
    """One claim, without its secret, which nobody has."""
    return {
        "id": found.id,
        "created_at": found.created_at,
        "created_by": found.created_by,
        "expires_at": found.expires_at,
        "uses_left": found.uses_left,
        "trust_sha256": found.trust_sha256,
        "revoked": found.revoked,
        "approve": found.approve,
        "listed": found.listed,
    }


def request(found: EnrolmentRequest) -> View:
    """A device that waits for an operator, or was approved and did not ask again yet."""
    return {
        "device": found.device,
        "key_id": found.key_id,
        "claim": found.claim,
        "state": found.state.value,
        "hw": found.hw,
        "board": found.board,
        "address": found.address,
        "created_at": found.created_at,
    }


def trust(publications: Publications, tx: Transaction) -> View:
    """Who may sign what, what is released, and until when that holds."""
    now = publications.require(tx)
    keys = now.keys
    revoked = publications.revoked(tx)
    documents = {
        role: {
            "version": tuf_repo.version_of(raw),
            "expires": int(tuf_repo.expires_of(raw).timestamp()),
        }
        for role, raw in (
            ("root", now.root),
            ("targets", now.targets),
            ("snapshot", now.snapshot),
            ("timestamp", now.timestamp),
        )
    }
    policy = publications.policy(tx)
    return {
        "documents": documents,
        "root_sha256": sha256(now.root),
        "root_threshold": keys.threshold,
        "roots": [_key(key) for key in keys.roots],
        "publishers": [_key(key) for key in keys.publishers],
        "repository": _key(keys.repository),
        "directors": [_key(PublicKey.from_pem(pem)) for pem in policy.directors],
        "released": tuf_repo.listed(now.targets),
        "revoked": codec.encode(revoked),
        "root": base64.b64encode(now.root).decode(),
        "targets": base64.b64encode(now.targets).decode(),
        "policy": codec.encode(policy),
    }


def _key(key: PublicKey) -> View:
    return {"key_id": key.id, "algorithm": key.algorithm, "pem": key.pem}


def _device(found: Device, order: OrderRow | None) -> View:
    reported = found.reported
    return {
        "id": found.id,
        "online": found.online,
        "seen_at": found.seen_at,
        "enrolled_at": found.enrolled_at,
        "certificate_expires": found.certificate_expires,
        "key_id": found.key_id,
        "seal_key": found.seal_key,
        "revoked_at": found.revoked_at,
        "agent": found.agent,
        "boot_id": found.boot_id,
        "hw": found.hw,
        "arch": found.arch,
        "board": found.board,
        "hardware_class": device_views.hardware_class(found),
        "tags": found.tags,
        "inventory": device_views.inventory(found),
        "quarantined": list(reported.quarantined) if reported else [],
        "engines": dict(reported.capabilities.engines) if reported else {},
        "phase": reported.phase.value if reported else None,
        "detail": reported.detail if reported else "",
        "order_seq": reported.order_seq if reported else 0,
        "rollout": reported.rollout if reported else "",
        "models": [codec.encode(model) for model in reported.models] if reported else [],
        "desired": _order(order) if order else None,
        **reason(reported.reason if reported else None),
    }


def _order(order: OrderRow) -> View:
    return {
        "seq": order.seq,
        "rollout": order.rollout,
        "issued": order.issued,
        "expires": order.expires,
        "targets": [target(one) for one in order.targets],
    }


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None
