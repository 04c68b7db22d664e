"""The service looks at itself: gathers what `doctor.py` judges. Reads, and two small probes.

The probes write for real, since only that tells of a full disk: a setting in the data base, and a
blob of random bytes on the shelf, which is taken away again. What could take long has a bound.
"""

from __future__ import annotations

import dataclasses
import io
import os
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.topics import Channel, every_device, topic, trust_topic
from edgefleet_fleet import doctor, tuf_repo
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.authority import expiry_of
from edgefleet_fleet.doctor import Blobs, Disk, Facts, Retained
from edgefleet_fleet.glance import is_silent
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.services import Services
from edgefleet_fleet.work import Room

_MAX_BLOBS: Final = 5000
_BLOBS_S: Final = 5.0
_LOOK_S: Final = 3.0
_SETTING: Final = "doctor"
_CERTIFICATES: Final = ("broker", "service", "observer", "requester")
_one_at_a_time = threading.Lock()


def look(services: Services) -> tuple[doctor.Finding, ...]:
    """What there is to say of a control room now."""
    with _one_at_a_time:
        return doctor.judge(gather(services))


def gather(services: Services) -> Facts:
    """The facts of a control room."""
    room = services.room
    now = int(room.clock())
    try:
        with room.store.begin() as tx:
            tx.ledger.set_setting(_SETTING, str(now))
        revision = room.store.revision()
        with room.store.begin() as tx:  # a short one: what takes long comes after it
            kept, bundles, wanted = _kept(services, tx, now), tx.bundles.list(), _wanted(tx)
            indexes = tx.sealings.indexes()
            orders = {order.device: order for order in tx.orders.all_newest()}
            devices = [device for device in tx.devices.list() if device.is_active]
    except EdgefleetError as error:
        return Facts(now, database_error=error.message)
    wanted |= _sealed(services, indexes)
    orders = {name: orders[name] for name in (found.id for found in devices) if name in orders}
    is_connected = room.link is not None and room.link.is_connected
    envelopes = {name: order.envelope for name, order in orders.items()}
    return dataclasses.replace(
        kept,
        revision=revision,
        newest_revision=room.store.newest_revision(),
        shelf_error=_shelf_error(room),
        blobs=_blobs(room, wanted),
        leftovers=_leftovers(services),
        incomplete=tuple(
            f"{bundle.model}-{bundle.version}"
            for bundle in bundles
            if not bundle.complete and now - bundle.created_at > doctor.UPLOAD_S
        ),
        disks=tuple(_disks(room)),
        is_connected=is_connected,
        retained=_retained(room, envelopes) if is_connected and kept.has_root else Retained(),
        open_secrets=tuple(_open_secrets(room)),
        certificates=_certificates(room),
        orders={name: order.expires for name, order in orders.items()},
        silent=tuple(device.id for device in devices if is_silent(device, now=now)),
    )


def _kept(services: Services, tx: Transaction, now: int) -> Facts:
    """What the data base alone tells."""
    facts = Facts(
        now,
        has_root=False,
        paused=tuple(row.id for row in tx.rollouts.in_states([State.PAUSED])),
        webhooks={
            hook.name: (hook.last_error or "no answer") if hook.stopped else ""
            for hook in tx.webhooks.list()
        },
    )
    published = services.publications.current(tx)
    if published is None:
        return facts
    policy = services.publications.policy(tx)
    return dataclasses.replace(
        facts,
        has_root=True,
        director_listed=services.room.director.public.pem in policy.directors,
        repository_named=published.keys.repository == services.publications.repository,
        documents={
            role: int(tuf_repo.expires_of(getattr(published, role)).timestamp())
            for role in ("root", "targets", "snapshot", "timestamp")
        },
    )


def _wanted(tx: Transaction) -> dict[Digest, tuple[int | None, str]]:
    """The blobs that complete bundles name, the newest bundle's first: size and name."""
    wanted: dict[Digest, tuple[int | None, str]] = {}
    for bundle in tx.bundles.list():
        if not bundle.complete:
            continue
        name = f"{bundle.model}-{bundle.version}"
        wanted.setdefault(bundle.digest, (None, f"{name}: bundle.json"))
        wanted.setdefault(bundle.signature_sha256, (None, f"{name}: model.sig"))
        for file in tx.bundles.files(bundle.digest):
            wanted.setdefault(file.sha256, (file.size, f"{name}: {file.path}"))
            wanted.setdefault(file.chunk_list_sha256, (None, f"{name}: chunks of {file.path}"))
    return wanted


