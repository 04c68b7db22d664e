"""What every group of routes needs: the services, and who asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from edgefleet_fleet.api import Services
from edgefleet_fleet.work import Actor


def services(request: Request) -> Services:
    """The parts of the control room that this application stands for."""
    found: Services = request.app.state.services
    return found


def actor(request: Request) -> Actor:
    """Who asks.

    Raises:
        Denied: nobody that may.
    """
    return services(request).access.actor(request)


TheServices = Annotated[Services, Depends(services)]
TheActor = Annotated[Actor, Depends(actor)]
