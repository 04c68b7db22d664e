"""What the publishers said: TUF documents kept, checked on the way in, and kept fresh.

The control room holds the repository key and the director key, and no publisher's or root key: it
can withhold what publishers say, but not say anything in their name. Every change is one
transaction: devices see the state before it or after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import Malformed, OperatorError, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey, PublicKey
from edgefleet_contract.messages import seal_time
from edgefleet_contract.orders import SignedTime
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import trust_topic
from edgefleet_contract.trust import (
    FLEET_POLICY,
    MAX_TARGET_BYTES,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    parse_policy,
    release_path,
)
from edgefleet_fleet import tuf_repo
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.adapters.sql.trust_documents import TrustDocuments
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.work import Actor, Room, Work

NEWEST_ROOT: Final = "root.json"
"""What a device that enrols asks for: its claim has the digest of the newest root, not a number."""
_KEPT: Final = 3  # versions of snapshot and targets: a device may be in the middle of a refresh
_POLICIES: Final = (FLEET_POLICY, REVOKED_POLICY)
NO_TRUST_HINT: Final = "fleet keys init --out OFFLINE-DIR --publisher publisher.pem"


@dataclass(frozen=True, slots=True)
class Published:
    """The newest documents, as they are on the wire."""

    root: bytes
    targets: bytes
    snapshot: bytes
    timestamp: bytes

    @property
    def keys(self) -> tuf_repo.RootKeys:
        """Who may sign what."""
        return tuf_repo.read_root(self.root)


class Publications:
    """The repository of one fleet."""

    def __init__(self, room: Room, repository: PrivateKey) -> None:
        self._room = room
        self._key = repository

    @classmethod
    def open(cls, room: Room) -> Publications:
        """The repository of a room, with the key that its root names."""
        made = cls(room, room.keys.repository())
        with room.store.begin() as tx:
            now = made.current(tx)
        if now is not None:
            made._key = room.keys.repository(now.keys.repository)
        return made

    @property
    def repository(self) -> PublicKey:
        """The key that keeps the metadata fresh."""
        return self._key.public

    def prepare_repository(self, *, actor: Actor) -> PublicKey:
        """Make the next repository key; it signs once a root names it."""
        with self._room.work(actor) as work:
            key = self._room.keys.next_key("repository").public
            work.record("trust.repository", key.id, "prepared")
        return key

    def current(self, tx: Transaction) -> Published | None:
        """The newest documents; None before the root ceremony."""
        names = tx.trust.names()
        newest = {role: _newest(names, role) for role in ("root", "targets", "snapshot")}
        timestamp = tx.trust.get("timestamp.json")
        if timestamp is None or 0 in newest.values():
            return None
        bodies = {role: tx.trust.get(f"{n}.{role}.json") or b"" for role, n in newest.items()}
        return Published(bodies["root"], bodies["targets"], bodies["snapshot"], timestamp)

    def require(self, tx: Transaction) -> Published:
        """The newest documents.

        Raises:
            OperatorError: the root ceremony has not been held.
        """
        found = self.current(tx)
        if found is None:
            raise _no_root()
        return found

    def timestamp(self, tx: Transaction) -> bytes:
        """The newest timestamp alone. Raises as `require`."""
        found = tx.trust.get("timestamp.json")
        if found is None:
            raise _no_root()
        return found

    def publishers(self, tx: Transaction) -> KeyRing:
        """The keys that may sign bundles."""
        return KeyRing(self.require(tx).keys.publishers)

    def policy(self, tx: Transaction) -> FleetPolicy:
        """The fleet's policy in force."""
        return parse_policy(FleetPolicy, self._file(tx, FLEET_POLICY), what=FLEET_POLICY)

    def revoked(self, tx: Transaction) -> RevokedPolicy:
        """What may not run."""
        return parse_policy(RevokedPolicy, self._file(tx, REVOKED_POLICY), what=REVOKED_POLICY)

    def lists(self, tx: Transaction, model: str, version: int, digest: str) -> bool:
        """Whether a publisher released exactly this."""
        listed = tuf_repo.listed(self.require(tx).targets)
        return listed.get(release_path(model, version)) == digest

    def begin(self, root: bytes, targets: bytes, files: Mapping[str, bytes], actor: Actor) -> None:
        """Take the outcome of a root ceremony.

        Raises:
            OperatorError: there was one before.
            Unverified, Malformed: it is not one.
        """
        with self._room.work(actor) as work:
            if self.current(work.tx) is not None:
                raise OperatorError(
                    "this fleet has a root already", hint="fleet keys rotate --help"
                )
            tuf_repo.check_root(root, old=None)
            self._put_root(work, root)
            self._take(work, targets, files, root=root, old=None)
            work.record("trust.begin", self._room.fleet, sha256(root)[:12])

    def publish(self, targets: bytes, files: Mapping[str, bytes], *, actor: Actor) -> None:
        """Take new targets that a publisher signed, with the policies that they name.

        Raises:
            Unverified: no publisher signed them, or they do not follow the last ones.
            Malformed: a policy is missing, or not what the targets name.
        """
        with self._room.work(actor) as work:
            now = self.require(work.tx)
            self._take(work, targets, files, root=now.root, old=now.targets)
            work.record("trust.publish", f"targets {tuf_repo.version_of(targets)}")

    def replace_root(self, root: bytes, *, actor: Actor) -> None:
        """Take the next root, signed by a threshold of the old root keys and of its own.

        Raises:
            Unverified: it is not; or the targets in force are by nobody that it names.
        """
        with self._room.work(actor) as work:
            now = self.require(work.tx)
            tuf_repo.check_root(root, old=now.root)
            named = tuf_repo.read_root(root).repository
            if named not in (self._key.public, self._room.keys.next_key("repository").public):
                raise Malformed("this root names another repository key than the control room's")
            if not tuf_repo.is_signed_by_publishers(now.targets, root=root):
                raise Unverified(
                    "the targets in force are signed by none of the new publishers",
                    reason=Reason.METADATA_INVALID,
                    hint="publish with the new key first, while both are trusted",
                )
            if named != self._key.public:
                self._key = self._room.keys.repository(named)
            self._put_root(work, root)
            self._freshen(work, now.targets)
            work.record("trust.root", f"root {tuf_repo.version_of(root)}", sha256(root)[:12])

    def keep_fresh(self) -> None:
        """Sign snapshot and timestamp anew when half of their life is over."""
        with self._room.work() as work:
            now = self.current(work.tx)
            if now is None:
                return
            moment = datetime.fromtimestamp(work.now, UTC)
            left = tuf_repo.expires_of(now.timestamp) - moment
            if left < tuf_repo.TIMESTAMP_LIFE / 2:
                self._freshen(work, now.targets)

    def read(self, name: str) -> bytes:
        """A document by the name under which devices ask for it; `root.json` is the newest root.

        Raises:
            NotFound: there is none.
        """
        with self._room.store.begin() as tx:
            if name == NEWEST_ROOT:
                name = f"{_newest(tx.trust.names(), 'root')}.root.json"
            found = tx.trust.get(name)
        if found is None:
            raise NotFound(f"there is no document {name[:80]!r}")
        return found

    def tell_all(self) -> None:
        """Put every document on the broker, retained: devices need no HTTP to follow."""
        if self._room.link is None:
            return
        with self._room.store.begin() as tx:
            documents = {name: tx.trust.get(name) or b"" for name in tx.trust.names()}
        newest = {role: _newest(tuple(documents), role) for role in ("snapshot", "targets")}
        targets = documents.get(f"{newest['targets']}.targets.json")
        listed = tuf_repo.listed(targets) if targets else {}
        current = {_file_name(path, listed[path]) for path in _POLICIES if path in listed}
        for name, body in documents.items():
            if name.startswith("targets/") and name not in current:
                continue  # an older policy; the topic is for the one that is listed
            channel = _channel(name, newest)
            if channel and channel != "timestamp":
                self._room.link.publish(trust_topic(self._room.fleet, channel), body)
        if "timestamp.json" in documents:  # last: it pins all the others
            timestamp = documents["timestamp.json"]
            self._room.link.publish(trust_topic(self._room.fleet, "timestamp"), timestamp)

    def tell_time(self) -> None:
        """Put the signed time on the broker, retained: some boards have no clock."""
        if self._room.link is not None:
            told = SignedTime(self._room.fleet, int(self._room.clock()))
            raw = seal_time(told, self._room.director)
            self._room.link.publish(trust_topic(self._room.fleet, "time"), raw)

    def _take(
        self,
        work: Work,
        targets: bytes,
        files: Mapping[str, bytes],
        *,
        root: bytes,
        old: bytes | None,
    ) -> None:
        tuf_repo.check_targets(targets, root=root, old=old)
        listed = tuf_repo.listed(targets)
        for path in _POLICIES:
            digest = listed.get(path)
            if digest is None:
                raise Malformed(f"these targets do not list {path}")
            raw = files.get(path)
            if raw is None:
                raw = self._find(work.tx, path, digest)
            if raw is None or sha256(raw) != digest or len(raw) > MAX_TARGET_BYTES:
                raise Malformed(f"{path} is not the file that these targets list")
            _check_policy(path, raw, fleet=self._room.fleet)
            work.tx.trust.put(_file_name(path, digest), raw, at=work.now)
        version = tuf_repo.version_of(targets)
        work.tx.trust.put(f"{version}.targets.json", targets, at=work.now)
        self._freshen(work, targets)

    def _freshen(self, work: Work, targets: bytes) -> None:
        moment = datetime.fromtimestamp(work.now, UTC)
        snapshots = _newest(work.tx.trust.names(), "snapshot")
        old = work.tx.trust.get("timestamp.json")
        number = tuf_repo.version_of(old) + 1 if old else 1
        snapshot = tuf_repo.make_snapshot(targets, version=snapshots + 1, now=moment, key=self._key)
        timestamp = tuf_repo.make_timestamp(snapshot, version=number, now=moment, key=self._key)
        work.tx.trust.put(f"{snapshots + 1}.snapshot.json", snapshot, at=work.now)
        work.tx.trust.put("timestamp.json", timestamp, at=work.now)
        for role, newest in (
            ("snapshot", snapshots + 1),
            ("targets", tuf_repo.version_of(targets)),
        ):
            work.tx.trust.drop(f"{newest - _KEPT}.{role}.json")
        work.changed("trust", str(number))
        work.after.append(self.tell_all)

    def _put_root(self, work: Work, root: bytes) -> None:
        work.tx.trust.put(f"{tuf_repo.version_of(root)}.root.json", root, at=work.now)

    def _file(self, tx: Transaction, path: str) -> bytes:
        digest = tuf_repo.listed(self.require(tx).targets)[path]
        return self._find(tx, path, digest) or b""

    @staticmethod
    def _find(tx: Transaction, path: str, digest: str) -> bytes | None:
        documents: TrustDocuments = tx.trust
        return documents.get(_file_name(path, digest))


