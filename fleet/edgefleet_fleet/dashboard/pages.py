"""The pages: overview, rollouts, bundles; devices and groups stand in `device_pages.py`.

Server-rendered, everything escaped. A page has the same size whatever the size of the fleet: what
may be long is given in pages, with the cursors of the API.

Opened like Jupyter: `/?token=…` begins a session and redirects, so the token leaves the address
bar. Whoever comes without gets a form to paste a token into; it needs no script.
A page shows what `views.py` gives and computes nothing of its own; `refresh.js` fetches it again
when the stream of changes says so. Nothing is loaded from anywhere else, and the headers say that
nothing may be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import rollout_views, views
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.dashboard import device_pages
from edgefleet_fleet.dashboard.figures import report_rows
from edgefleet_fleet.dashboard.rendering import HEADERS, HERE, environment, path_of, render
from edgefleet_fleet.glance import glance
from edgefleet_fleet.paging import page_of
from edgefleet_fleet.roles import Permission, may
from edgefleet_fleet.roster import AT_IT, Outcome
from edgefleet_fleet.services import Services

_HEARD: Final = 10
_ROLLOUTS: Final = 50
_WORDS: Final = frozenset(Outcome) - {Outcome.STARTED, Outcome.ACTIVE}  # these are in `asked`
_MAX_FORM: Final = 4096
router = APIRouter(include_in_schema=False, route_class=Route)


def install(app: FastAPI, services: Services) -> None:
    """Add the pages to the application."""
    app.include_router(router)
    app.include_router(device_pages.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.state.templates = environment(services)

    @app.middleware("http")
    async def say_it_in_html(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        path = path_of(request)
        if response.headers.get("content-type") != "application/problem+json" or path.startswith(
            ("/api/", "/blobs/")
        ):
            return response
        if "text/html" not in request.headers.get("accept", ""):
            return response
        status = response.status_code
        tried = path == "/login" or "token" in request.query_params
        page = "login.html" if status in (401, 429) else "problem.html"
        shown = render(request, page, status=status, tried=tried)
        if "retry-after" in response.headers:
            shown.headers["Retry-After"] = response.headers["retry-after"]
        return shown


@router.get("/")
def overview(request: Request, services: TheServices, token: str = "") -> Response:
    """The fleet at a glance; with a token, the way in."""
    if token:
        return _enter(request, services, token)
    services.access.actor(request, Permission.READ)
    user = services.access.user(request)
    now = int(services.room.clock())
    with services.room.store.begin() as tx:
        seen = glance(tx.devices.standings(), now=now)
        waiting = [views.request(found) for found in tx.requests.open(at=now)]
        rollouts = rollout_views.going_on(tx, now=now)
        heard = views.devices(tx, tx.devices.heard_last(_HEARD))
        shown = (digest for trouble in seen.troubles for digest in trouble.quarantined)
        names = {digest: _name_of(tx, digest) for digest in set(shown)}
    return render(
        request,
        "overview.html",
        seen=seen,
        names=names,
        waiting=waiting,
        may_operate=may(user.role, Permission.OPERATE),
        rollouts=rollouts,
        heard=heard,
    )


def _name_of(tx: Transaction, digest: str) -> str:
    """What people call a bundle; of one that is unknown here the beginning of its digest."""
    found = tx.bundles.get(digest)
    return digest[:12] if found is None else f"{found.model}@{found.version}"


@router.get("/rollouts")
def rollouts_page(
    request: Request, services: TheServices, _actor: Reader, pages: ThePages
) -> Response:
    """All rollouts, newest first, a page at a time."""
    with services.room.store.begin() as tx:
        rows = tx.rollouts.page(limit=_ROLLOUTS + 1, before=pages.before("rollouts"))
        page = page_of(rows, lambda row: (row.number,), limit=_ROLLOUTS)
        shown = rollout_views.rollouts(tx, page.rows)
    return render(request, "rollouts.html", rollouts=shown, next=page.cursor("rollouts"))


@router.get("/rollouts/{rollout}")
def rollout_page(
    rollout: str,
    request: Request,
    services: TheServices,
    _actor: Reader,
    pages: ThePages,
    outcome: Outcome | None = None,
) -> Response:
    """One rollout: what a person may do now, its waves, refusals by reason, a page of its devices,
    or of those with one outcome."""
    may_operate = may(services.access.user(request).role, Permission.OPERATE)
    after = pages.after("members", int, str)
    # `asked` is what every device that was asked is shown as until it ends [fleet-api-5.3].
    wanted = () if outcome is None else AT_IT if outcome is Outcome.ASKED else (outcome,)
    with services.room.store.begin() as tx:
        rows = tx.members.page(rollout, limit=pages.limit + 1, after=after, outcomes=wanted)
        page = page_of(rows, lambda row: (row.wave, row.device), limit=pages.limit)
        view = rollout_views.rollout(tx, rollout, now=int(services.room.clock()), part=page.rows)
        waves = tx.members.by_wave(rollout)
    return render(
        request,
        "rollout.html",
        rollout=view,
        waves=[waves.get(wave, (0, 0)) for wave in range(view["wave_count"])],
        outcome=outcome and outcome.value,
        outcomes=[
            (word, count) for word, count in view["counts"].items() if count and word in _WORDS
        ],
        next=page.cursor("members"),
        may_operate=may_operate,
    )


@router.get("/bundles")
def bundles_page(request: Request, services: TheServices, _actor: Reader) -> Response:
    """The bundles on the shelf, with the figures of their reports."""
    with services.room.store.begin() as tx:
        found = []
        for bundle in tx.bundles.list():
            detail = views.bundle_detail(tx, services.room.shelf, bundle.digest)
            found.append(views.bundle(bundle) | {"figures": report_rows(detail["report"])})
        held = services.publications.current(tx)
        trust = views.trust(services.publications, tx) if held else None
    return render(request, "bundles.html", bundles=found, trust=trust)


@router.get("/bundles/{bundle}")
def bundle_page(bundle: str, request: Request, services: TheServices, _actor: Reader) -> Response:
    """One bundle: its model card, where it comes from, its files."""
    with services.room.store.begin() as tx:
        view = views.bundle_detail(tx, services.room.shelf, bundle)
    return render(request, "bundle.html", bundle=view)


@router.get("/login")
def login_page(request: Request) -> Response:
    """A form for a token."""
    return render(request, "login.html", tried=False)


@router.post("/login")
async def login(request: Request, services: TheServices) -> Response:
    """What the form sends; a wrong token is said in the form."""
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > _MAX_FORM:
            raise Malformed("the form is too large")
    token = parse_qs(raw.decode("utf-8", "replace")).get("token", [""])[0].strip()
    return await services.room.threads.ask(_enter, request, services, token)


@router.post("/logout")
def logout(request: Request, services: TheServices) -> Response:
    """End the session."""
    response = RedirectResponse(f"{services.room.prefix}/login", 303, headers=HEADERS)
    services.access.leave(request, response)
    return response


def _enter(request: Request, services: Services, token: str) -> Response:
    response = RedirectResponse(f"{services.room.prefix}/", 303, headers=HEADERS)
    services.access.enter(request, token, response)
    return response
