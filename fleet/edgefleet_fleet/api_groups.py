"""Routes: groups, and whom a filter means."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from edgefleet_fleet import api_resources, shapes
from edgefleet_fleet import device_views as shown
from edgefleet_fleet.api_common import Operator, Reader, Route, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.groups import devices_of, meant, members
from edgefleet_fleet.paging import cut
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", route_class=Route)


class GroupBody(BaseModel):
    """Whom a group means; `replace` lets it take the place of one of that name."""

    filter: str
    about: str = ""
    replace: bool = False


@router.get("/preview", tags=["groups"], responses=said(shapes.Preview))
def preview_filter(services: TheServices, _actor: Reader, to: str = "all") -> Any:
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


@router.get("/groups", tags=["groups"], responses=said(shapes.Groups))
def list_groups(services: TheServices, _actor: Reader, pages: ThePages) -> Any:
    """All groups by name, with their devices."""
    after = pages.after("groups", str)
    with services.room.store.begin() as tx:
        page = cut(tx.groups.list(), lambda row: (row.name,), limit=pages.limit, after=after)
        inside = members(tx, page.rows)
    views = [shown.group(row, found) for row, found in zip(page.rows, inside, strict=True)]
    return pages.answer("groups", page, views)


@router.get("/groups/{name}", tags=["groups"], responses=said(shapes.Group))
def show_group(name: str, services: TheServices, _actor: Reader) -> Any:
    """One group, with its devices."""
    with services.room.store.begin() as tx:
        return api_resources.group(services, tx, name)


@router.put("/groups/{name}", tags=["groups"], responses=said(shapes.Group))
def put_group(name: str, body: GroupBody, services: TheServices, actor: Operator) -> Any:
    """Make a group, or with `replace` change one."""
    services.groups.put(name, body.filter, about=body.about, replace=body.replace, actor=actor)
    return show_group(name, services, actor)


@router.delete("/groups/{name}", status_code=204, tags=["groups"])
def delete_group(name: str, services: TheServices, actor: Operator) -> Response:
    """Forget a group; rollouts that named it keep what it meant."""
    services.groups.delete(name, actor=actor)
    return Response(status_code=204)
