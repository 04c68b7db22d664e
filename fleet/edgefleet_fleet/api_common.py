"""What every group of routes needs: the services, and who asks.

A route declares the one permission that it needs by the type of its actor: `Reader`, `Operator`,
`Publisher` or `Admin`. Routes without one are in `OPEN`. The actor of a
change brings the guard with it that `If-Match` and `Idempotency-Key` ask for (`guards.py`): it is
passed where the change is made, so a route has nothing to do for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute

from edgefleet_fleet.api_resources import view_of
from edgefleet_fleet.errors import Changed, TooMany
from edgefleet_fleet.guards import Guard, Once, Replayed, Unchanged, fingerprint, parse_key
from edgefleet_fleet.roles import Permission
from edgefleet_fleet.services import Services
from edgefleet_fleet.threads import MINE
from edgefleet_fleet.work import Actor

_HIGHEST: Final = 2**63 - 1
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
"""Routes that need no permission: blobs and deltas (over TLS they ask for a device's certificate or
a user; without it, a digest is the right to read it), TUF documents, health, metrics, enrolment (a
claim is the right), renewal (the key that enrolled is), the ways in and out, and what the pages
look like."""
KEYED: Final = {
    "/api/v1/bundles": False,
    "/api/v1/claims": True,
    "/api/v1/commands": False,
    "/api/v1/devices/{device}/retry": False,
    "/api/v1/rollouts": False,
    "/api/v1/users": True,
    "/api/v1/webhooks": True,
}
"""The `POST`s that make something and heed idempotency keys; whether the answer has a secret."""


def services(request: Request) -> Services:
    """The parts of the control room that this application stands for."""
    found: Services = request.app.state.services
    return found


async def _services(request: Request) -> Services:
    """`services`; what is async needs no thread."""
    return services(request)


class Route(APIRoute):
    """A route whose function, where it is not async, runs on a thread of its fleet."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, _on_threads(endpoint), **more)


def _on_threads(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @functools.wraps(endpoint)
    async def run(*args: Any, **more: Any) -> Any:
        return await MINE.get().ask(endpoint, *args, **more)

    return run


@dataclass(frozen=True, slots=True)
class Needs:
    """A dependency: whoever asks has this permission, and calls left."""

    permission: Permission

    async def __call__(self, request: Request) -> Actor:
        """Who asks.

        Raises:
            Denied: nobody that may.
            TooMany: too many wrong tokens came from there, or too many calls of this user.
            Replayed: it was answered before.
        """
        ask = MINE.get().ask
        actor = await ask(self._allowed, request)
        if request.method in ("GET", "HEAD"):
            return actor
        guard = Guard(_unchanged(request), await _once(request, actor))
        if guard.unchanged is not None:  # here too: not every request comes to a change
            await ask(_check, services(request), guard.unchanged)
        if guard.once is not None:
            found = services(request)
            made = await ask(guard.once.found, found.room.store, int(found.room.clock()))
            if made is not None:
                raise Replayed(made)
            request.state.once = guard.once
        return replace(actor, guard=guard)

    def _allowed(self, request: Request) -> Actor:
        access = services(request).access
        actor = access.actor(request, self.permission)
        standing = access.count(actor.who)
        request.state.standing = standing
        if standing is not None and standing.wait_s:
            raise TooMany(standing.wait_s, what="calls by this user")
        return actor


def _check(found: Services, unchanged: Unchanged) -> None:
    with found.room.store.begin() as tx:
        unchanged.check(tx)


def _unchanged(request: Request) -> Unchanged | None:
    header = request.headers.get("if-match")
    if header is None:
        return None
    view = view_of(services(request), request.scope["route"].path, request.path_params)
    if view is None:
        raise Changed("this has no state that If-Match could name")
    return Unchanged(header, view)


async def _once(request: Request, actor: Actor) -> Once | None:
    header = request.headers.get("idempotency-key")
    if header is None or request.method != "POST" or request.scope["route"].path not in KEYED:
        return None
    asked = fingerprint("POST", request.url.path, request.url.query, await request.body())
    return Once(actor.who, parse_key(header), asked)


TheServices = Annotated[Services, Depends(_services)]
Reader = Annotated[Actor, Depends(Needs(Permission.READ))]
Operator = Annotated[Actor, Depends(Needs(Permission.OPERATE))]
Publisher = Annotated[Actor, Depends(Needs(Permission.PUBLISH))]
Admin = Annotated[Actor, Depends(Needs(Permission.ADMINISTER))]

Since = Annotated[int, Query(ge=0, le=_HIGHEST, description="Seconds since 1970: not older.")]
Before = Annotated[int | None, Query(ge=0, le=_HIGHEST, description="Only below this number.")]
Number = Annotated[int, Path(ge=0, le=_HIGHEST)]


def lower(one: int | None, other: int | None) -> int | None:
    """The lower of two bounds, of which each may be missing."""
    known = [bound for bound in (one, other) if bound is not None]
    return min(known) if known else None
