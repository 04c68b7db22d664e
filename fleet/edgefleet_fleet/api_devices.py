"""Routes: enrolment, claims, who waits for approval, devices, the audit trail."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from edgefleet_contract import codec
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.enrolment import (
    CertificateRequest,
    CertificateResponse,
    EnrolPending,
    EnrolRequest,
    EnrolResponse,
)
from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import parse
from edgefleet_fleet import api_resources, rollout_views, shapes, shapes_models, views
from edgefleet_fleet.access import address_of
from edgefleet_fleet.admission import MAX_LISTED, Listed
from edgefleet_fleet.api_common import (
    Admin,
    Before,
    Number,
    Operator,
    Reader,
    Route,
    Since,
    TheServices,
    lower,
)
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.groups import MAX_TAGS, meant
from edgefleet_fleet.groups import page_of as page_of_devices
from edgefleet_fleet.happenings import HistoryKind
from edgefleet_fleet.paging import cut, page_of
from edgefleet_fleet.quarantines import lift, quarantines
from edgefleet_fleet.shapes import body_of, said

router = APIRouter(prefix="/api/v1", route_class=Route)


class ListedBody(BaseModel):
    """A device that comes in at once; with a key id, under that key alone."""

    device: str
    key_id: str = ""


class ClaimBody(BaseModel):
    """How often a claim may be used, for how long, and how its holders come in."""

    uses: int | None = Field(None, ge=1, le=10_000)
    hours: float = Field(24, gt=0, le=24 * 366)
    approve: bool = False
    listed: list[ListedBody] = Field([], max_length=MAX_LISTED)


@router.post(
    "/enrol",
    tags=["devices"],
    responses=said(EnrolResponse) | said(EnrolPending, 202),
    openapi_extra=body_of(EnrolRequest),
)
async def enrol_device(request: Request, services: TheServices) -> Any:
    """Exchange a claim and a certificate request for a client certificate; 202: wait, ask again."""
    message = parse(EnrolRequest, await _body(request))
    address = request.client.host if request.client is not None else ""
    answer = await services.room.threads.ask(services.enrolment.enrol, message, address=address)
    status = 202 if isinstance(answer, EnrolPending) else 200
    return JSONResponse(codec.encode(answer), status)


@router.post(
    "/renew",
    tags=["devices"],
    responses=said(CertificateResponse),
    openapi_extra=body_of(CertificateRequest),
)
async def renew_certificate(request: Request, services: TheServices) -> Any:
    """The next certificate of a device whose last one ended; its key signed the request."""
    message = parse(CertificateRequest, await _body(request))
    certificates = services.enrolment.certificates
    return codec.encode(
        await services.room.threads.ask(certificates.revive, message, address=address_of(request))
    )


async def _body(request: Request) -> bytes:
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BYTES:
            raise Malformed("request: too large")
    return bytes(raw)


@router.post("/claims", status_code=201, tags=["devices"], responses=said(shapes.MadeClaim, 201))
def make_claim(body: ClaimBody, services: TheServices, actor: Operator) -> Any:
    """Make a claim; the answer is the only place where it is ever said."""
    number, claim = services.enrolment.make_claim(
        uses=body.uses,
        hours=body.hours,
        actor=actor,
        approve=body.approve,
        listed=[Listed(entry.device, entry.key_id) for entry in body.listed],
    )
    with services.room.store.begin() as tx:
        found = next(item for item in tx.claims.list() if item.id == number)
    return views.claim(found) | {"claim": claim.render()}


@router.get("/claims", tags=["devices"], responses=said(shapes.Claims))
def list_claims(services: TheServices, _actor: Reader, pages: ThePages) -> Any:
    """All claims, newest first, without their secrets."""
    after = pages.after("claims", int)
    with services.room.store.begin() as tx:
        known = tx.claims.list()
    page = cut(known, lambda c: (c.id,), limit=pages.limit, after=after, newest_first=True)
    return pages.answer("claims", page, [views.claim(found) for found in page.rows])


@router.get("/claims/{number}", tags=["devices"], responses=said(shapes.Claim))
def show_claim(number: Number, services: TheServices, _actor: Reader) -> Any:
    """One claim, without its secret."""
    with services.room.store.begin() as tx:
        return api_resources.claim(services, tx, number)


@router.delete("/claims/{number}", status_code=204, tags=["devices"])
def revoke_claim(number: Number, services: TheServices, actor: Operator) -> Response:
    """End a claim."""
    services.enrolment.revoke_claim(number, actor=actor)
    return Response(status_code=204)


@router.get("/requests", tags=["devices"], responses=said(shapes.EnrolmentRequests))
def list_requests(services: TheServices, _actor: Reader, pages: ThePages) -> Any:
    """The devices that wait for an operator, the oldest first."""
    after = pages.after("requests", int, str)
    with services.room.store.begin() as tx:
        open_ones = tx.requests.open(at=int(services.room.clock()))
    page = cut(open_ones, lambda r: (r.created_at, r.device), limit=pages.limit, after=after)
    return pages.answer("requests", page, [views.request(found) for found in page.rows])


@router.post(
    "/requests/{device}/approve", tags=["devices"], responses=said(shapes.EnrolmentRequest)
)
def approve_request(
    device: str, services: TheServices, actor: Operator, key_id: str = ""
) -> dict[str, Any]:
    """Let a device in that waits; with a key id (or its beginning), under that key alone."""
    found = services.enrolment.approvals.approve(device, key_id=key_id, actor=actor)
    return views.request(found)


@router.post("/requests/{device}/deny", status_code=204, tags=["devices"])
def deny_request(device: str, services: TheServices, actor: Operator) -> Response:
    """Refuse a device that waits."""
    services.enrolment.approvals.deny(device, actor=actor)
    return Response(status_code=204)


@router.get("/devices", tags=["devices"], responses=said(shapes.Devices))
def list_devices(services: TheServices, _actor: Reader, pages: ThePages, to: str = "all") -> Any:
    """The devices that a filter means by name, with their newest telemetry."""
    after = pages.after("devices", str)
    with services.room.store.begin() as tx:
        behind = str(after[0]) if after else ""
        page, _ = page_of_devices(tx, meant(tx, to), limit=pages.limit, after=behind)
        return pages.answer("devices", page, views.devices(tx, page.rows))


@router.get("/devices/{device}", tags=["devices"], responses=said(shapes.Device))
def show_device(device: str, services: TheServices, _actor: Reader) -> Any:
    """One device with its newest telemetry, its events, and its part in rollouts."""
    with services.room.store.begin() as tx:
        return views.device(tx, device)


@router.get("/devices/{device}/telemetry", tags=["devices"], responses=said(shapes.TelemetrySeries))
def show_telemetry(
    device: str,
    services: TheServices,
    _actor: Reader,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 120,
) -> Any:
    """The series of a device, oldest first."""
    with services.room.store.begin() as tx:
        views.device(tx, device, events=0)
        return views.telemetry(tx, device, limit=limit)


@router.get("/devices/{device}/events", tags=["devices"], responses=said(shapes.Events))
def list_events(
    device: str,
    services: TheServices,
    _actor: Reader,
    pages: ThePages,
    before: Before = None,
    since: Since = 0,
    kind: Annotated[list[HistoryKind] | None, Query()] = None,
) -> Any:
    """What happened to a device, newest first: below a number, since a time, of these kinds."""
    cursor = pages.before("events")
    with services.room.store.begin() as tx:
        views.device(tx, device, events=0)
        rows = tx.history.page(
            *(device,),
            limit=pages.limit + 1,
            before=lower(before, cursor),
            since=since,
            kinds=kind or (),
        )
    page = page_of(rows, lambda entry: (entry.number,), limit=pages.limit)
    return pages.answer("events", page, [views.event_view(entry) for entry in page.rows])


class TagsBody(BaseModel):
    """Tags to set, and keys of tags to remove."""

    tags: dict[str, str] = Field({}, max_length=MAX_TAGS)
    remove: list[str] = Field([], max_length=MAX_TAGS)


@router.post("/devices/{device}/tags", tags=["devices"], responses=said(shapes.Tags))
def tag_device(device: str, body: TagsBody, services: TheServices, actor: Operator) -> Any:
    """Set and remove tags of a device; all that it has then."""
    return {"tags": services.groups.tag(device, body.tags, body.remove, actor=actor)}


@router.get("/quarantines", tags=["devices"], responses=said(shapes.Quarantines))
def list_quarantines(services: TheServices, _actor: Reader, to: str = "all") -> Any:
    """The bundles that failed on devices and are quarantined there."""
    with services.room.store.begin() as tx:
        return {"quarantines": quarantines(tx, meant(tx, to))}


class RetryBody(BaseModel):
    """The bundle that is to be tried again: its digest, or model-version."""

    bundle: str


@router.post(
    "/devices/{device}/retry",
    status_code=201,
    tags=["devices"],
    responses=said(shapes_models.Rollout, 201),
)
def retry_bundle(device: str, body: RetryBody, services: TheServices, actor: Operator) -> Any:
    """Let a device try a quarantined bundle again: the rollout that asks it."""
    made = lift(services.room, services.deployments, device, body.bundle, actor=actor)
    with services.room.store.begin() as tx:
        return rollout_views.rollout(tx, made, now=int(services.room.clock()))


@router.post("/devices/{device}/decommission", status_code=204, tags=["devices"])
def decommission_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take a device out for good, and what is kept for it away."""
    services.enrolment.decommission(device, actor=actor)
    return Response(status_code=204)


@router.delete("/devices/{device}", status_code=204, tags=["devices"])
def forget_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take a device out of the fleet."""
    services.enrolment.forget(device, actor=actor)
    return Response(status_code=204)


@router.post("/devices/{device}/revoke", status_code=204, tags=["devices"])
def revoke_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take back a device's certificates and its key; it is off the broker when this answers."""
    services.enrolment.revoke(device, actor=actor)
    return Response(status_code=204)


@router.get("/audit", tags=["keys"], responses=said(shapes.Audit))
def list_audit(
    services: TheServices,
    _actor: Reader,
    pages: ThePages,
    who: str = "*",
    what: str = "*",
    since: Since = 0,
) -> Any:
    """Who changed what, when, from where; newest first. `who` and `what` are patterns."""
    before = pages.before("audit")
    with services.room.store.begin() as tx:
        rows = tx.ledger.find(limit=pages.limit + 1, before=before, who=who, what=what, since=since)
    page = page_of(rows, lambda row: (row[0],), limit=pages.limit)
    shown = [{"number": number} | dataclasses.asdict(row) for number, row in page.rows]
    return pages.answer("audit", page, shown)
