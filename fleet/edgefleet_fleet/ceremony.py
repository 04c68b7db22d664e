"""What key holders do on the desk: root ceremonies, releases, revocations. No key leaves the desk.

Each function takes what the control room says now (`GET /api/v1/trust`), makes the next signed
document with keys from files, and gives what is to be sent back. What the control room says is not
believed blindly: releases are added to targets that the publisher's own root vouches for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgefleet_contract.bundle import Digest
from edgefleet_contract.codec import decode
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.trust import (
    FLEET_POLICY,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    release_path,
    render_policy,
)
from edgefleet_fleet import tuf_repo

View = dict[str, Any]


def make_root_keys(folder: Path, count: int, *, passphrase: bytes | None) -> list[PrivateKey]:
    """New root keys `root-1.pem` … in a folder of mode 0700.

    Raises:
        OperatorError: a file of that name exists, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot create {folder}: {error.strerror}") from None
    made = []
    for number in range(1, count + 1):
        key = PrivateKey.generate_ed25519()
        key.save(folder / f"root-{number}.pem", passphrase=passphrase)
        made.append(key)
    return made


def begin(
    identity: View, roots: list[PrivateKey], threshold: int, publisher: PrivateKey
) -> dict[str, object]:
    """The body of `POST /trust`: a first root, and first targets with the fleet's policies."""
    now = datetime.now(UTC)
    keys = tuf_repo.RootKeys(
        tuple(key.public for key in roots),
        threshold,
        (publisher.public,),
        PublicKey.from_pem(identity["repository"]),
    )
    root = tuf_repo.make_root(keys, version=1, now=now)
    for key in roots[:threshold]:
        root = tuf_repo.sign(root, key)
    policy = FleetPolicy(identity["fleet"], identity["ca"], (identity["director"],))
    files = {
        FLEET_POLICY: render_policy(policy),
        REVOKED_POLICY: render_policy(RevokedPolicy()),
    }
    targets = tuf_repo.sign(tuf_repo.edit_targets(None, now=now, put=files), publisher)
    return {"root": _text(root), **_targets_body(targets, files)}


def release(
    trust: View, publisher: PrivateKey, model: str, version: int, manifest: bytes
) -> dict[str, object]:
    """The body of `POST /trust/targets` that releases a bundle."""
    return _publish(trust, publisher, put={release_path(model, version): manifest})


def refresh(trust: View, publisher: PrivateKey) -> dict[str, object]:
    """The body that says the same again, for another 90 days."""
    return _publish(trust, publisher, put={})


def revoke_bundle(trust: View, publisher: PrivateKey, digest: Digest) -> dict[str, object]:
    """The body that forbids a bundle by its digest."""
    revoked = decode(RevokedPolicy, trust["revoked"], what="revoked")
    digests = tuple(sorted({*revoked.digests, digest}))
    return _policy(trust, publisher, REVOKED_POLICY, replace(revoked, digests=digests))


def set_floor(trust: View, publisher: PrivateKey, model: str, floor: int) -> dict[str, object]:
    """The body that forbids every version of a model below `floor`.

    Raises:
        OperatorError: the floor would fall.
    """
    revoked = decode(RevokedPolicy, trust["revoked"], what="revoked")
    if floor < revoked.floors.get(model, 0):
        raise OperatorError(f"the floor of {model} is {revoked.floors[model]}: floors only rise")
    floors = {**revoked.floors, model: floor}
    return _policy(trust, publisher, REVOKED_POLICY, replace(revoked, floors=floors))


def set_directors(trust: View, publisher: PrivateKey, pems: tuple[str, ...]) -> dict[str, object]:
    """The body that says who may write orders.

    Raises:
        OperatorError: nobody would be left.
    """
    if not pems:
        raise OperatorError(
            "nobody would be left to write orders", hint="rotate the director first"
        )
    policy = decode(FleetPolicy, trust["policy"], what="policy")
    return _policy(trust, publisher, FLEET_POLICY, replace(policy, directors=pems))


def next_root(
    trust: View,
    signers: list[PrivateKey],
    change: Callable[[tuf_repo.RootKeys], tuf_repo.RootKeys],
) -> dict[str, object]:
    """The body of `POST /trust/root`: the next root, signed by each of `signers`.

    Raises:
        OperatorError: too few of the signers are root keys, old or new.
    """
    old = base64.b64decode(trust["root"])
    before = tuf_repo.read_root(old)
    after = change(before)
    root = tuf_repo.make_root(after, version=tuf_repo.version_of(old) + 1, now=datetime.now(UTC))
    for keys in (before, after):
        known = [key for key in signers if key.public in keys.roots]
        if len(known) < keys.threshold:
            raise OperatorError(
                f"{keys.threshold} root keys are needed, {len(known)} were given",
                hint="give each with --root FILE",
            )
    for key in signers:
        root = tuf_repo.sign(root, key)
    return {"root": _text(root)}


def _policy(
    trust: View, publisher: PrivateKey, path: str, policy: FleetPolicy | RevokedPolicy
) -> dict[str, object]:
    return _publish(trust, publisher, put={path: render_policy(policy)})


def _publish(trust: View, publisher: PrivateKey, *, put: Mapping[str, bytes]) -> dict[str, object]:
    if publisher.public.id not in {key["key_id"] for key in trust["publishers"]}:
        raise OperatorError(
            f"key {publisher.public.id[:12]} is no publisher of this fleet",
            hint="fleet keys add-publisher PUB.pem --root root-1.pem --root root-2.pem",
        )
    old = base64.b64decode(trust["targets"])
    tuf_repo.check_signed_targets(old, root=base64.b64decode(trust["root"]))
    targets = tuf_repo.sign(tuf_repo.edit_targets(old, now=datetime.now(UTC), put=put), publisher)
    policies = {path: raw for path, raw in put.items() if path in (FLEET_POLICY, REVOKED_POLICY)}
    return _targets_body(targets, policies)


def _targets_body(targets: bytes, files: Mapping[str, bytes]) -> dict[str, object]:
    return {"targets": _text(targets), "files": {path: _text(raw) for path, raw in files.items()}}


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