def _sealed(
    services: Services, indexes: tuple[Digest, ...]
) -> dict[Digest, tuple[int | None, str]]:
    """The sealed blobs that there must be; an index that cannot be read is missing itself."""
    wanted: dict[Digest, tuple[int | None, str]] = {}
    for index in indexes[:_MAX_BLOBS]:
        wanted[index] = (None, f"index of sealed files {index[:8]}")
        try:
            for blob in services.leftovers.of_index(index):
                wanted.setdefault(blob, (None, f"sealed blob {blob[:8]}"))
        except (EdgefleetError, OSError):
            continue
    return wanted


def _leftovers(services: Services) -> int:
    """How many blobs nobody names; those that a look of some seconds finds."""
    try:
        return sum(1 for _ in services.leftovers.find(seconds=_BLOBS_S))
    except (EdgefleetError, OSError):
        return 0  # who looks at the shelf says so


def _shelf_error(room: Room) -> str:
    raw = secrets.token_bytes(64)
    digest = sha256(raw)
    try:
        room.shelf.put(digest, io.BytesIO(raw), max_bytes=len(raw))
        back = b"".join(room.shelf.read(digest))
        room.shelf.remove(digest)
    except EdgefleetError as error:
        return error.message
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if back == raw else "gives back other bytes than it took"


def _blobs(room: Room, wanted: dict[Digest, tuple[int | None, str]]) -> Blobs:
    """Whether the shelf has these blobs, at their sizes."""
    until = time.monotonic() + _BLOBS_S
    missing, looked_at = [], 0
    for digest, (size, name) in list(wanted.items())[:_MAX_BLOBS]:
        if time.monotonic() > until:
            break
        looked_at += 1
        try:
            found = room.shelf.size(digest)
        except (EdgefleetError, OSError):
            found = None
        if found is None or size not in (None, found):
            missing.append(name)
    return Blobs(looked_at, len(wanted), tuple(missing))


def _disks(room: Room) -> Iterator[Disk]:
    paths = [room.keys.root, *([room.keys.blobs] if isinstance(room.shelf, FileShelf) else [])]
    seen = set()
    for path in paths:
        try:
            device, found = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue  # what lies there is found missing by who looks for it
        if device not in seen:
            seen.add(device)
            yield Disk(str(path), found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _retained(room: Room, orders: dict[str, bytes]) -> Retained:
    assert room.link is not None
    try:
        kept = room.link.kept(
            every_device(room.fleet, Channel.DESIRED),
            until=trust_topic(room.fleet, "timestamp"),
            timeout_s=_LOOK_S,
        )
    except TimeoutError:
        return Retained(error=f"no answer in {_LOOK_S:.0f} s")
    absent, other = [], []
    for device, envelope in orders.items():
        found = kept.get(topic(room.fleet, device, Channel.DESIRED))
        if not found:
            absent.append(device)
        elif found != envelope:
            other.append(device)
    return Retained(len(orders), tuple(absent), tuple(other))


def _open_secrets(room: Room) -> Iterator[str]:
    folder = room.keys.keys
    if folder.exists() and folder.stat().st_mode & 0o077:
        yield "keys/"
    secret = [room.keys.token, *folder.glob("*.key"), *folder.glob("*.pem")]
    for path in secret:
        if path.name != "ca.pem" and path.exists() and path.stat().st_mode & 0o077:
            yield path.name


def _certificates(room: Room) -> dict[str, int]:
    keys = room.keys.keys
    paths = {"authority": keys / "ca.pem"}
    if room.config.broker is None:
        paths |= {name: keys / f"{name}.crt" for name in _CERTIFICATES}
    else:
        paths["elsewhere"] = Path(room.config.broker.cert)
    if room.config.tls_cert:
        paths["elsewhere"] = Path(room.config.tls_cert)
    elif room.config.is_tls:
        paths["https"] = keys / "https.crt"
    return {name: _ends(path) for name, path in paths.items()}


def _ends(path: Path) -> int:
    """The end of a certificate; 0 where it cannot be read."""
    try:
        return int(expiry_of(path.read_text()).astimezone(UTC).timestamp())
    except (OSError, ValueError):
        return 0
