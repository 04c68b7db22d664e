"""The parts of one control room: what routes, pages and metrics call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

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
