"""A TUF repository for tests: real keys, real documents, in memory; thieves may edit it.

It uses python-tuf directly, as a control room of another make would, so that a device's tests need
nothing but the device's own dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edgefleet_contract.bundle import sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Target
from edgefleet_contract.trust import (
    FLEET_POLICY,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    release_path,
    render_policy,
)


def sign(metadata: Metadata, *keys: PrivateKey) -> bytes:  # type: ignore[type-arg] # any role
    for key in keys:
        signer = CryptoSigner(key.raw, SSlibKey.from_crypto(key.public.raw, key.public.id))
        metadata.sign(signer, append=True)
    return bytes(metadata.to_bytes())


@dataclass
class Repository:
    """Documents by name; `publish` makes the next versions of all but the root."""

    director: PrivateKey = field(default_factory=PrivateKey.generate_ed25519)
    publisher: PrivateKey = field(default_factory=PrivateKey.generate_p256)
    online: PrivateKey = field(default_factory=PrivateKey.generate_ed25519)
    roots: list[PrivateKey] = field(
        default_factory=lambda: [PrivateKey.generate_ed25519() for _ in range(3)]
    )
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    documents: dict[str, bytes] = field(default_factory=dict)
    releases: dict[str, bytes] = field(default_factory=dict)
    revoked: RevokedPolicy = field(default_factory=RevokedPolicy)
    policy: FleetPolicy = field(init=False)
    version: int = 0
    root_version: int = 0

    def __post_init__(self) -> None:
        self.policy = FleetPolicy("demo", "CA", (self.director.public.pem,))
        self.new_root()
        self.publish()

    @property
    def root(self) -> bytes:
        """The first root: what a claim pins."""
        return self.documents["1.root.json"]

    def new_root(
        self,
        *,
        signers: list[PrivateKey] | None = None,
        publishers: tuple[PrivateKey, ...] = (),
        threshold: int = 2,
    ) -> None:
        """The next root, signed by these (else by all root keys)."""
        self.root_version += 1
        root = Root(version=self.root_version, expires=self.now + timedelta(days=365))
        for role, keys in (
            ("root", self.roots),
            ("targets", list(publishers) or [self.publisher]),
            ("snapshot", [self.online]),
            ("timestamp", [self.online]),
        ):
            for key in keys:
                root.add_key(SSlibKey.from_crypto(key.public.raw, key.public.id), role)
        root.roles["root"].threshold = threshold
        raw = sign(Metadata(root), *(signers or self.roots))
        self.documents[f"{self.root_version}.root.json"] = raw

    def release(self, *targets: Target) -> None:
        """List releases, and publish; only their digests matter to a device's metadata."""
        for target in targets:
            self.releases[release_path(target.model, target.version)] = b""
            self._digests[release_path(target.model, target.version)] = target.bundle_sha256
        self.publish()

    def revoke(self, **changes: object) -> None:
        """Publish another `policy/revoked.json`."""
        self.revoked = replace(self.revoked, **changes)  # type: ignore[arg-type]
        self.publish()

    def publish(
        self,
        *,
        by: PrivateKey | None = None,
        online: PrivateKey | None = None,
        version: int | None = None,
    ) -> None:
        """The next targets, snapshot and timestamp; a thief signs with keys of its own."""
        self.version = version if version is not None else self.version + 1
        files = {
            FLEET_POLICY: render_policy(self.policy),
            REVOKED_POLICY: render_policy(self.revoked),
        }
        listed = {path: TargetFile.from_data(path, raw, ["sha256"]) for path, raw in files.items()}
        for path, digest in self._digests.items():
            listed[path] = TargetFile(1, {"sha256": digest}, path)
        for path, raw in files.items():
            folder, _, name = path.rpartition("/")
            self.documents[f"targets/{folder}/{sha256(raw)}.{name}"] = raw
        n, life = self.version, timedelta(days=2)
        targets = Targets(version=n, expires=self.now + timedelta(days=90), targets=listed)
        raw_targets = sign(Metadata(targets), by or self.publisher)
        meta = {"targets.json": MetaFile.from_data(n, raw_targets, ["sha256"])}
        snapshot = Snapshot(version=n, expires=self.now + timedelta(days=7), meta=meta)
        raw_snapshot = sign(Metadata(snapshot), online or self.online)
        pinned = MetaFile.from_data(n, raw_snapshot, ["sha256"])
        timestamp = Timestamp(version=n, expires=self.now + life, snapshot_meta=pinned)
        self.documents[f"{n}.targets.json"] = raw_targets
        self.documents[f"{n}.snapshot.json"] = raw_snapshot
        self.documents["timestamp.json"] = sign(Metadata(timestamp), online or self.online)

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`."""
        yield self.documents[name][: max_bytes + 1]

    _digests: dict[str, str] = field(default_factory=dict)
