"""Build and match topic names [wire-2]; nobody else formats one.

    edgefleet/v1/{fleet}/{device}/{channel}
    edgefleet/v1/{fleet}/{device}/predict/{slot}/request     and …/response, …/response/{name}
    edgefleet/v1/{fleet}/{device}/results/{source}

Names of fleets and devices hold no `/`, `+`, `#` or `$`, so a topic splits in one way only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed

PREFIX: Final = "edgefleet/v1"


class Channel(StrEnum):
    """What a topic of a device carries."""

    DESIRED = "desired"
    REPORTED = "reported"
    ONLINE = "online"
    EVENT = "event"
    TELEMETRY_SYSTEM = "telemetry/system"
    TELEMETRY_MODEL = "telemetry/model"
    TELEMETRY_SOURCE = "telemetry/source"
    ENROL_REQUEST = "enrol/request"
    ENROL_RESPONSE = "enrol/response"
    BLOB_GET = "blob/get"
    BLOB_DATA = "blob/data"
    COMMAND = "command"
    RESPONSE = "response"


TO_DEVICE: Final = (Channel.DESIRED, Channel.ENROL_RESPONSE, Channel.BLOB_DATA, Channel.COMMAND)
FROM_DEVICE: Final = tuple(channel for channel in Channel if channel not in TO_DEVICE)

PREDICT_REQUESTS: Final = "predict/+/request"
"""The filter, below a device, of what it is asked [wire-10.1]."""
PREDICT_RESPONSES: Final = "predict/+/response/#"
"""The filter of its answers; it takes in the topic without a name behind `response`."""
RESULTS: Final = "results/+"
"""The filter of what its sources found [wire-11.1]."""


@dataclass(frozen=True, slots=True)
class Address:
    """A topic, taken apart."""

    fleet: str
    device: str
    channel: Channel


def topic(fleet: str, device: str, channel: Channel) -> str:
    """The topic of a channel of one device.

    Raises:
        Malformed: a name that has no place in a topic.
    """
    for name in (fleet, device):
        if not is_name(name):
            raise Malformed(f"{name[:80]!r} cannot stand in a topic")
    return f"{PREFIX}/{fleet}/{device}/{channel}"


def every_device(fleet: str, channel: Channel) -> str:
    """The filter that matches a channel of every device of a fleet."""
    if not is_name(fleet):
        raise Malformed(f"{fleet[:80]!r} cannot stand in a topic")
    return f"{PREFIX}/{fleet}/+/{channel}"


def requests_filter(fleet: str, device: str) -> str:
    """The filter that matches what a device is asked, of any slot."""
    return f"{_below(fleet, device)}/{PREDICT_REQUESTS}"


def request_topic(fleet: str, device: str, slot: str) -> str:
    """Where a device is asked for predictions of a slot.

    Raises:
        Malformed: a name that has no place in a topic.
    """
    return _below(fleet, device, "predict", slot, "request")


def response_topic(fleet: str, device: str, slot: str, name: str = "") -> str:
    """Where a device answers: to everybody, or to who asked under a name.

    Raises:
        Malformed: a name that has no place in a topic.
    """
    return _below(fleet, device, "predict", slot, "response", *((name,) if name else ()))


def asked_slot(fleet: str, device: str, text: str) -> str | None:
    """The slot that a topic asks for, if it is one of this device's `request_topic`."""
    slot = text.removeprefix(f"{PREFIX}/{fleet}/{device}/predict/").removesuffix("/request")
    return slot if is_name(slot) and text == request_topic(fleet, device, slot) else None


def is_response_topic(fleet: str, device: str, slot: str, text: str) -> bool:
    """Whether a device may answer there what it was asked of a slot [wire-10.3]."""
    plain = response_topic(fleet, device, slot)
    return text == plain or (text.startswith(f"{plain}/") and is_name(text[len(plain) + 1 :]))


def results_topic(fleet: str, device: str, source: str) -> str:
    """Where a device publishes what a source of its found.

    Raises:
        Malformed: a name that has no place in a topic.
    """
    return _below(fleet, device, "results", source)


def trust_topic(fleet: str, document: str) -> str:
    """The retained topic of a TUF document: `root/3`, `timestamp`, `policy/fleet`, or `#`.

    Raises:
        Malformed: a fleet name that has no place in a topic.
    """
    if not is_name(fleet):
        raise Malformed(f"{fleet[:80]!r} cannot stand in a topic")
    return f"{PREFIX}/{fleet}/-/trust/{document}"


def _below(fleet: str, device: str, *parts: str) -> str:
    for name in (fleet, device, *parts):
        if not is_name(name):
            raise Malformed(f"{name[:80]!r} cannot stand in a topic")
    return "/".join((PREFIX, fleet, device, *parts))


def match(text: str) -> Address:
    """The address in a topic.

    Raises:
        Malformed: it is not one of ours.
    """
    parts = text.split("/", 4)
    if len(parts) != 5 or f"{parts[0]}/{parts[1]}" != PREFIX:
        raise Malformed(f"topic {text[:80]!r} is not ours")
    fleet, device, channel = parts[2:]
    if not is_name(fleet) or not is_name(device) or channel not in set(Channel):
        raise Malformed(f"topic {text[:80]!r} is not ours")
    return Address(fleet, device, Channel(channel))
