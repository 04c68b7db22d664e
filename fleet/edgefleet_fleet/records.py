"""What the store keeps, as values. Times are seconds since 1970."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest, Role
from edgefleet_contract.commands import CommandResult, Kind
from edgefleet_contract.commands import Outcome as CommandOutcome
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Reported
from edgefleet_contract.sealed import Dek
from edgefleet_fleet.roles import Role as UserRole
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Cause, State
from edgefleet_fleet.roster import Outcome


@dataclass(frozen=True, slots=True)
class Device:
    """A device that enrolled. `key_id` is empty once it was forgotten; `seal_key` (its public key
    for sealed bundles, hex) where its agent has none. `told` is what it reported last, as JSON."""

    id: str
    key_id: str
    certificate_serial: str
    certificate_expires: int
    enrolled_at: int
    online: bool
    boot_id: str
    agent: str
    seen_at: int
    last_seq: int
    hw: str
    arch: str
    board: str
    told: str = ""
    revoked_at: int | None = None
    seal_key: str = ""
    last_command: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def reported(self) -> Reported | None:
        """What it reported last. It is read here: of most devices in a list nobody asks for it."""
        return _reported(self.told) if self.told else None

    @property
    def is_forgotten(self) -> bool:
        """Whether it may enrol again with another key."""
        return not self.key_id

    @property
    def is_revoked(self) -> bool:
        """Whether its certificates and its key were taken back."""
        return self.revoked_at is not None

    @property
    def is_active(self) -> bool:
        """Whether it is in service: neither forgotten nor revoked."""
        return not self.is_forgotten and not self.is_revoked


@lru_cache(maxsize=64)  # one device is asked several times
def _reported(told: str) -> Reported:
    return codec.decode(Reported, json.loads(told), what="a stored state", unknown=True)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a device in service stands, as far as a look at all of them needs it.

    `models` are `name@version` of what runs, `at` is when the device said so.
    """

    id: str
    online: bool
    seen_at: int
    enrolled_at: int
    phase: str = ""
    reason: str = ""
    detail: str = ""
    at: int = 0
    quarantined: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A filter with a name."""

    name: str
    filter: str
    about: str
    created_at: int
    created_by: str


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command to one device; `request` is the same for those that were given at once."""

    id: str
    request: str
    device: str
    seq: int
    kind: Kind
    slot: str
    issued: int
    expires: int
    created_by: str
    envelope: bytes
    outcome: CommandOutcome | None = None
    answered_at: int | None = None
    result: CommandResult | None = None

    def state(self, now: int) -> str:
        """`open`, `expired`, or how it ended."""
        if self.outcome is not None:
            return self.outcome.value
        return "open" if now <= self.expires else "expired"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to enrol; only the hash of its secret is kept.

    `listed` counts the names that come in at once (0: there is no list); with `approve`, every
    other one waits for an operator.
    """

    id: int
    created_at: int
    created_by: str
    expires_at: int
    uses_left: int
    trust_sha256: Digest
    revoked: bool
    approve: bool = False
    listed: int = 0


class RequestState(StrEnum):
    """How far a request to enrol is."""

    WAITING = "waiting"
    APPROVED = "approved"  # and the device did not ask again yet
    DENIED = "denied"
    DONE = "done"  # it has its certificate, and may ask again should the answer be lost

    @property
    def is_open(self) -> bool:
        """Whether it holds its device's name."""
        return self in (RequestState.WAITING, RequestState.APPROVED)


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """A device that asked to enrol, with a claim whose holders an operator approves."""

    device: str
    key_id: str
    claim: int
    state: RequestState
    hw: str
    board: str
    address: str
    created_at: int


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One blob of a bundle."""

    path: str
    role: Role
    size: int
    sha256: Digest
    chunk_list_sha256: Digest


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle under one signature; `signer` is empty where the fleet did not check it.

    `in_clear` says that some rollout hands it out unsealed: its files can be had by their digests.
    """

    digest: Digest
    signature_sha256: Digest
    model: str
    version: int
    size: int
    created_at: int
    created_by: str
    signer: str
    complete: bool
    in_clear: bool = False


@dataclass(frozen=True, slots=True)
class Sealing:
    """The key of a sealed bundle, and the index of its sealed blobs on the shelf."""

    bundle: Digest
    dek: Dek
    index_sha256: Digest


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout as lists show it; its plan, its machine and its members are read by themselves.

    `plan` is None where this release cannot read it.
    """

    id: str
    number: int
    created_at: int
    created_by: str
    target: Target
    to: str
    policy: Policy
    allow_downgrade: bool
    plan: Plan | None
    state: State
    cause: Cause | None
    why: str
    wave: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A device of a rollout: the order that asked it, and how far it is; so many `tries` to fetch
    it failed, and where it waits to be asked again, that is at `retry_at`."""

    rollout: str
    device: str
    wave: int
    kind: str
    outcome: Outcome
    order_seq: int | None
    phase: Phase | None
    reason: Reason | None
    detail: str
    updated_at: int
    tries: int = 0
    retry_at: int = 0


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order that was signed for a device."""

    device: str
    seq: int
    issued: int
    expires: int
    rollout: str
    asks: tuple[str, ...]
    targets: tuple[Target, ...]
    envelope: bytes


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask; only the hash of the token is kept. No `expires_at`: until revoked."""

    name: str
    role: UserRole
    token_sha256: str
    created_at: int
    created_by: str
    expires_at: int | None
    revoked: bool

    def is_good(self, now: int) -> bool:
        """Whether its token is taken at this time."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class MadeRow:
    """What was asked under an idempotency key; no `body` until it is answered, nor for secrets."""

    who: str
    key: str
    asked_sha256: str
    at: int
    status: int | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who changed what, when, from where."""

    at: int
    who: str
    what: str
    subject: str
    detail: str
    address: str
