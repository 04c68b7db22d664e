"""The HTTP service: puts the routes together. What each route does stands in `api_*.py`.

Every route declares the permission that it needs (`api_common.py`), or is named in `OPEN`: blobs
and deltas (over TLS they ask for a device's certificate or a user; without it, a digest is the
right to read it), TUF documents, health, metrics, enrolment (a claim is the right), renewal (the
key that enrolled is), the ways in and out, and what the pages look like. A test holds routes to
that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi import FastAPI

from edgefleet_contract import __version__
from edgefleet_fleet import problems
from edgefleet_fleet.access import Access
from edgefleet_fleet.blob_server import BlobServer
from edgefleet_fleet.commands import Commands
from edgefleet_fleet.deltas import Deltas
from edgefleet_fleet.deployments import Deployments
from edgefleet_fleet.enrolment import Enrolment
from edgefleet_fleet.groups import Groups
from edgefleet_fleet.ingest import Ingest
from edgefleet_fleet.leftovers import Leftovers
from edgefleet_fleet.library import Library
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.uploads import Uploads
from edgefleet_fleet.users import Users
from edgefleet_fleet.webhook_sender import Webhooks
from edgefleet_fleet.work import Actor, Room

OPEN: Final = frozenset(
    {
        "/",  # the way in of `?token=`; checks by itself
        "/api/v1/enrol",
        "/api/v1/login",
        "/api/v1/logout",
        "/api/v1/renew",
        "/blobs/{sha256}",
        "/blobs/{sha256}/delta/{old}",
        "/healthz",
        "/login",
        "/logout",
        "/metrics",
        "/openapi.json",
        "/static",
        "/tuf/{name:path}",
    }
)


class TheSite(Protocol):
    """The other fleets of the service, for the site's own (`site.py`)."""

    def counts(self) -> dict[str, int]:
        """How many are in which state."""
        ...

    def views(self) -> list[dict[str, Any]]:
        """How each is."""
        ...

    async def add(
        self, name: str, *, mqtt_port: int | None, actor: Actor
    ) -> tuple[dict[str, Any], str]:
        """Make one; how it is, and the token of its first admin."""
        ...

    async def remove(self, name: str, *, actor: Actor) -> str:
        """Take one out of service; where its data lies."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one control room, for routes to call."""

    room: Room
    access: Access
    publications: Publications
    library: Library
    enrolment: Enrolment
    deployments: Deployments
    ingest: Ingest
    deltas: Deltas
    blobs: BlobServer
    webhooks: Webhooks
    uploads: Uploads
    groups: Groups
    commands: Commands
    leftovers: Leftovers
    site: TheSite | None = None


def services_of(room: Room, publications: Publications) -> Services:
    """The parts on one room."""
    deployments = Deployments(room, publications)
    commands = Commands(room)
    leftovers = Leftovers(room)
    library, deltas = Library(room, publications, leftovers), Deltas(room, room.keys.deltas)
    return Services(
        room,
        Access(room, Users(room)),
        publications,
        library,
        Enrolment(room, deployments, publications),
        deployments,
        Ingest(room, deployments, commands),
        deltas,
        BlobServer(library, deltas, fleet=room.fleet, threads=room.threads),
        Webhooks(room),
        Uploads(room, room.keys.uploads),
        Groups(room, deployments),
        commands,
        leftovers,
    )


def create_app(services: Services) -> FastAPI:
    """The application of one control room."""
    from edgefleet_fleet import (
        api_bundles,
        api_commands,
        api_devices,
        api_doctor,
        api_export,
        api_fleets,
        api_groups,
        api_public,
        api_rollouts,
        api_stream,
        api_trust,
        api_users,
        api_webhooks,
        openapi,
    )
    from edgefleet_fleet.api_answers import Answers
    from edgefleet_fleet.dashboard import pages

    app = FastAPI(
        title="edgefleet control room",
        version=__version__,
        description="Who gets which model, when, and when to stop.",
        docs_url=None,  # its page loads scripts from a CDN; /openapi.json is served
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.services = services
    app.add_middleware(Answers, store=services.room.store, threads=services.room.threads)
    problems.install(app)
    openapi.install(app, services)
    for module in (
        api_public,
        api_users,
        api_trust,
        api_devices,
        api_doctor,
        api_export,
        api_groups,
        api_commands,
        api_bundles,
        api_rollouts,
        api_stream,
        api_webhooks,
        api_fleets,
    ):
        app.include_router(module.router)
    pages.install(app, services)
    return app
