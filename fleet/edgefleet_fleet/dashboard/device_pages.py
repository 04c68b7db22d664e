"""The pages of devices and of groups: all, those that a filter means, one."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import device_views, rollout_views, views
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.dashboard.rendering import percent, render, size
from edgefleet_fleet.dashboard.sparkline import sparkline
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.groups import meant, members, page_of
from edgefleet_fleet.happenings import HistoryKind
from edgefleet_fleet.rollout_views import View

_SAMPLES: Final = 120
_COMMANDS: Final = 20
_ROLLOUTS: Final = 200
_IN_GROUP: Final = 20
router = APIRouter(include_in_schema=False, route_class=Route)


@router.get("/devices")
def devices_page(
    request: Request, services: TheServices, _actor: Reader, pages: ThePages, to: str = "all"
) -> Response:
    """The devices that a filter means, a page at a time; a filter that is none is said there."""
    after = pages.after("devices", str)
    behind, to = str(after[0]) if after else "", to.strip() or "all"
    shown: dict[str, Any] = {"to": to, "wrong": None, "count": 0, "devices": [], "next": None}
    try:
        with services.room.store.begin() as tx:
            page, count = page_of(tx, meant(tx, to), limit=pages.limit, after=behind)
            rows = views.devices(tx, page.rows)
            shown |= {"count": count, "devices": rows, "next": page.cursor("devices")}
    except Malformed as error:
        return render(request, "devices.html", status=422, **shown | {"wrong": error})
    return render(request, "devices.html", **shown)


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
    return render(request, "device.html", **shown, kind=kind and kind.value, kinds=kinds)


@router.get("/groups")
def groups_page(request: Request, services: TheServices, _actor: Reader) -> Response:
    """The groups, and how many devices are in each now."""
    with services.room.store.begin() as tx:
        rows = tx.groups.list()
        inside = members(tx, rows)
    shown = [device_views.group(*both) for both in zip(rows, inside, strict=True)]
    return render(request, "groups.html", groups=shown)


@router.get("/groups/{name}")
def group_page(name: str, request: Request, services: TheServices, _actor: Reader) -> Response:
    """One group: whom it means now, and the newest rollouts to just that."""
    with services.room.store.begin() as tx:
        row = tx.groups.get(name)
        if row is None:
            raise NotFound(f"there is no group {name!r}", hint="fleet groups list")
        (inside,) = members(tx, [row])
        wanted = str(meant(tx, row.filter))
        to_it = [found for found in tx.rollouts.list(limit=_ROLLOUTS) if found.to == wanted]
        rollouts = rollout_views.rollouts(tx, to_it)
        devices = views.devices(tx, inside[:_IN_GROUP])
    return render(
        request,
        "group.html",
        group=device_views.group(row, inside),
        online=sum(device.online for device in inside),
        classes=Counter(device_views.hardware_class(device) for device in inside),
        devices=devices,
        rollouts=rollouts,
    )


def _charts(series: View) -> list[dict[str, Any]]:
    system = series["system"]
    charts = []
    for label, key, low, show in (
        ("CPU", "cpu_ratio", 0.0, percent),
        ("Memory", "memory_used_bytes", 0.0, size),
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
