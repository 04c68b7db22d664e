"""Routes: the fleets of a site. Who may administer the site's own fleet adds and removes others.

That is all that the site's admin may: each fleet has users of its own, and looks for nobody else.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from edgefleet_fleet import shapes
from edgefleet_fleet.api_common import Admin, Route, TheServices
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.services import TheSite
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", tags=["fleets"], route_class=Route)


class FleetBody(BaseModel):
    """What the fleet is called, and the port of its broker (left out: one that is free)."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    mqtt_port: int | None = Field(default=None, ge=1, le=65535)


@router.get("/fleets", responses=said(shapes.Fleets))
async def list_fleets(services: TheServices, _actor: Admin) -> Any:
    """The fleets besides the site's own, and how each is."""
    return {"fleets": _site(services).views()}


@router.post("/fleets", status_code=201, responses=said(shapes.NewFleet, 201))
async def add_fleet(body: FleetBody, services: TheServices, actor: Admin) -> Any:
    """Make a fleet and start it; the answer alone has the token of its first admin."""
    view, token = await _site(services).add(body.name, mqtt_port=body.mqtt_port, actor=actor)
    return view | {"token": token}


@router.delete("/fleets/{name}", status_code=204)
async def remove_fleet(name: str, services: TheServices, actor: Admin) -> Response:
    """Stop a fleet; its data is set aside, not deleted."""
    await _site(services).remove(name, actor=actor)
    return Response(status_code=204)


def _site(services: TheServices) -> TheSite:
    if services.site is None:
        raise NotFound("a fleet of a site has no fleets", hint="ask the site: its URL has no path")
    return services.site
