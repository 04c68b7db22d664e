"""TUF metadata made and checked: bytes in, bytes out. Who keeps them is `trust_service.py`.

Roles: root (offline keys, a threshold of them), targets (publishers, on the desk), snapshot and
timestamp (the repository key of the control room). Every document is signed over canonical JSON by
python-tuf. A new root must be signed by a threshold of the old one and of itself; new targets by a
threshold of the root's publishers, with a version that rises by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.reasons import Reason

ROOT_LIFE: Final = timedelta(days=365)
TARGETS_LIFE: Final = timedelta(days=90)
SNAPSHOT_LIFE: Final = timedelta(days=7)
TIMESTAMP_LIFE: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class RootKeys:
    """Who may sign what: the content of a root document."""

    roots: tuple[PublicKey, ...]
    threshold: int
    publishers: tuple[PublicKey, ...]
    repository: PublicKey


def make_root(keys: RootKeys, *, version: int, now: datetime) -> bytes:
    """An unsigned root document; `sign` it with enough root keys.

    Raises:
        Malformed: a threshold that the keys cannot meet, or no publisher.
    """
    if not 1 <= keys.threshold <= len(keys.roots):
        raise Malformed(f"a threshold of {keys.threshold} with {len(keys.roots)} root keys")
    if not keys.publishers:
        raise Malformed("a root document names at least one publisher")
    root = Root(version=version, expires=_end(now, ROOT_LIFE), consistent_snapshot=True)
    for role, members in (
        ("root", keys.roots),
        ("targets", keys.publishers),
        ("snapshot", (keys.repository,)),
        ("timestamp", (keys.repository,)),
    ):
        for key in members:
            root.add_key(_tuf_key(key), role)
    root.roles["root"].threshold = keys.threshold
    return Metadata(root).to_bytes()


def read_root(raw: bytes) -> RootKeys:
    """Who may sign what, by a root document that is trusted already."""
    root = _load(raw, Root)

    def members(role: str) -> tuple[PublicKey, ...]:
        return tuple(_our_key(root.signed.keys[name]) for name in root.signed.roles[role].keyids)

    (repository,) = members("timestamp")
    return RootKeys(
        members("root"), root.signed.roles["root"].threshold, members("targets"), repository
    )


def sign(raw: bytes, key: PrivateKey) -> bytes:
    """The document with one signature more (or renewed)."""
    metadata = _parse(raw)
    metadata.sign(CryptoSigner(key.raw, _tuf_key(key.public)), append=True)
    return metadata.to_bytes()


def version_of(raw: bytes) -> int:
    """The version that a document says it has."""
    version: int = _parse(raw).signed.version
    return version


def expires_of(raw: bytes) -> datetime:
    """When a document ends."""
    expires: datetime = _parse(raw).signed.expires
    return expires


def check_root(raw: bytes, *, old: bytes | None) -> None:
    """Nothing, if `raw` is the root that may follow `old` (or a first one, signed by itself).

    Raises:
        Unverified: a threshold is not met, or the version is not the next.
    """
    new = _load(raw, Root)
    if old is None:
        _verify(new, new, "root")
        return
    before = _load(old, Root)
    if new.signed.version != before.signed.version + 1:
        raise Unverified(
            f"root {new.signed.version} cannot follow root {before.signed.version}",
            reason=Reason.METADATA_INVALID,
        )
    _verify(before, new, "root")
    _verify(new, new, "root")


def check_targets(raw: bytes, *, root: bytes, old: bytes | None) -> None:
    """Nothing, if the publishers of `root` signed `raw` and it may follow `old`.

    Raises:
        Unverified: not signed as it must be, or the version is not the next.
    """
    new = _load(raw, Targets)
    _verify(_load(root, Root), new, "targets")
    expected = 1 if old is None else version_of(old) + 1
    if new.signed.version != expected:
        raise Unverified(
            f"targets {new.signed.version} where {expected} comes next",
            reason=Reason.METADATA_ROLLBACK,
            hint="somebody else published meanwhile: run the command again",
        )


def check_signed_targets(raw: bytes, *, root: bytes) -> None:
    """Nothing, if the publishers of `root` signed `raw`.

    Raises:
        Unverified: they did not.
    """
    _verify(_load(root, Root), _load(raw, Targets), "targets")


def is_signed_by_publishers(raw: bytes, *, root: bytes) -> bool:
    """Whether targets still satisfy a (new) root."""
    try:
        check_signed_targets(raw, root=root)
    except Unverified:
        return False
    return True


def edit_targets(
    old: bytes | None,
    *,
    now: datetime,
    put: Mapping[str, bytes] | None = None,
    drop: tuple[str, ...] = (),
) -> bytes:
    """The next targets document, unsigned: what `old` lists, with files put and paths dropped."""
    listed = dict(_load(old, Targets).signed.targets) if old else {}
    for path, raw in (put or {}).items():
        listed[path] = TargetFile.from_data(path, raw, ["sha256"])
    for path in drop:
        listed.pop(path, None)
    version = 1 if old is None else version_of(old) + 1
    targets = Targets(version=version, expires=_end(now, TARGETS_LIFE), targets=listed)
    return Metadata(targets).to_bytes()


def listed(raw: bytes) -> dict[str, str]:
    """What targets list: path to SHA-256."""
    return {
        path: file.hashes["sha256"] for path, file in _load(raw, Targets).signed.targets.items()
    }


def make_snapshot(targets: bytes, *, version: int, now: datetime, key: PrivateKey) -> bytes:
    """The signed snapshot that pins a targets document."""
    meta = {"targets.json": MetaFile.from_data(version_of(targets), targets, ["sha256"])}
    snapshot = Snapshot(version=version, expires=_end(now, SNAPSHOT_LIFE), meta=meta)
    return sign(Metadata(snapshot).to_bytes(), key)


def make_timestamp(snapshot: bytes, *, version: int, now: datetime, key: PrivateKey) -> bytes:
    """The signed timestamp that pins a snapshot."""
    meta = MetaFile.from_data(version_of(snapshot), snapshot, ["sha256"])
    timestamp = Timestamp(version=version, expires=_end(now, TIMESTAMP_LIFE), snapshot_meta=meta)
    return sign(Metadata(timestamp).to_bytes(), key)


def _end(now: datetime, life: timedelta) -> datetime:
    return (now.astimezone(UTC) + life).replace(microsecond=0)


def _tuf_key(key: PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(key.raw, key.id)


def _our_key(key: Key) -> PublicKey:
    public = key.keyval["public"]
    if key.keytype == "ed25519":  # TUF writes these as hex, and all others as PEM
        return PublicKey.wrap(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    return PublicKey.from_pem(public)


def _parse(raw: bytes) -> Metadata:  # type: ignore[type-arg] # any of the four roles
    try:
        return Metadata.from_bytes(raw)
    except (RepositoryError, ValueError, KeyError, TypeError) as error:
        raise Malformed(f"not a TUF document: {error}") from None


def _load(raw: bytes, kind: type) -> Metadata:  # type: ignore[type-arg] # checked at once
    metadata = _parse(raw)
    if not isinstance(metadata.signed, kind):
        raise Malformed(f"a TUF {metadata.signed.type} where {kind.__name__.lower()} is expected")
    return metadata


def _verify(by: Metadata, metadata: Metadata, role: str) -> None:  # type: ignore[type-arg] # root
    try:
        by.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise Unverified(f"{role}: {error}", reason=Reason.METADATA_INVALID) from None
