"""Build and match topic names [wire-2]; nobody else formats one.

    edgefleet/v1/{fleet}/{device}/{channel}

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
    ENROL_REQUEST = "enrol/request"
    ENROL_RESPONSE = "enrol/response"
    BLOB_GET = "blob/get"
    BLOB_DATA = "blob/data"


TO_DEVICE: Final = (Channel.DESIRED, Channel.ENROL_RESPONSE, Channel.BLOB_DATA)
FROM_DEVICE: Final = tuple(channel for channel in Channel if channel not in TO_DEVICE)


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


def trust_topic(fleet: str, document: str) -> str:
    """The retained topic of a TUF document: `root/3`, `timestamp`, `policy/fleet`, or `#`.

    Raises:
        Malformed: a fleet name that has no place in a topic.
    """
    if not is_name(fleet):
        raise Malformed(f"{fleet[:80]!r} cannot stand in a topic")
    return f"{PREFIX}/{fleet}/-/trust/{document}"


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
