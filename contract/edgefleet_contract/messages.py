"""Everything that crosses between fleet and device: what it says, how it is read and written.

Rules [wire-3]: unknown fields are ignored, an unknown schema is refused, the device in a payload
must be the device of its topic. Times are integer seconds since 1970 (`ts` of telemetry and of
results: milliseconds); units stand in the names. Free text goes beside an enum, never instead of
it.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias, TypeVar

from edgefleet_contract import canonical, codec
from edgefleet_contract.blocks import MAX_LENGTH, MAX_OFFSETS
from edgefleet_contract.bundle import Digest, is_digest, is_name
from edgefleet_contract.commands import CommandResult
from edgefleet_contract.drift import Window
from edgefleet_contract.envelope import open_envelope, render_envelope, seal
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import KeyRing, Signer
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy
from edgefleet_contract.reasons import Reason

TIME_TYPE: Final = "application/vnd.edgefleet.time.v1+json"
ORDER_TYPE: Final = "application/vnd.edgefleet.assignment.v1+json"
MAX_ORDER_LIFE_S: Final = 14 * 24 * 3600
MAX_RETRY_AFTER_S: Final = 300
MAX_NAMED: Final = 64
"""Features, and accelerators, that a board names."""
_SEALED_DEK: Final = re.compile(r"[A-Za-z0-9+/]{106}[AEIMQUYcgkosw048]=")
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999: calendars end there
_LONGEST: Final = {
    "agent": 64,
    "arch": 64,
    "slot": 64,
    "source": 64,
    "hw": 128,
    "hardware_class": 64,
    "cpu": 128,
    "kernel": 128,
    "boot_id": 128,
    "rollout": 160,
    "board": 256,
}
"""Characters of texts that a receiver keeps in columns of their own [wire-3.6]."""


class Phase(StrEnum):
    """Where an install on a device stands; the transitions are the agent's table."""

    IDLE = "idle"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    STAGED = "staged"
    WAIT_WINDOW = "wait_window"
    SELFTEST = "selftest"
    SHADOW = "shadow"
    CANARY = "canary"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"

    @property
    def is_final(self) -> bool:
        """Whether an install ends here."""
        return self in _FINAL


