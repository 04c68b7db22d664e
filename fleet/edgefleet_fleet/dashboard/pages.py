"""The pages: overview, devices, rollouts, bundles. Server-rendered, everything escaped.

Opened like Jupyter: `/?token=…` begins a session and redirects, so the token leaves the address
bar. Whoever comes without gets a form to paste a token into; it needs no script.
A page shows what `views.py` gives and computes nothing of its own; `refresh.js` fetches it again
when the stream of changes says so. Nothing is loaded from anywhere else, and the headers say that
nothing may be.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import jinja2
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from edgefleet_contract import __version__
from edgefleet_contract.errors import Malformed
from edgefleet_fleet import device_views, rollout_views, views
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.dashboard.figures import report_rows
from edgefleet_fleet.dashboard.sparkline import sparkline
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.happenings import HistoryKind
from edgefleet_fleet.roles import Permission, may
from edgefleet_fleet.services import Services

_HERE: Final = Path(__file__).parent
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SAMPLES: Final = 120
_COMMANDS: Final = 20
_MAX_FORM: Final = 4096
router = APIRouter(include_in_schema=False, route_class=Route)


def install(app: FastAPI, services: Services) -> None:
    """Add the pages to the application."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.state.templates = _environment(services)

    @app.middleware("http")
    async def say_it_in_html(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        path = _path(request)
        if response.headers.get("content-type") != "application/problem+json" or path.startswith(
            ("/api/", "/blobs/")
        ):
            return response
        if "text/html" not in request.headers.get("accept", ""):
            return response
        status = response.status_code
        tried = path == "/login" or "token" in request.query_params
        page = "login.html" if status in (401, 429) else "problem.html"
        shown = _render(request, page, status=status, tried=tried)
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
    with services.room.store.begin() as tx:
        devices, rollouts = views.devices(tx), rollout_views.rollouts(tx)
        waiting = [views.request(r) for r in tx.requests.open(at=int(services.room.clock()))]
        current = next((r for r in rollouts if r["state"] in ("running", "paused")), None)
        current = current or (rollouts[0] if rollouts else None)
        shown = (
            rollout_views.rollout(tx, current["id"], now=int(services.room.clock()))
            if current
            else None
        )
    running: Counter[str] = Counter()
    for device in devices:
        for model in device["models"]:
            running[f"{model['model']} @{model['version']}"] += 1
    return _render(
        request,
        "overview.html",
        devices=devices,
        waiting=waiting,
        may_operate=may(user.role, Permission.OPERATE),
        online=sum(device["online"] for device in devices),
        running=sorted(running.items()),
        rollout=shown,
    )


@router.get("/devices/{device}")
def device_page(
    device: str,
    request: Request,
    services: TheServices,
    _actor: Reader,
    kind: HistoryKind | None = None,
) -> Response:
    """One device: what it runs and should run, its telemetry, its history, of one kind if named."""
    with services.room.store.begin() as tx:
        view = views.device(tx, device, kinds=(kind,) if kind is not None else ())
        series = views.telemetry(tx, device, limit=_SAMPLES)
        now, known = int(services.room.clock()), tx.devices.get(device)
        asked = [
            device_views.command(row, now=now, device=known, with_data=False)
            for row in tx.commands.of_device(device, limit=_COMMANDS)
        ]
    shown: dict[str, Any] = {"device": view, "charts": _charts(series), "commands": asked}
    kinds = [found.value for found in HistoryKind]
    return _render(request, "device.html", **shown, kind=kind and kind.value, kinds=kinds)


@router.get("/rollouts")
def rollouts_page(request: Request, services: TheServices, _actor: Reader) -> Response:
    """All rollouts."""
    with services.room.store.begin() as tx:
        return _render(request, "rollouts.html", rollouts=rollout_views.rollouts(tx))


@router.get("/rollouts/{rollout}")
def rollout_page(rollout: str, request: Request, services: TheServices, _actor: Reader) -> Response:
    """One rollout: what a person may do now, its waves, its devices, refusals by reason."""
    may_operate = may(services.access.user(request).role, Permission.OPERATE)
    with services.room.store.begin() as tx:
        view = rollout_views.rollout(tx, rollout, now=int(services.room.clock()))
    return _render(request, "rollout.html", rollout=view, may_operate=may_operate)


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
    return _render(request, "bundles.html", bundles=found, trust=trust)


@router.get("/bundles/{bundle}")
def bundle_page(bundle: str, request: Request, services: TheServices, _actor: Reader) -> Response:
    """One bundle: its model card, where it comes from, its files."""
    with services.room.store.begin() as tx:
        view = views.bundle_detail(tx, services.room.shelf, bundle)
    return _render(request, "bundle.html", bundle=view)


@router.get("/login")
def login_page(request: Request) -> Response:
    """A form for a token."""
    return _render(request, "login.html", tried=False)


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
    response = RedirectResponse(f"{services.room.prefix}/login", 303, headers=_HEADERS)
    services.access.leave(request, response)
    return response


def _enter(request: Request, services: Services, token: str) -> Response:
    response = RedirectResponse(f"{services.room.prefix}/", 303, headers=_HEADERS)
    services.access.enter(request, token, response)
    return response


def _render(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    templates: jinja2.Environment = request.app.state.templates
    try:
        template = templates.get_template(name)
    except jinja2.TemplateNotFound:
        raise NotFound(f"there is no page {name}") from None
    text = template.render(path=_path(request), status=status, now=int(time.time()), **values)
    return HTMLResponse(text, status, headers=_HEADERS)


def _path(request: Request) -> str:
    """The path below where the fleet's pages begin."""
    return request.url.path.removeprefix(str(request.scope.get("root_path", "")))


def _environment(services: Services) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"fleet": services.room.fleet, "version": __version__}
    environment.globals["root"] = services.room.prefix
    environment.filters |= {"size": _size, "ago": _ago, "stamp": _stamp, "percent": _percent}
    return environment


def _charts(series: rollout_views.View) -> list[dict[str, Any]]:
    system = series["system"]
    charts = []
    for label, key, low, show in (
        ("CPU", "cpu_ratio", 0.0, _percent),
        ("Memory", "memory_used_bytes", 0.0, _size),
        ("Temperature", "temperature_celsius", None, lambda value: f"{value:.1f} °C"),
        ("Load", "load1", 0.0, lambda value: f"{value:.2f}"),
    ):
        values = [sample[key] for sample in system if sample.get(key) is not None]
        if values:
            svg = sparkline(values, label=label, low=low)
            charts.append({"label": label, "value": show(values[-1]), "svg": svg})
    for slot, samples in series["models"].items():
        for label, key, show in (
            (f"{slot}: p95", "latency_p95_us", lambda value: f"{value / 1000:.2f} ms"),
            (f"{slot}: requests an interval", "interval_requests", lambda value: f"{value:,}"),
        ):
            # An interval without requests has no latency.
            busy = [s for s in samples if s["interval_requests"] or key != "latency_p95_us"]
            values = [sample[key] for sample in busy]
            if values:
                svg = sparkline(values, label=label, low=0.0)
                charts.append({"label": label, "value": show(values[-1]), "svg": svg})
    return charts


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes all")


def _percent(ratio: float) -> str:
    return f"{ratio:.0%}"


def _ago(seconds: int) -> str:
    if not seconds:
        return "never"
    past = max(0, int(time.time()) - seconds)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if past < limit:
            return f"{past // unit} {name} ago"
    return f"{past // 86400} d ago"


def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
