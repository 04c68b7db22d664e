"""What there is of each model, and where it is: versions, variants, releases, rollouts, devices.

Read from what the control room knows anyway; nothing is kept twice. `references` is why a bundle
may not be removed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgefleet_contract.bundle import Manifest, parse_manifest
from edgefleet_contract.trust import release_path
from edgefleet_fleet import tuf_repo
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Shelf
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Bundle, Device

View = dict[str, Any]


def models(tx: Transaction) -> list[View]:
    """Each model by name: its versions, how many devices run it, the newest rollout."""
    running = _running(tx)
    newest: dict[str, str] = {}
    for row in tx.rollouts.list():
        newest.setdefault(row.target.model, row.id)
    found: dict[str, View] = {}
    for bundle in sorted(tx.bundles.list(), key=lambda b: (b.model, -b.version)):
        view = found.setdefault(
            bundle.model,
            {
                "model": bundle.model,
                "newest": bundle.version,
                "versions": 0,
                "devices": 0,
                "rollout": newest.get(bundle.model),
            },
        )
        view["versions"] += 1
        view["devices"] += running[bundle.digest]
    return list(found.values())


def model(tx: Transaction, publications: Publications, shelf: Shelf, name: str) -> View:
    """One model: every version with its variants, who signed it, and where it is.

    Raises:
        NotFound: there is none of this name.
    """
    bundles = [bundle for bundle in tx.bundles.list() if bundle.model == name]
    if not bundles:
        raise NotFound(f"there is no model {name[:80]!r}", hint="fleet models list")
    running = _running(tx)
    published = publications.current(tx)
    released = tuf_repo.listed(published.targets) if published is not None else {}
    revoked = publications.revoked(tx) if published is not None else None
    versions = []
    for bundle in sorted(bundles, key=lambda b: -b.version):
        rows = [r.id for r in tx.rollouts.list() if r.target.bundle_sha256 == bundle.digest]
        forbidden = revoked and revoked.forbids(bundle.model, bundle.version, bundle.digest)
        path = release_path(bundle.model, bundle.version)
        versions.append(
            {
                "version": bundle.version,
                "digest": bundle.digest,
                "size": bundle.size,
                "signer": bundle.signer,
                "created_at": bundle.created_at,
                "created_by": bundle.created_by,
                "complete": bundle.complete,
                "released": released.get(path) == bundle.digest,
                "revoked": forbidden or None,
                "variants": _variants(shelf, bundle),
                "devices": running[bundle.digest],
                "rollouts": rows,
            }
        )
    return {"model": name, "versions": versions}


def references(tx: Transaction, publications: Publications, bundle: Bundle) -> list[str]:
    """Who needs a bundle, in words for people; empty where nobody does."""
    digest = bundle.digest
    is_published = publications.current(tx) is not None
    if is_published and publications.lists(tx, bundle.model, bundle.version, digest):
        found = ["it is released"]
    else:
        found = []
    found += [
        f"rollout {row.id}"
        for row in tx.rollouts.list()
        if row.target.bundle_sha256 == digest and not row.state.is_over
    ]
    found += [
        f"the order of {order.device}"
        for order in tx.orders.all_newest()
        if any(target.bundle_sha256 == digest for target in order.targets)
    ]
    found += [f"{device.id} runs it" for device in tx.devices.list() if digest in _runs(device)]
    return found


def _runs(device: Device) -> frozenset[str]:
    """The bundles that a device says that it runs."""
    models = device.reported.models if device.reported is not None else ()
    return frozenset(model.bundle_sha256 for model in models)


def _running(tx: Transaction) -> Counter[str]:
    """How many devices say that they run each bundle."""
    return Counter(digest for device in tx.devices.list() for digest in _runs(device))


def _variants(shelf: Shelf, bundle: Bundle) -> list[View]:
    if not shelf.has(bundle.digest):
        return []
    manifest: Manifest = parse_manifest(b"".join(shelf.read(bundle.digest)))
    return [{"name": variant.name, "format": variant.format.value} for variant in manifest.variants]
