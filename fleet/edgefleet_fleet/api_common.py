"""What every group of routes needs: the services, and who asks.

A route declares the one permission that it needs by the type of its actor: `Reader`, `Operator`,
`Publisher` or `Admin`. Routes without one are open, and are listed in `api.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from edgefleet_fleet.api import Services
from edgefleet_fleet.roles import Permission
from edgefleet_fleet.work import Actor


def services(request: Request) -> Services:
    """The parts of the control room that this application stands for."""
    found: Services = request.app.state.services
    return found


@dataclass(frozen=True, slots=True)
class Needs:
    """A dependency: whoever asks has this permission."""

    permission: Permission

    def __call__(self, request: Request) -> Actor:
        """Who asks.

        Raises:
            Denied: nobody that may.
        """
        return services(request).access.actor(request, self.permission)


TheServices = Annotated[Services, Depends(services)]
Reader = Annotated[Actor, Depends(Needs(Permission.READ))]
Operator = Annotated[Actor, Depends(Needs(Permission.OPERATE))]
Publisher = Annotated[Actor, Depends(Needs(Permission.PUBLISH))]
Admin = Annotated[Actor, Depends(Needs(Permission.ADMINISTER))]
