"""How what crosses between fleet and device is written and read: messages, and sealed orders.

What they say stands by noun in `orders`, `reported`, `telemetry`, `results`, `enrolment`, `blocks`
and `commands`. Rules [wire-3]: unknown fields are ignored, an unknown schema is refused, the device
in a payload must be the device of its topic. Times are integer seconds since 1970 (`ts` of
telemetry and of results: milliseconds); units stand in the names. Free text goes beside an enum,
never instead of it.
"""

from __future__ import annotations

import json
from typing import Final, TypeAlias, TypeVar

from edgefleet_contract import canonical, codec
from edgefleet_contract.blocks import BlobRequest
from edgefleet_contract.commands import CommandResult
from edgefleet_contract.enrolment import (
    CertificateRequest,
    CertificateResponse,
    EnrolPending,
    EnrolRequest,
    EnrolResponse,
)
from edgefleet_contract.envelope import open_envelope, render_envelope, seal
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import KeyRing, Signer
from edgefleet_contract.orders import Order, SignedTime
from edgefleet_contract.reported import Event, Presence, Reported
from edgefleet_contract.results import Result
from edgefleet_contract.telemetry import ModelTelemetry, SourceTelemetry, SystemTelemetry

TIME_TYPE: Final = "application/vnd.edgefleet.time.v1+json"
ORDER_TYPE: Final = "application/vnd.edgefleet.assignment.v1+json"
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