_FINAL: Final = frozenset(
    {
        Phase.COMMITTED,
        Phase.REJECTED,
        Phase.CANCELED,
        Phase.FAILED,
        Phase.ROLLED_BACK,
        Phase.ROLLBACK_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one device needs to open a sealed bundle: the DEK, sealed for it, and which blobs.

    `dek` is the base64 of `sealed.seal_dek`. HPKE gives other bytes at each sealing, so it does not
    count when targets are compared: an order that is signed again asks for nothing new. The index
    does, so a bundle in the clear and the same one sealed are two targets.
    """

    dek: str = field(compare=False, repr=False)
    index_sha256: Digest

    def __post_init__(self) -> None:
        if _SEALED_DEK.fullmatch(self.dek) is None:
            raise Malformed("a sealed key is 80 bytes in base64")
        if not is_digest(self.index_sha256):
            raise Malformed("the index's digest is not 64 lower-case hex digits")

    @property
    def sealed_dek(self) -> bytes:
        """The 80 bytes."""
        return base64.b64decode(self.dek)


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a device should run: which bundle, in which slot.

    `slot` is the name under which the model is served. `max_bytes` bounds what is downloaded, in
    plain bytes. `sealed` is given where the files are to be had sealed only [bundle-7.8].
    """

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    signature_sha256: Digest
    max_bytes: int
    sealed: Sealed | None = None

    def __post_init__(self) -> None:
        if not is_name(self.slot) or not is_name(self.model):
            raise Malformed(f"slot {self.slot[:80]!r} of model {self.model[:80]!r}")
        if not is_digest(self.bundle_sha256) or not is_digest(self.signature_sha256):
            raise Malformed(f"slot {self.slot}: a digest is not 64 lower-case hex digits")
        if self.version < 1 or self.max_bytes < 0:
            raise Malformed(f"slot {self.slot}: version {self.version}, {self.max_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Order:
    """What one device should run from now on: all of `targets`, and nothing else.

    `seq` rises with every order for the device; `sources` are base URLs of shelves, tried in turn;
    `metadata` are base URLs of TUF repositories, and `metadata_min` is the lowest version of the
    TUF timestamp with which this order may be judged.
    """

    SCHEMA: ClassVar[str] = "edgefleet.order/1"

    fleet: str
    device: str
    seq: int
    issued: int
    expires: int
    rollout: str
    targets: tuple[Target, ...]
    sources: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    metadata_min: int = 0
    allow_downgrade: bool = False
    policy: Policy = DEFAULT_POLICY
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        slots = [target.slot for target in self.targets]
        if len(set(slots)) != len(slots):
            raise Malformed("two targets for one slot")


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A model that serves: what it is, which variant was chosen on what runtime, and why."""

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    variant: str
    engine: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a board is and can run; `engines` maps a runtime's name to its version.

    Those with a default are not told by older agents: `hardware_class` (boards.py), the model of
    the processor and those of its `features` that models make use of, the size of the disk with
    the state, the kernel, and the `accelerators` that models may run on.
    """

    hw: str
    arch: str
    board: str
    os: str
    python: str
    cpus: int
    memory_bytes: int
    engines: dict[str, str]
    hardware_class: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    disk_bytes: int = 0
    kernel: str = ""
    accelerators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("features", self.features), ("accelerators", self.accelerators)):
            if len(names) > MAX_NAMED or any(len(name) > 64 for name in names):
                raise Malformed(
                    f"{what}: more than {MAX_NAMED} names, or one of over 64 characters"
                )


@dataclass(frozen=True, slots=True)
class Reported:
    """The full state of a device: retained, sent on every change and daily."""

    SCHEMA: ClassVar[str] = "edgefleet.reported/1"

    device: str
    boot_id: str
    ts: int
    agent: str
    order_seq: int
    rollout: str
    phase: Phase
    models: tuple[RunningModel, ...]
    capabilities: Capabilities
    reason: Reason | None = None
    detail: str = ""
    quarantined: tuple[Digest, ...] = ()
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class Presence:
    """Online or offline; the offline one is the last will."""

    SCHEMA: ClassVar[str] = "edgefleet.presence/1"

    device: str
    boot_id: str
    online: bool
    agent: str
    ts: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class Event:
    """A step of an install. `boot_id` and `seq` name it: the fleet counts it once.

    `measurements` are numbers taken on the way: `download_bytes`, of these `bytes_http`,
    `bytes_mqtt`, … by transport and `delta_bytes` of deltas, which were `delta_saved_bytes` fewer
    than the files that they made; `load_ms`, `p95_us`, …; those of a shadow are in [wire-3.8].
    """

    SCHEMA: ClassVar[str] = "edgefleet.event/1"

    device: str
    boot_id: str
    seq: int
    ts: int
    order_seq: int
    rollout: str
    phase: Phase
    models: tuple[str, ...]
    reason: Reason | None = None
    detail: str = ""
    measurements: dict[str, float] | None = None
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class SystemTelemetry:
    """The board: one flat object, ratios from 0 to 1, bytes, degrees Celsius, seconds."""

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.system/1"

    device: str
    ts: int
    cpu_ratio: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    load1: float
    uptime_seconds: float
    agent_rss_bytes: int
    temperature_celsius: float | None = None
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class ModelTelemetry:
    """One model since the agent started: counts rise; latencies are over the last interval, µs.

    `accelerator` is what it runs on; empty from an agent that does not say. `drift` is what was
    counted of requests since it was told last.
    """

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.model/1"

    device: str
    ts: int
    slot: str
    model: str
    version: int
    variant: str
    engine: str
    requests: int
    failures: int
    interval_requests: int
    latency_p50_us: int
    latency_p95_us: int
    worker_rss_bytes: int
    accelerator: str = ""
    drift: Window | None = None
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class SourceTelemetry:
    """One source since the agent started: counts rise [wire-11.6].

    `read` items came from it; of these `predicted` were answered, `failed` could not be, `dropped`
    were thrown away because the model or the link was too slow. `published` results reached the
    broker; `restarts` counts processes of the source that ended.
    """

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.source/1"

    device: str
    ts: int
    source: str
    kind: str
    slot: str
    read: int
    predicted: int
    dropped: int
    failed: int
    published: int
    restarts: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class ResultTensor:
    """One output of a result: numbers row by row, or texts."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a model said of what a source found [wire-11.2].

    `cause` says why it is published: `first`, `class`, `number`, `text`, `shape`, `time` or
    `every`.
    `tops` is the index of the largest score in each row, where the outputs look like scores.
    `boot_id` and `seq` name it: one that comes twice is the same. `dropped` results of the source
    were lost before it, since the agent started.
    """

    SCHEMA: ClassVar[str] = "edgefleet.result/1"

    device: str
    boot_id: str
    seq: int
    ts: int
    source: str
    slot: str
    version: str
    cause: str
    outputs: tuple[ResultTensor, ...]
    tops: tuple[int, ...] = ()
    metadata: dict[str, str] | None = None
    dropped: int = 0
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The time, by a director, for boards without a clock; `time` is seconds since 1970."""

    SCHEMA: ClassVar[str] = "edgefleet.time/1"

    fleet: str
    time: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A device asks for a certificate; its keys were made on the device and stay there.

    `seal_key` is the public half of what opens sealed bundles, 64 hex digits; older agents have
    none. It stands in the certificate request as well, so that the device's key vouches for it.
    """

    SCHEMA: ClassVar[str] = "edgefleet.enrol/1"

    secret: str
    device: str
    csr: str
    capabilities: Capabilities
    seal_key: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_name(self.device):
            raise Malformed(f"device name {self.device[:80]!r}")
        if self.seal_key and not is_digest(self.seal_key):
            raise Malformed("the seal key is not 64 lower-case hex digits")


@dataclass(frozen=True, slots=True)
class EnrolResponse:
    """The certificate, the broker, the TUF root as text, and where the rest of it is."""

    SCHEMA: ClassVar[str] = "edgefleet.enrolled/1"

    device: str
    certificate: str
    root: str
    metadata: str
    mqtt_host: str
    mqtt_port: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class EnrolPending:
    """An operator must say yes first: ask the same again in so many seconds [wire-7.6].

    `key_id` is the key that the fleet was asked for: what the operator sees, and the device prints.
    """

    SCHEMA: ClassVar[str] = "edgefleet.enrol-pending/1"

    device: str
    key_id: str
    retry_after_s: int
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_digest(self.key_id):
            raise Malformed("key_id is not 64 lower-case hex digits")
        if not 1 <= self.retry_after_s <= MAX_RETRY_AFTER_S:
            raise Malformed(f"retry_after_s {self.retry_after_s} is not 1 to {MAX_RETRY_AFTER_S}")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """An enrolled device asks for its next certificate, for the key that it enrolled with."""

    SCHEMA: ClassVar[str] = "edgefleet.renew/1"

    device: str
    csr: str
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class CertificateResponse:
    """The next certificate of a device, PEM."""

    SCHEMA: ClassVar[str] = "edgefleet.renewed/1"

    device: str
    certificate: str
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class BlobRequest:
    """A device asks for blocks of a blob [wire-9.2]: `length` bytes from each of `offsets`.

    `request` is a number of the device's choice that comes back with each block. With `base` the
    blocks are those of the delta that makes the blob from that one [wire-9.6].
    """

    SCHEMA: ClassVar[str] = "edgefleet.blob-get/1"

    device: str
    request: int
    sha256: Digest
    length: int
    offsets: tuple[int, ...]
    base: Digest | None = None
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_digest(self.sha256) or not (self.base is None or is_digest(self.base)):
            raise Malformed("blob request: a digest is not 64 lower-case hex digits")
        if not 0 <= self.request < 2**32 or not 0 < self.length <= MAX_LENGTH:
            raise Malformed(f"blob request {self.request}: blocks of {self.length} bytes")
        if not 0 < len(self.offsets) <= MAX_OFFSETS or min(self.offsets) < 0:
            raise Malformed(f"blob request {self.request}: {len(self.offsets)} offsets")


Message: TypeAlias = (
    Reported
    | Presence
    | Event
    | SystemTelemetry
    | ModelTelemetry
    | EnrolRequest
    | EnrolResponse
    | EnrolPending
    | CertificateRequest
    | CertificateResponse
    | BlobRequest
    | SourceTelemetry
    | Result
    | CommandResult
)
M = TypeVar("M", bound=Message)


_IN_MS: Final = (SystemTelemetry, ModelTelemetry, SourceTelemetry, Result)


def render(message: Message) -> bytes:
    """The JSON bytes of a message."""
    return json.dumps(codec.encode(message), separators=(",", ":"), allow_nan=False).encode()


def parse(kind: type[M], raw: bytes, *, device: str | None = None) -> M:
    """The message in bytes from the network.

    Args:
        kind: the message's class.
        raw: what arrived.
        device: the device of the topic, which the payload must name too.

    Raises:
        Malformed: not JSON, another schema, a field missing or of another type, another device, or
            something that cannot be kept and read again.
    """
    what = kind.SCHEMA
    value = canonical.parse_message(raw, what=what)
    if not isinstance(value, dict) or value.get("schema") != kind.SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else type(value).__name__
        raise Malformed(f"{what}: schema {str(found)[:60]!r}")
    message = codec.decode(kind, value, what=what, unknown=True)
    if device is not None and message.device != device:
        raise Malformed(f"{what}: payload of {message.device[:80]!r} on the topic of {device!r}")
    _check_lasting(message, what)
    return message


def _check_lasting(message: Message, what: str) -> None:
    """What is taken can be stored, shown, and read from its own rendering [wire-3.6]."""
    if len(render(message)) > canonical.MAX_BYTES:
        raise Malformed(f"{what}: written out it is over {canonical.MAX_BYTES} bytes")
    unit = 1000 if isinstance(message, _IN_MS) else 1
    ts = getattr(message, "ts", 0)
    if not 0 <= ts <= _LAST_SECOND * unit:
        raise Malformed(f"{what}: ts {ts} is no time")
    _check_texts(codec.encode(message), what)


def _check_texts(value: canonical.Json, at: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and len(item) > _LONGEST.get(key, len(item)):
                raise Malformed(f"{at}.{key}: {len(item)} characters, at most {_LONGEST[key]}")
            _check_texts(key, at)
            _check_texts(item, at)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, at)
    elif isinstance(value, str) and "\0" in value:
        raise Malformed(f"{at}: a text holds a NUL")


def seal_order(order: Order, key: Signer) -> bytes:
    """The signed envelope of an order."""
    payload = canonical.render(codec.encode(order))
    return render_envelope(seal(payload, payload_type=ORDER_TYPE, keys=(key,)))


def open_order(raw: bytes, ring: KeyRing) -> Order:
    """The order in an envelope that a director of `ring` signed. Whom it is for is not judged here.

    Raises:
        Malformed: not an order.
        Unverified: UNKNOWN_KEY or BAD_SIGNATURE.
    """
    verified = open_envelope(raw, payload_type=ORDER_TYPE, ring=ring, what="order")
    value = canonical.parse(verified.payload, what="order")
    if not isinstance(value, dict) or value.get("schema") != Order.SCHEMA:
        raise Malformed("order: unknown schema")
    return codec.decode(Order, value, what="order", unknown=True)


def seal_time(told: SignedTime, key: Signer) -> bytes:
    """The signed envelope of a time."""
    payload = canonical.render(codec.encode(told))
    return render_envelope(seal(payload, payload_type=TIME_TYPE, keys=(key,)))


def open_time(raw: bytes, ring: KeyRing) -> SignedTime:
    """The time in an envelope that a director of `ring` signed.

    Raises:
        Malformed: not a time.
        Unverified: UNKNOWN_KEY or BAD_SIGNATURE.
    """
    verified = open_envelope(raw, payload_type=TIME_TYPE, ring=ring, what="signed time")
    value = canonical.parse(verified.payload, what="signed time")
    return codec.decode(SignedTime, value, what="signed time", unknown=True)
