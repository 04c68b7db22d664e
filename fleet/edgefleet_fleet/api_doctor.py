"""Routes: the control room looks at itself [fleet-api-14.1]."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Request

from edgefleet_contract import __version__
from edgefleet_fleet import doctor_facts, shapes
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", tags=["doctor"], route_class=Route)


@router.get("/doctor", responses=said(shapes.Doctor))
def look(request: Request, services: TheServices, _actor: Reader) -> Any:
    """What is well, what is not, and what to do; and who asks."""
    user = services.access.user(request)
    return {
        "fleet": services.room.fleet,
        "version": __version__,
        "who": {"name": user.name, "role": user.role},
        "findings": [dataclasses.asdict(found) for found in doctor_facts.look(services)],
    }
