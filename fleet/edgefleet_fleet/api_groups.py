"""Routes: groups, and whom a filter means."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from edgefleet_fleet import device_views as shown
from edgefleet_fleet.api_common import Operator, Reader, TheServices
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.groups import devices_of, meant

router = APIRouter(prefix="/api/v1")


class GroupBody(BaseModel):
    """Whom a group means; `replace` lets it take the place of one of that name."""

    filter: str
    about: str = ""
    replace: bool = False


@router.get("/preview", tags=["groups"])
def preview(services: TheServices, _actor: Reader, to: str = "all") -> Any:
    """The devices in service that a filter means."""
    with services.room.store.begin() as tx:
        wanted = meant(tx, to)
        found = devices_of(tx, wanted)
    return {
        "filter": str(wanted),
        "count": len(found),
        "devices": [
            {
                "id": device.id,
                "online": device.online,
                "hw": device.hw,
                "hardware_class": shown.hardware_class(device),
                "tags": device.tags,
            }
            for device in found
        ],
    }


@router.get("/groups", tags=["groups"])
def list_groups(services: TheServices, _actor: Reader) -> Any:
    """All groups by name, with their devices."""
    with services.room.store.begin() as tx:
        return {
            "groups": [
                shown.group(row, devices_of(tx, meant(tx, row.filter))) for row in tx.groups.list()
            ]
        }


@router.get("/groups/{name}", tags=["groups"])
def show_group(name: str, services: TheServices, _actor: Reader) -> Any:
    """One group, with its devices."""
    with services.room.store.begin() as tx:
        row = tx.groups.get(name)
        if row is None:
            raise NotFound(f"there is no group {name!r}", hint="fleet groups list")
        return shown.group(row, devices_of(tx, meant(tx, row.filter)))


@router.put("/groups/{name}", tags=["groups"])
def put_group(name: str, body: GroupBody, services: TheServices, actor: Operator) -> Any:
    """Make a group, or with `replace` change one."""
    services.groups.put(name, body.filter, about=body.about, replace=body.replace, actor=actor)
    return show_group(name, services, actor)


@router.delete("/groups/{name}", status_code=204, tags=["groups"])
def delete_group(name: str, services: TheServices, actor: Operator) -> Response:
    """Forget a group; rollouts that named it keep what it meant."""
    services.groups.delete(name, actor=actor)
    return Response(status_code=204)