def root_digest(published: Published) -> Digest:
    """What claims pin: the SHA-256 of the newest root."""
    return sha256(published.root)


def _check_policy(path: str, raw: bytes, *, fleet: str) -> None:
    if path == REVOKED_POLICY:
        parse_policy(RevokedPolicy, raw, what=path)
        return
    found = parse_policy(FleetPolicy, raw, what=path)
    if found.fleet != fleet:
        raise Malformed(f"{path} is of fleet {found.fleet!r}, not {fleet!r}")


def _file_name(path: str, digest: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{digest}.{name}"


def _no_root() -> OperatorError:
    return OperatorError("nobody is trusted yet: no root was made", hint=NO_TRUST_HINT)


def _newest(names: tuple[str, ...], role: str) -> int:
    found = (name.partition(".") for name in names if name.endswith(f".{role}.json"))
    return max((int(number) for number, _, rest in found if number.isdigit() and rest), default=0)


def _channel(name: str, newest: dict[str, int]) -> str:
    """The topic below `-/trust/` for a document; empty where it is an old one."""
    if name == "timestamp.json":
        return "timestamp"
    number, _, rest = name.partition(".")
    role = rest.removesuffix(".json")
    if role == "root":
        return f"root/{number}"
    if role in newest:
        return role if int(number) == newest[role] else ""
    return f"policy/{name.rpartition('.json')[0].rpartition('.')[2]}"
