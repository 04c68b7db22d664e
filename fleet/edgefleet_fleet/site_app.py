"""The HTTP of a site: hands each request to the fleet whose path it begins with.

A request that the end of the service cuts off is answered 503 where it was not answered yet
[fleet-api-2.4].

`/fleets/NAME/…` is fleet NAME's, everything else the site's own. A fleet's application is told
where it stands (ASGI's `root_path`) and knows of no other. A fleet that does not run answers 503.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefleet_fleet.problems import problem
from edgefleet_fleet.site import WHOSE, Fleet, Site
from edgefleet_fleet.site_folder import FOLDER

_BEGIN = f"/{FOLDER}/"


class SiteApp:
    """See ASGI's specification for `__call__`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or whatever else a server has to say."""
        path = str(scope.get("path", ""))
        if not path.startswith(_BEGIN):
            await self._hand_on(self._site.own, scope, receive, send)
            return
        name, slash, _ = path.removeprefix(_BEGIN).partition("/")
        fleet = self._site.others.get(name)
        if fleet is None:
            answer: Response = problem(HTTPStatus.NOT_FOUND, f"there is no fleet {name[:80]!r}")
            await answer(scope, receive, send)
        elif not slash:
            await RedirectResponse(f"{fleet.prefix}/")(scope, receive, send)
        else:
            WHOSE.set(name)
            root = str(scope.get("root_path", "")) + fleet.prefix
            await self._hand_on(fleet, {**scope, "root_path": root}, receive, send)

    async def _hand_on(self, fleet: Fleet, scope: Scope, receive: Receive, send: Send) -> None:
        if fleet.app is not None:
            await _unless_cut_off(fleet.app, scope, receive, send)
            return
        what = f"fleet {fleet.name!r}" if fleet.name else "the site's own fleet"
        answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{what} does not run at the moment")
        answer.headers["Retry-After"] = "15"
        await answer(scope, receive, send)


async def _unless_cut_off(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    begun = False

    async def noting(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await app(scope, receive, noting)
    except asyncio.CancelledError:  # by the server, which waited for it before
        if begun:
            raise
        what, hint = "the service is being stopped", "it may be done or not: look, or ask again"
        answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, what, hint=hint)
        answer.headers.update({"Retry-After": "15", "Connection": "close"})
        await answer(scope, receive, send)
