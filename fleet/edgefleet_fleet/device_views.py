"""What the API and the pages show of a device beside its installs: what it is, what it is asked."""

from __future__ import annotations

from typing import Any

from edgefleet_contract import codec
from edgefleet_contract.boards import class_of
from edgefleet_fleet.records import CommandRow, Device, GroupRow

View = dict[str, Any]


def hardware_class(device: Device) -> str:
    """The hardware class that a device says, or that its board's name says."""
    able = device.reported.capabilities if device.reported is not None else None
    told = able.hardware_class if able is not None else ""
    return told or class_of(device.board, device.hw)


def inventory(device: Device) -> View:
    """What a device is; empty until it reported."""
    reported = device.reported
    if reported is None:
        return {}
    able = codec.encode(reported.capabilities)
    assert isinstance(able, dict)
    return {
        **able,
        "hardware_class": hardware_class(device),
        "agent": reported.agent,
        "reported_at": reported.ts,
    }


def group(row: GroupRow, devices: tuple[Device, ...] | None = None) -> View:
    """A group; with its devices where they are known."""
    view: View = {
        "name": row.name,
        "filter": row.filter,
        "about": row.about,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
    if devices is not None:
        view |= {"count": len(devices), "devices": [device.id for device in devices]}
    return view


def command(row: CommandRow, *, now: int, device: Device | None, with_data: bool) -> View:
    """A command; what it brought back only where that may be seen."""
    result = row.result
    view: View = {
        "id": row.id,
        "request": row.request,
        "device": row.device,
        "number": row.seq,
        "kind": row.kind.value,
        "slot": row.slot,
        "state": row.state(now),
        "issued": row.issued,
        "expires": row.expires,
        "created_by": row.created_by,
        "answered_at": row.answered_at,
        "detail": result.detail if result is not None else "",
        "online": device.online if device is not None else False,
        "seen_at": device.seen_at if device is not None else 0,
    }
    if with_data:
        view["data"] = (result.data or {}) if result is not None else {}
    return view
