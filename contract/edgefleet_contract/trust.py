"""Whom a device believes, and how it first learns it: bytes in, trust out, no I/O.

The root of trust is a TUF root document (https://theupdateframework.github.io/specification/):
offline keys, two of three, say which publisher keys may sign targets and which repository key keeps
them fresh. A claim, which a person carries from the fleet to the device, holds the SHA-256 of that
root, so the device takes it from any network. What publishers sign as TUF targets [trust-2]:

    bundles/<model>/<version>/bundle.json   the releases; nothing else may be ordered
    policy/fleet.json                       the fleet's certificate authority and director keys
    policy/revoked.json                     digests that may not run, and floors under versions
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import Digest, is_digest, is_name
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import KeyRing, PublicKey

FLEET_POLICY: Final = "policy/fleet.json"
REVOKED_POLICY: Final = "policy/revoked.json"
MAX_TARGET_BYTES: Final = 256 * 1024
_CLAIM_PREFIX: Final = "efc1"
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,64}")


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """`policy/fleet.json`: who may write orders, and who signs certificates. PEM texts."""

    fleet: str
    ca: str
    directors: tuple[str, ...]
    schema: str = "edgefleet.policy.fleet/1"

    def __post_init__(self) -> None:
        if self.schema != "edgefleet.policy.fleet/1":
            raise Malformed(f"schema {self.schema[:60]!r}")
        if not is_name(self.fleet):
            raise Malformed(f"fleet name {self.fleet[:80]!r}")
        for pem in self.directors:
            PublicKey.from_pem(pem, what="director key")


@dataclass(frozen=True, slots=True)
class RevokedPolicy:
    """`policy/revoked.json`: what may not run any more.

    `digests` are identities of bundles; `floors` the lowest version of a model that may run.
    `go_back` says what a device does that runs one of them: serve what it ran before, where that
    may run, or nothing.
    """

    digests: tuple[Digest, ...] = ()
    floors: dict[str, int] = field(default_factory=dict)
    go_back: bool = True
    schema: str = "edgefleet.policy.revoked/1"

    def __post_init__(self) -> None:
        if self.schema != "edgefleet.policy.revoked/1":
            raise Malformed(f"schema {self.schema[:60]!r}")
        if not all(map(is_digest, self.digests)):
            raise Malformed("a digest is not 64 lower-case hex digits")

    def forbids(self, model: str, version: int, digest: Digest) -> str:
        """Why this release may not run; empty where it may."""
        if digest in self.digests:
            return f"{model}@{version} is revoked"
        floor = self.floors.get(model, 0)
        return f"{model}@{version} is below the floor {floor}" if version < floor else ""


@dataclass(frozen=True, slots=True)
class TrustFloors:
    """The versions below which TUF metadata are not believed: what this device saw before.

    `online` and `publishers` are the ids of the keys that could say so then. A floor holds as long
    as those who could raise it are trusted: a newer root that drops one of them drops the floors of
    its roles too, so that a thief who drove a number to the highest is undone (TUF specification,
    5.3.11) [trust-2.5].
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0
    online: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()

    def below(self, seen: TrustFloors) -> str:
        """The first role whose version is lower here than the floor; empty where none is."""
        for role in self._bound(seen):
            if getattr(self, role) < getattr(seen, role):
                return role
        return ""

    def merged(self, other: TrustFloors) -> TrustFloors:
        """The floors of a device that saw both, in whatever order."""
        newer, older = (other, self) if other.root >= self.root else (self, other)
        bound = newer._bound(older)
        return replace(
            newer, **{role: max(getattr(newer, role), getattr(older, role)) for role in bound}
        )

    def drops_online(self, older: TrustFloors) -> bool:
        """Whether a newer root took a key from the control room; the clock is not bound by it then.

        Root keys are offline: who rotates them so says that the control room was not its own.
        """
        return self.root > older.root and not set(older.online) <= set(self.online)

    def _bound(self, older: TrustFloors) -> tuple[str, ...]:
        """The roles in which what was seen before counts for this, too."""
        is_newer = self.root > older.root
        drops_publisher = is_newer and not set(older.publishers) <= set(self.publishers)
        online = () if self.drops_online(older) else ("timestamp", "snapshot")
        return ("root", *online, *(() if drops_publisher else ("targets",)))


@dataclass(frozen=True, slots=True)
class Trust:
    """All that verified TUF metadata say; made by the TUF client alone.

    `expires` is when the first of the four roles ends, seconds since 1970. No time after it is
    believed because a director signed it: root and targets are offline, so not even whoever holds
    every key of the control room moves it beyond theirs. `listed` maps a target's path to the
    SHA-256 of its bytes.
    """

    policy: FleetPolicy
    revoked: RevokedPolicy
    publishers: tuple[PublicKey, ...]
    listed: dict[str, Digest]
    versions: TrustFloors
    expires: int

    @property
    def director_ring(self) -> KeyRing:
        """The keys that may sign orders."""
        return KeyRing.from_pems(self.policy.directors)

    @property
    def publisher_ring(self) -> KeyRing:
        """The keys that may sign bundles."""
        return KeyRing(self.publishers)

    def lists(self, model: str, version: int, digest: Digest) -> bool:
        """Whether a publisher released exactly this."""
        return self.listed.get(release_path(model, version)) == digest


def release_path(model: str, version: int) -> str:
    """The TUF target path of a release."""
    return f"bundles/{model}/{version}/bundle.json"


def parse_policy(kind: type[codec.T], raw: bytes, *, what: str) -> codec.T:
    """`FleetPolicy` or `RevokedPolicy` from the canonical bytes of a verified target.

    Raises:
        Malformed: it is not one.
    """
    return codec.decode(kind, canonical.parse(raw, what=what), what=what, unknown=True)


def render_policy(policy: FleetPolicy | RevokedPolicy) -> bytes:
    """The canonical bytes of a policy."""
    return canonical.render(codec.encode(policy))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a person carries to a new device: the right to enrol, and whom to believe."""

    fleet: str
    secret: str
    root_sha256: Digest

    def render(self) -> str:
        """The one line that is typed or pasted."""
        return f"{_CLAIM_PREFIX}.{self.fleet}.{self.secret}.{self.root_sha256}"


def parse_claim(text: str) -> Claim:
    """The claim in a line; the line itself is a secret and never stands in the error.

    Raises:
        Malformed: it is not a claim.
    """
    prefix, _, rest = text.strip().partition(".")
    body, _, digest = rest.rpartition(".")
    fleet, _, secret = body.rpartition(".")
    if prefix != _CLAIM_PREFIX or not is_name(fleet) or not is_digest(digest):
        raise Malformed(
            "this is not a claim", hint="it has the form efc1.<fleet>.<secret>.<digest>"
        )
    if _SECRET.fullmatch(secret) is None:
        raise Malformed("this is not a claim: its secret has the wrong form")
    return Claim(fleet, secret, Digest(digest))
